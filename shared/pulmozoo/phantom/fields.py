"""Where the phantom is evaluated (a voxel grid or scattered points), its random draws and smooth random fields.

Everything random about the anatomy is drawn here in millimetres, on the CPU and before any grid is known, so a seed
means the same chest at every resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

Coordinates = tuple[Tensor, Tensor, Tensor]  # x to the patient's left, y to posterior, z to superior, in mm

REACH_MM = 300.0  # smooth fields vary within this distance of the chest's centre and stay constant beyond
BSPLINE_RMS = 0.479**1.5  # of a cubic B-spline volume with unit normal control points


class Draws:
    """Random numbers of one seed; different ``stream`` numbers are independent of one another."""

    def __init__(self, seed: int, stream: int = 0) -> None:
        self.generator = torch.Generator().manual_seed((seed * 1_000_003 + stream * 7919) % 2**63)

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def normal(self, mean: float, sd: float) -> float:
        """One normal number, kept within three standard deviations."""
        return mean + sd * float(torch.randn((), generator=self.generator).clamp(-3, 3))

    def chance(self, probability: float) -> bool:
        return self.uniform(0, 1) < probability

    def integer(self, low: int, high: int) -> int:
        """One integer from ``low`` to ``high``, both included."""
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def points(self, count: int, low: Sequence[float], high: Sequence[float]) -> Tensor:
        """``(count, 3)`` points, uniform in a box."""
        lower, upper = torch.tensor(low), torch.tensor(high)
        return lower + (upper - lower) * torch.rand(count, 3, generator=self.generator)

    def noise(self, shape: Sequence[int]) -> Tensor:
        return torch.randn(tuple(shape), generator=self.generator)

    def smooth_field(self, scale_mm: float, rms: float = 1.0) -> SmoothField:
        knots = int(2 * REACH_MM / scale_mm) + 3
        return SmoothField(self.noise((knots, knots, knots)) * (rms / BSPLINE_RMS), scale_mm)


@dataclass(frozen=True)
class SmoothField:
    """A cubic B-spline volume: ``control`` ``(K, K, K)`` at knots ``scale_mm`` apart."""

    control: Tensor
    scale_mm: float

    def weights(self, position_mm: Tensor) -> Tensor:
        """Share of each knot at each position: ``(N,) -> (N, K)``."""
        knot = (position_mm.clamp(-REACH_MM, REACH_MM) + REACH_MM) / self.scale_mm + 1
        t = (knot[:, None] - torch.arange(len(self.control), device=position_mm.device)).abs()
        return torch.where(t < 1, 2 / 3 - t**2 + t**3 / 2, (2 - t).clamp(min=0) ** 3 / 6)


@dataclass(frozen=True)
class Points:
    """Scattered positions ``(N, 3)`` in mm."""

    xyz: Tensor

    def coordinates(self) -> Coordinates:
        x, y, z = self.xyz.unbind(dim=1)
        return x, y, z

    def smooth(self, smooth: SmoothField) -> Tensor:
        wx, wy, wz = (smooth.weights(axis) for axis in self.coordinates())
        rows = torch.einsum("ni,ijk->njk", wx, smooth.control)
        return torch.einsum("njk,nj,nk->n", rows, wy, wz)


@dataclass(frozen=True)
class Grid:
    """Voxel centres ``(X, Y, Z)``, one increasing vector of mm per axis.

    ``spacing_mm`` is the size of a voxel, ``window`` the grid's place in a larger one, ``gap_mm`` what lies between
    two slices and is in neither.
    """

    x: Tensor
    y: Tensor
    z: Tensor
    spacing_mm: tuple[float, float, float]
    window: tuple[slice, slice, slice] = field(default=(slice(None), slice(None), slice(None)))
    gap_mm: float = 0.0

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.x), len(self.y), len(self.z)

    def coordinates(self) -> Coordinates:
        """Broadcast over the volume: shapes ``(X, 1, 1)``, ``(1, Y, 1)``, ``(1, 1, Z)``."""
        return self.x[:, None, None], self.y[None, :, None], self.z[None, None, :]

    def smooth(self, smooth: SmoothField) -> Tensor:
        """Values of a field ``(X, Y, Z)``, one axis after the other because that is cheap."""
        wx, wy, wz = (smooth.weights(axis) for axis in (self.x, self.y, self.z))
        lines = torch.einsum("ijk,zk,yj->iyz", smooth.control.to(wx), wz, wy)
        return (wx @ lines.flatten(1)).reshape(self.shape)

    def crop(self, low: Sequence[float], high: Sequence[float]) -> Grid:
        """The part within a box in mm; it may be empty."""
        parts = []
        for axis, lower, upper in zip((self.x, self.y, self.z), low, high, strict=True):
            start, stop = torch.searchsorted(axis, torch.tensor([lower, upper]).to(axis)).tolist()
            parts.append(slice(start, stop))
        px, py, pz = parts
        return Grid(self.x[px], self.y[py], self.z[pz], self.spacing_mm, (px, py, pz), self.gap_mm)


Place = Points | Grid


def centred_grid(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], device: str | torch.device = "cpu"
) -> Grid:
    """Voxel grid whose middle is the chest's centre."""
    x, y, z = (
        (torch.arange(count, dtype=torch.float64, device=device) - (count - 1) / 2).mul(step).float()
        for count, step in zip(shape, spacing_mm, strict=True)
    )
    return Grid(x, y, z, spacing_mm)


def smoothstep(value: Tensor, low: float, high: float) -> Tensor:
    """0 below ``low``, 1 above ``high``, smooth between."""
    t = ((value - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def coverage(depth_mm: Tensor, voxel_mm: float) -> Tensor:
    """Share of a voxel inside a body, from the depth of its centre below the surface."""
    return (depth_mm / voxel_mm + 0.5).clamp(0, 1)
