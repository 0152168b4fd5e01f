"""Simple bodies that give the depth of a position below their surface in mm (negative outside)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from .fields import Coordinates

Vector = tuple[float, float, float]
OTHERS = ((1, 2), (0, 2), (0, 1))


@dataclass(frozen=True)
class Ellipsoid:
    """Axis-aligned but for ``tilt`` (radians), which lowers its patient-left end."""

    centre: Vector
    radii: Vector
    tilt: float = 0.0

    def depth(self, at: Coordinates) -> Tensor:
        x, y, z = (value - middle for value, middle in zip(at, self.centre, strict=True))
        cosine, sine = math.cos(self.tilt), math.sin(self.tilt)
        across, up = (x * cosine - z * sine) / self.radii[0], (x * sine + z * cosine) / self.radii[2]
        radius = (across.square() + up.square() + (y / self.radii[1]).square()).sqrt()
        return (1 - radius) * min(self.radii)

    def pieces(self) -> tuple[Ellipsoid, ...]:
        return (self,)

    def bounds(self) -> tuple[Vector, Vector]:
        reach = max(self.radii[0], self.radii[2]) if self.tilt else None
        rx, ry, rz = (reach or self.radii[0], self.radii[1], reach or self.radii[2])
        x, y, z = self.centre
        return (x - rx, y - ry, z - rz), (x + rx, y + ry, z + rz)


@dataclass(frozen=True)
class Tube:
    """A chain of straight pieces with one radius."""

    path: tuple[Vector, ...]
    radius: float

    def depth(self, at: Coordinates) -> Tensor:
        pieces = pairwise(self.path)
        nearest = [_squared_distance(at, start, end) for start, end in pieces]
        squared = nearest[0]
        for other in nearest[1:]:
            squared = torch.minimum(squared, other)
        return self.radius - squared.sqrt()

    def pieces(self) -> tuple[Tube, ...]:
        """The tube, one straight piece at a time."""
        return tuple(Tube((start, end), self.radius) for start, end in pairwise(self.path))

    def bounds(self) -> tuple[Vector, Vector]:
        (x0, x1), (y0, y1), (z0, z1) = ((min(axis), max(axis)) for axis in zip(*self.path, strict=True))
        r = self.radius
        return (x0 - r, y0 - r, z0 - r), (x1 + r, y1 + r, z1 + r)


Solid = Ellipsoid | Tube


def _squared_distance(at: Coordinates, start: Vector, end: Vector) -> Tensor:
    direction = [b - a for a, b in zip(start, end, strict=True)]
    length = sum(d * d for d in direction)
    offset = [value - a for value, a in zip(at, start, strict=True)]
    along = (offset[0] * direction[0] + offset[1] * direction[1] + offset[2] * direction[2]) / max(length, 1e-6)
    along = along.clamp(0, 1)
    x, y, z = (o - along * d for o, d in zip(offset, direction, strict=True))
    return x.square() + y.square() + z.square()


def near(solids: Iterable[Solid], z: Tensor, reach_mm: float = 40.0) -> list[Solid]:
    """The bodies, and of tubes the parts, that come close to the heights ``z``: the others need not be computed."""
    low, high = float(z.min()) - reach_mm, float(z.max()) + reach_mm
    kept: list[Solid] = []
    for solid in solids:
        for part in solid.pieces():
            (_, _, bottom), (_, _, top) = part.bounds()
            if bottom < high and top > low:
                kept.append(part)
    return kept


class Whereabouts:
    """Which part of a volume a small body can be in, where the axes of the volume run about along x, y and z.

    Args:
        at: positions, each ``(X, Y, Z)``.
    """

    def __init__(self, at: Coordinates) -> None:
        self.at = at
        self.ranges = [
            (value.amin(dim=others), value.amax(dim=others)) for value, others in zip(at, OTHERS, strict=True)
        ]

    def depths(self, solids: Iterable[Solid], margin_mm: float) -> Iterator[tuple[tuple[slice, ...], Tensor]]:
        """Of each straight piece that is not elsewhere its window and its depth there.

        Left out is what lies further than ``margin_mm`` from the box of the piece.
        """
        for solid in solids:
            for piece in solid.pieces():
                low, high = piece.bounds()
                window = tuple(self._window(axis, low[axis] - margin_mm, high[axis] + margin_mm) for axis in range(3))
                x, y, z = (value[window] for value in self.at)
                if x.numel():
                    yield window, piece.depth((x, y, z))

    def _window(self, axis: int, low: float, high: float) -> slice:
        least, most = self.ranges[axis]
        inside = ((least <= high) & (most >= low)).nonzero()
        return slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, 0)


def smooth_max(first: Tensor, second: Tensor, width_mm: float) -> Tensor:
    """Maximum with the crease rounded over ``width_mm``."""
    blend = (1 - (first - second).abs() / width_mm).clamp(min=0)
    return torch.maximum(first, second) + blend.square() * (width_mm / 4)


def smooth_min(first: Tensor, second: Tensor, width_mm: float) -> Tensor:
    return -smooth_max(-first, -second, width_mm)


def union_depth(solids: Iterable[Solid], at: Coordinates, width_mm: float = 8.0) -> Tensor:
    """Depth below the joint surface of several bodies, creases rounded."""
    first, *rest = (solid.depth(at) for solid in solids)
    for depth in rest:
        first = smooth_max(first, depth, width_mm)
    return first
