"""Load a bundle's weights, or those of a training, when the engine starts."""

import logging
from pathlib import Path

from ignite.engine import Engine, Events
from torch import nn

from ..bundle.weights_file import (
    check_preset,
    load_strictly,
    network_state,
    read_metadata,
    read_weights,
    sha256,
)

logger = logging.getLogger(__name__)


class StrictCheckpointLoader:
    """Weights of the right preset, every tensor in its place, nothing executed; else BadInput.

    MONAI's ``CheckpointLoader`` neither knows presets nor says in a sentence what is wrong.

    Args:
        path: state dict, as in ``models/model.pt``.
        network: what is filled; only at the first start of an engine.
        bundle_root: the bundle whose metadata says which preset the weights belong to.
        preset: the preset that ``network`` was built with.
    """

    def __init__(self, path: str | Path, network: nn.Module, bundle_root: str | Path, preset: str) -> None:
        self.path = Path(path)
        self.network = network
        self.bundle_root = Path(bundle_root)
        self.preset = preset
        self.loaded = False

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        if self.loaded:
            return
        check_preset(self.bundle_root, self.preset)
        load_strictly(self.network, read_weights(self.path), self.path)
        self.loaded = True
        digest = sha256(self.path)
        logger.info("weights %s, sha256 %s", self.path, digest)
        described = read_metadata(self.bundle_root).get("weights", {})
        if "limits" in described and described.get("sha256") == digest:
            logger.warning("beware: %s", described["limits"])


class TrainedLoader:
    """The network that a training saved (``last.pt``, ``best.pt``), every tensor in its place; else BadInput.

    For a look at a training whose weights are not a bundle's yet; ``pulmozoo adopt`` makes them one's.

    Args:
        path: the checkpoint, or a bundle's ``model.pt``.
        network: what is filled.
        part: what the names of its tensors begin with in the file, such as ``encoder.``; the file's others are left.
    """

    def __init__(self, path: str | Path, network: nn.Module, part: str = "") -> None:
        self.path = Path(path)
        self.network = network
        self.part = part

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        state = network_state(self.path)
        chosen = {name.removeprefix(self.part): state[name] for name in state if name.startswith(self.part)}
        load_strictly(self.network, chosen, self.path)
        logger.info("weights of a training, %s", self.path)
