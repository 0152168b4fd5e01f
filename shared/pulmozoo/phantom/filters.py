"""Gaussian filters made of sums over neighbours, so that a volume gets the same bits whatever the threads."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .fields import Draws

Triple = tuple[float, float, float]


def correlated_noise(draws: Draws, shape: tuple[int, ...], sd_voxels: Triple) -> Tensor:
    """Unit-variance Gaussian noise with Gaussian correlation, alike up to the edges."""
    noise = draws.noise([count + 2 * reach_of(sd) for count, sd in zip(shape, sd_voxels, strict=True)])
    for axis, sd in enumerate(sd_voxels):
        noise = slide(noise, unit_power(gaussian_weights(sd)), axis)
    return noise


def reach_of(sd: float) -> int:
    """Voxels to each side that a Gaussian takes in."""
    return max(int(3 * sd + 0.5), 1)


def gaussian_weights(sd: float, reach: int | None = None) -> list[float]:
    """Gaussian integrated over each voxel, so that a blur finer than a voxel is still right."""
    reach = reach_of(sd) if reach is None else reach
    edges = (torch.arange(-reach, reach + 2, dtype=torch.float64) - 0.5) / max(sd, 1e-3)
    weights = torch.special.ndtr(edges).diff()
    return (weights / weights.sum()).tolist()


def unit_power(weights: Sequence[float]) -> list[float]:
    """Weights that leave the variance of white noise as it is."""
    gain = sum(weight**2 for weight in weights) ** 0.5
    return [weight / gain for weight in weights]


def repeat_edges(volume: Tensor, reach: int, axis: int) -> Tensor:
    """``reach`` copies of the first and the last voxels before and after one axis."""
    first, last = volume.narrow(axis, 0, 1), volume.narrow(axis, -1, 1)
    return torch.cat([first] * reach + [volume] + [last] * reach, dim=axis)


def slide(volume: Tensor, weights: Sequence[float], axis: int) -> Tensor:
    """Correlate along one axis, which loses ``len(weights) - 1`` voxels."""
    length = volume.shape[axis] - len(weights) + 1
    blurred = volume.narrow(axis, 0, length) * weights[0]
    for shift, weight in enumerate(weights[1:], start=1):
        blurred.add_(volume.narrow(axis, shift, length), alpha=weight)
    return blurred
