"""Weights and inputs that depend only on a name, a shape and a seed; the golden values were made with them."""

import hashlib
from math import prod

import numpy as np
import torch
from torch import Tensor


def generator(name: str, seed: int) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:8], "little")))


def seeded_weight(name: str, shape: list[int], seed: int) -> Tensor:
    """One tensor of a checkpoint: normal by fan-in, or mild and positive where it scales or is a variance."""
    rng = generator(name, seed)
    if name.endswith("num_batches_tracked"):
        return torch.tensor(1)
    if len(shape) >= 2:
        values = rng.standard_normal(shape) * np.sqrt(1.0 / prod(shape[1:]))
    elif name.endswith(("running_var", "weight")):
        values = rng.uniform(0.5, 1.5, shape)
    else:
        values = rng.standard_normal(shape) * 0.1
    return torch.from_numpy(values.astype(np.float32))


def seeded_state_dict(shapes: dict[str, list[int]], seed: int, gains: dict[str, float]) -> dict[str, Tensor]:
    """All tensors of a checkpoint; matrices whose name contains a key of ``gains`` are multiplied by it."""
    state = {}
    for name, shape in shapes.items():
        tensor = seeded_weight(name, shape, seed)
        for part, gain in gains.items():
            if part in name and tensor.ndim >= 2:
                tensor = tensor * gain
        state[name] = tensor
    return state


def seeded_input(name: str, shape: list[int], seed: int) -> Tensor:
    """An image-like tensor in [0, 1)."""
    return torch.from_numpy(generator(f"input:{name}", seed).random(shape, dtype=np.float32))
