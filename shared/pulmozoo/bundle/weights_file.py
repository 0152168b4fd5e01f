"""A bundle's weights: a bare state dict that belongs to one preset."""

import hashlib
import json
import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
from torch import Tensor, nn

from .errors import BadInput

logger = logging.getLogger(__name__)


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def read_metadata(root: Path) -> dict[str, Any]:
    """The bundle's ``configs/metadata.json``."""
    metadata: dict[str, Any] = json.loads((root / "configs" / "metadata.json").read_text(encoding="utf-8"))
    return metadata


def read_tensors(path: Path) -> Any:
    """What a checkpoint file holds, read without executing anything in it; BadInput says what is wrong with it."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise BadInput(
            f"the weights {path} hold more than tensors, or are damaged: expected a bare state dict, as "
            "torch.save(network.state_dict(), path) writes it; code in the file was not executed"
        ) from error
    except (RuntimeError, EOFError, BadZipFile, ValueError, LookupError, TypeError, AssertionError) as error:
        raise BadInput(f"the weights {path} are truncated or no PyTorch file: download or train them again") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """A bare state dict; BadInput when the file is missing, damaged or holds anything else."""
    if not path.is_file():
        raise BadInput(f"the weights {path} are missing: expected a state dict there; the network never runs untrained")
    state = read_tensors(path)
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise BadInput(f"the weights {path} are no bare state dict: expected only names and tensors")
    return state


def network_state(checkpoint: Path) -> dict[str, Tensor]:
    """The network's state dict in a checkpoint file, read without executing anything in it."""
    if not checkpoint.is_file():
        raise BadInput(f"{checkpoint} does not exist: expected a checkpoint")
    loaded = read_tensors(checkpoint)
    state = loaded.get("network", loaded.get("model", loaded)) if isinstance(loaded, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise BadInput(f"{checkpoint} holds no state dict: expected one, or one under 'network' or 'model'")
    return state


def load_strictly(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load all tensors or none; BadInput names the first that does not fit."""
    wanted = network.state_dict()
    for name, tensor in wanted.items():
        if name not in state:
            raise BadInput(f"the weights {path} belong to another network: {name} is missing")
        if state[name].shape != tensor.shape:
            raise BadInput(
                f"the weights {path} belong to another network or preset: {name} has shape "
                f"{tuple(state[name].shape)}, expected {tuple(tensor.shape)}"
            )
    surplus = next((name for name in state if name not in wanted), None)
    if surplus is not None:
        raise BadInput(f"the weights {path} belong to another network: {surplus} has no place in it")
    network.load_state_dict(state)


def check_preset(root: Path, preset: str) -> None:
    """Stop when the weights in the bundle belong to another preset than the one asked for."""
    own = read_metadata(root).get("weights", {}).get("preset")
    if own != preset:
        raise BadInput(
            f"the weights in {root / 'models'} belong to preset {own!r}, asked for was {preset!r}: "
            f"run with --preset {own}, or put weights of preset {preset!r} in place with `pulmozoo adopt`"
        )
