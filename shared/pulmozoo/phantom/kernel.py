"""The reconstruction kernel, smooth to sharp, and noise that has passed through it.

The kernel is a difference of two Gaussians: a sharp one overshoots at edges. Noise is white noise less a share of its
low frequencies, sent through the same kernel: its power rises with frequency and then falls with the kernel, as it
does after filtered back projection.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .filters import gaussian_weights, reach_of, slide
from .scanner import Scanner

EDGE_MM = 0.45  # the kernel's second Gaussian is this much wider than its first
LOW_WIDTH = 3.0  # the Gaussian that finds the low frequencies of the noise is so much wider than the first

Pair = tuple[float, float]


@dataclass(frozen=True)
class Kernel:
    """In-plane filter; sd in pixels along x and y of its two Gaussians and of the one that finds the low noise."""

    narrow: Pair
    wide: Pair
    low: Pair
    sharpening: float
    ramp: float

    @property
    def reach(self) -> tuple[int, int]:
        """Pixels that :meth:`apply` loses at each side."""
        x, y = (reach_of(sd) for sd in self.wide)
        return x, y

    @property
    def noise_reach(self) -> tuple[int, int]:
        """Pixels that :meth:`without_low` and :meth:`apply` together lose at each side."""
        x, y = (reach_of(low) + reach for low, reach in zip(self.low, self.reach, strict=True))
        return x, y

    def apply(self, image: Tensor) -> Tensor:
        """Filter ``(X, Y, Z)`` along x and y; the edges are lost."""
        narrow = _blur_plane(image, self.narrow, self.reach)
        if self.sharpening == 0:
            return narrow
        return narrow.mul_(1 + self.sharpening).sub_(_blur_plane(image, self.wide, self.reach), alpha=self.sharpening)

    def without_low(self, white: Tensor) -> Tensor:
        """White noise less a share of what is smooth in the plane; the edges are lost."""
        rx, ry = (reach_of(sd) for sd in self.low)
        low = _blur_plane(white, self.low, (rx, ry))
        return torch.sub(white[rx : rx + low.shape[0], ry : ry + low.shape[1]], low, alpha=self.ramp)

    @cached_property
    def noise_gain(self) -> float:
        """Sd of what unit white noise becomes: the root of the summed squares of what one pixel of it becomes."""
        x, y = self.noise_reach
        point = torch.zeros(4 * x + 1, 4 * y + 1, 1)
        point[2 * x, 2 * y] = 1
        return float(self.apply(self.without_low(point)).norm())


def kernel_of(scanner: Scanner, pixel_mm: Pair) -> Kernel:
    """The kernel of a scanner on pixels of a given size along x and y."""
    blur = scanner.blur_mm
    narrow, wide, low = ((sd / pixel_mm[0], sd / pixel_mm[1]) for sd in (blur, blur + EDGE_MM, LOW_WIDTH * blur))
    return Kernel(narrow, wide, low, scanner.sharpening, scanner.ramp)


def _blur_plane(image: Tensor, sds: Pair, reach: tuple[int, int]) -> Tensor:
    for axis in (0, 1):
        image = slide(image, gaussian_weights(sds[axis], reach[axis]), axis)
    return image
