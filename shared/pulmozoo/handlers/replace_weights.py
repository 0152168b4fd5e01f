"""End a training by putting its weights into the bundle that it started from."""

import logging
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from torch import nn

from ..bundle.adopt import adopt_state
from ..bundle.weights_file import read_metadata
from .score_table import ScoreTable, as_text

logger = logging.getLogger(__name__)


class ReplaceWeights:
    """When the training is complete, replace weights, preset and metadata of the bundle together.

    The metadata say what the new weights were trained on after the old ones, and their score. A training that is
    stopped early leaves the bundle as it was, and so does BadInput for weights that half precision cannot hold.

    Args:
        network: what was trained.
        bundle_root: the bundle that is changed.
        preset: the preset that ``network`` was built with.
        scores: of a validation at the end of the training; has no rows if there was none.
    """

    def __init__(self, network: nn.Module, bundle_root: str | Path, preset: str, scores: ScoreTable) -> None:
        self.network = network
        self.bundle_root = Path(bundle_root)
        self.preset = preset
        self.scores = scores

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        before = read_metadata(self.bundle_root)["weights"]["trained_on"]
        state: Any = engine.state
        held_back = len({row["scan"] for row in self.scores.rows})
        score = as_text(self.scores.mean())
        description = {
            "tier": "yours",
            "trained_on": f"{before}; then {len(state.dataloader.dataset)} scans of yours, {state.max_epochs} epochs",
            "command": "configs/train.json, in_place (in MONAI Label: POST /train)",
            "score": f"{score} (mean of {held_back} scans held back)" if held_back else "none: no scan was held back",
        }
        weights = self.bundle_root / "models" / "model.pt"
        adopt_state(self.network.state_dict(), weights, self.bundle_root, self.bundle_root, self.preset, description)
        logger.info("replaced %s: %s", weights, description["score"])
