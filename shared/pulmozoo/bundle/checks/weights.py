"""The weights file, without the network."""

import torch

from ..errors import BadInput
from ..pack import WEIGHTS
from ..weights_file import read_weights, sha256
from .candidate import Candidate


def one_weights_file(bundle: Candidate) -> None:
    """MONAI Label takes the file with the shortest name, so a second one could be taken instead."""
    others = sorted(path.name for path in (bundle.root / "models").iterdir() if path.name != "model.pt")
    if others:
        raise BadInput(f"models holds {', '.join(others)}: expected model.pt alone")


def weights_hash(bundle: Candidate) -> None:
    expected, came = bundle.metadata["weights"].get("sha256"), sha256(bundle.root / WEIGHTS)
    if came != expected:
        raise BadInput(f"{WEIGHTS} has sha256 {came}, but the metadata describe {expected}: use pulmozoo adopt")


def bare_state_dict(bundle: Candidate) -> None:
    read_weights(bundle.root / WEIGHTS)


def weights_on_cpu(bundle: Candidate) -> None:
    """Nobody has to pass ``map_location``."""
    state = torch.load(bundle.root / WEIGHTS, weights_only=True)
    for name, tensor in state.items():
        if tensor.device.type != "cpu":
            raise BadInput(f"{name} lies on {tensor.device}: save the weights from the CPU")


def weights_half_and_finite(bundle: Candidate) -> None:
    for name, tensor in read_weights(bundle.root / WEIGHTS).items():
        if tensor.is_floating_point() and tensor.dtype != torch.float16:
            raise BadInput(f"{name} is {tensor.dtype}: expected float16, as pulmozoo adopt writes it")
        if not tensor.isfinite().all():
            raise BadInput(f"{name} is not finite")
