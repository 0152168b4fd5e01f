"""How much of the beam a slice takes away along x and y, and the noise that follows from it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .scanner import Triple

WATER_PER_MM = 0.019  # attenuation of water at the beam's mean energy
HARDENED = 0.5  # share of it that noise feels: tube current and bow-tie filter make up for the rest
STARVED = 0.7  # logarithm of the loss beyond the usual at which streaks begin: 37 mm of water
SLAB_SLICES = 16


@dataclass(frozen=True)
class Attenuation:
    """Logarithm of the beam's loss along x ``(1, Y, Z)`` and along y ``(X, 1, Z)``.

    ``usual_x`` is the longest path along x and ``usual_noise`` the noise in the middle of the median slice, so that a
    scan of a small part of the chest is as noisy as one of the whole.
    """

    along_x: Tensor
    along_y: Tensor
    usual_x: float
    usual_noise: float

    def part(self, slices: slice) -> "Attenuation":
        return Attenuation(self.along_x[..., slices], self.along_y[..., slices], self.usual_x, self.usual_noise)

    def noise_scale(self) -> Tensor:
        """Sd of noise ``(X, Y, Z)``, 1 in the middle of a usual slice: more where long paths cross."""
        return _variance(self.along_x, self.along_y).sqrt_().div_(self.usual_noise)

    def starvation(self) -> Tensor:
        """0 where paths along x are usual, towards 1 where hardly a photon comes through: ``(1, Y, Z)``."""
        return 1 - (-(self.along_x - self.usual_x - STARVED).clamp(min=0)).exp()


def measure_attenuation(image: Tensor, spacing_mm: Triple) -> Attenuation:
    """Attenuation of a scan ``(X, Y, Z)`` in HU."""
    sums = [_sums(part) for part in image.split(SLAB_SLICES, dim=2)]
    sx, sy, _ = spacing_mm
    along_x = torch.cat([part[0] for part in sums], dim=2) * (WATER_PER_MM * sx)
    along_y = torch.cat([part[1] for part in sums], dim=2) * (WATER_PER_MM * sy)
    middle_x, middle_y = along_x[:, _middle(along_x.shape[1])], along_y[_middle(along_y.shape[0])]
    noise = _variance(middle_x.mean(dim=1, keepdim=True), middle_y.mean(dim=0, keepdim=True)).sqrt()
    return Attenuation(along_x, along_y, float(along_x.amax(dim=1).median()), float(noise.median()))


def _variance(along_x: Tensor, along_y: Tensor) -> Tensor:
    return 0.5 * ((HARDENED * along_x).exp() + (HARDENED * along_y).exp())


def _sums(image: Tensor) -> tuple[Tensor, Tensor]:
    density = (image + 1000).clamp_(0, 3000).div_(1000)
    return density.sum(dim=0, keepdim=True), density.sum(dim=1, keepdim=True)


def _middle(count: int) -> slice:
    """The middle third of an axis."""
    return slice(count // 3, count - count // 3)
