"""The three fissures of one chest and the five lobes between them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .anatomy import Chest, Interior, survey_grid
from .fields import Coordinates, Draws, Grid, Place, SmoothField
from .lobe_shape import (
    HORIZONTAL,
    LEFT_OBLIQUE,
    LOBES,
    RIGHT_OBLIQUE,
    PlaneStatistics,
    divide_left,
    divide_right,
    plane_height,
)

# Times the measured standard deviation: networks trained on less did worse on real scans (design.md).
SPREAD = 2.8
SMALLEST_SHARE = {1: 0.1, 2: 0.08, 3: 0.08, 4: 0.08, 5: 0.035}  # of both lungs' volume, per lobe number
DAMPING = 0.93  # of the spread for each draw that left a lobe too small
# By how much, in units of the lung's height, the fissures move when a lobe loses volume: left oblique, right oblique
# and horizontal. A share that small is then allowed.
COLLAPSE = {0: (0, 0, 0), 1: (0.12, 0, 0), 2: (-0.14, 0, 0), 3: (0, 0, 0.13), 4: (0, -0.13, 0), 5: (0, 0, -0.08)}
SMALLEST_COLLAPSED_SHARE = 0.02
# Accessory fissures: how often, in which lobe, and the mean plane (sloped steeply where the sheet stands upright).
ACCESSORY = (
    (0.08, 1, PlaneStatistics((0.56, -0.1, 0.0), (0.05, 0.1, 0.06))),  # left minor
    (0.04, 2, PlaneStatistics((0.38, -0.1, 0.0), (0.04, 0.1, 0.06))),  # superior accessory, left and right
    (0.04, 4, PlaneStatistics((0.38, -0.1, 0.0), (0.04, 0.1, 0.06))),
    (0.06, 2, PlaneStatistics((0.1, 0.5, 3.0), (0.1, 0.2, 0.4))),  # inferior accessory, left and right
    (0.06, 4, PlaneStatistics((0.1, 0.5, -3.0), (0.1, 0.2, 0.4))),
    (0.02, 3, PlaneStatistics((1.45, 0.2, 2.2), (0.06, 0.1, 0.3))),  # azygos
)


@dataclass(frozen=True)
class LungBox:
    """Bounding box of one lung in mm (x to the left, y to posterior, z up)."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]

    def normalise(self, at: Coordinates) -> Coordinates:
        """RAS coordinates from 0 to 1 within the box."""
        x, y, z = at
        (x0, y0, z0), (x1, y1, z1) = self.low, self.high
        return (x1 - x) / (x1 - x0), (y1 - y) / (y1 - y0), (z - z0) / (z1 - z0)

    @property
    def height(self) -> float:
        return self.high[2] - self.low[2]


@dataclass(frozen=True)
class Fissure:
    """A bent sheet: plane, quadratic and smooth bumps in units of the lung's box; absent where ``gaps`` is low."""

    plane: tuple[float, float, float]
    bend: tuple[float, float, float]
    bumps: SmoothField
    gaps: SmoothField
    gap_level: float
    thickness_mm: float

    def distance(self, box: LungBox, place: Place) -> Tensor:
        """Signed distance in mm, positive above."""
        x, y, z = box.normalise(place.coordinates())
        xx, yy, xy = self.bend
        x0, y0 = x - 0.5, y - 0.5
        surface = plane_height(self.plane, x, y) + xx * x0.square() + yy * y0.square() + xy * x0 * y0
        rise = z - surface - place.smooth(self.bumps)
        return rise * (box.height * self.normal(box)[2])

    def normal(self, box: LungBox) -> tuple[float, float, float]:
        """Unit normal of the plane in mm space, in x, y, z."""
        (x0, y0, _), (x1, y1, _) = box.low, box.high
        slope_x, slope_y = self.plane[2] * box.height / (x1 - x0), self.plane[1] * box.height / (y1 - y0)
        length = (1 + slope_x**2 + slope_y**2) ** 0.5
        return slope_x / length, slope_y / length, 1 / length

    def sheet(self, distance_mm: Tensor, box: LungBox, grid: Grid) -> Tensor:
        """Share of each voxel filled by the sheet; its integral across is the thickness at any voxel size."""
        extent = sum((n * step) ** 2 for n, step in zip(self.normal(box), grid.spacing_mm, strict=True)) ** 0.5
        width = max(extent, self.thickness_mm)
        present = (((grid.smooth(self.gaps) - self.gap_level) * 4) + 0.5).clamp(0, 1)
        return (1 - distance_mm.abs() / width).clamp(min=0) * (self.thickness_mm / width) * present


@dataclass(frozen=True)
class Accessory:
    """A fissure that some people have within one lobe; it divides no lobe."""

    fissure: Fissure
    lobe: int

    def sheet(self, lobation: Lobation, lungs: LungMap, grid: Grid) -> Tensor:
        """Share of each voxel filled by the sheet."""
        box = lobation.left_box if self.lobe <= LOBES["left lower"] else lobation.right_box
        return self.fissure.sheet(self.fissure.distance(box, grid), box, grid) * (lungs.lobes == self.lobe)


@dataclass(frozen=True)
class Lobation:
    """The fissures of both lungs, with the boxes that their coordinates refer to."""

    left_box: LungBox
    right_box: LungBox
    left_oblique: Fissure
    right_oblique: Fissure
    horizontal: Fissure
    accessory: tuple[Accessory, ...]


@dataclass(frozen=True)
class LungMap:
    """Of each position: depth below the pleura in mm (negative outside), lobe number, distances above the fissures."""

    depth: Tensor
    lobes: Tensor
    left_oblique: Tensor
    right_oblique: Tensor
    horizontal: Tensor

    def fissure_distance(self) -> Tensor:
        """Distance in mm to the nearest fissure of the same lung, never negative."""
        on_right = self.lobes >= LOBES["right upper"]
        in_front = on_right & (self.right_oblique > 0)
        right = torch.where(
            in_front, torch.minimum(self.right_oblique.abs(), self.horizontal.abs()), self.right_oblique.abs()
        )
        return torch.where(on_right, right, self.left_oblique.abs())


def draw_lobation(draws: Draws, chest: Chest) -> Lobation:
    """Fissures for a chest, drawn again with a little less spread while a lobe comes out too small."""
    survey = survey_grid()
    depths = Interior(chest, survey).lungs
    accessory = tuple(
        Accessory(_draw_fissure(draws, plane, 1.0), lobe) for chance, lobe, plane in ACCESSORY if draws.chance(chance)
    )
    collapsed = chest.patient.collapsed
    moved, least = COLLAPSE[collapsed], {**SMALLEST_SHARE, collapsed: SMALLEST_COLLAPSED_SHARE}
    left_box, right_box = (_box_of(depth > 0, survey) for depth in depths)
    spread = SPREAD
    while True:
        lobation = Lobation(
            left_box,
            right_box,
            _draw_fissure(draws, LEFT_OBLIQUE, spread, moved[0]),
            _draw_fissure(draws, RIGHT_OBLIQUE, spread, moved[1]),
            _draw_fissure(draws, HORIZONTAL, spread, moved[2]),
            accessory,
        )
        counts = torch.bincount(map_lungs(lobation, survey, depths).lobes.flatten().long(), minlength=6)
        shares = (counts / counts[1:].sum()).tolist()
        if spread < 0.5 or all(shares[lobe] >= least[lobe] for lobe in LOBES.values()):
            return lobation
        spread *= DAMPING


def _draw_fissure(draws: Draws, statistics: PlaneStatistics, spread: float, moved: float = 0.0) -> Fissure:
    a, b, c = (draws.normal(mean, spread * sd) for mean, sd in zip(statistics.mean, statistics.sd, strict=True))
    relative = spread / SPREAD
    missing = draws.uniform(-2.5, 0.25)  # in standard deviations of the gap field: 0 to 60 % of the sheet
    faint = draws.chance(0.2)
    return Fissure(
        plane=(a + moved, b, c),
        bend=(draws.normal(0, 0.12) * relative, draws.normal(0.0, 0.16) * relative, draws.normal(0, 0.12) * relative),
        bumps=draws.smooth_field(draws.uniform(45, 90), draws.uniform(0.015, 0.035) * relative),
        gaps=draws.smooth_field(45.0),
        gap_level=missing,
        thickness_mm=draws.uniform(0.1, 0.25) if faint else draws.uniform(0.3, 0.9),
    )


def _box_of(mask: Tensor, grid: Grid) -> LungBox:
    extent = []
    for axis, positions in enumerate((grid.x, grid.y, grid.z)):
        others = [other for other in range(3) if other != axis]
        inside = positions[mask.any(dim=others[1]).any(dim=others[0])]
        half = grid.spacing_mm[axis] / 2
        extent.append((float(inside.min()) - half, float(inside.max()) + half))
    (x0, x1), (y0, y1), (z0, z1) = extent
    return LungBox((x0, y0, z0), (x1, y1, z1))


def map_lungs(lobation: Lobation, place: Place, depths: tuple[Tensor, Tensor]) -> LungMap:
    """Lobes and fissure distances where the depths of the left and right lung are known."""
    left, right = depths
    left_oblique = lobation.left_oblique.distance(lobation.left_box, place)
    right_oblique = lobation.right_oblique.distance(lobation.right_box, place)
    horizontal = lobation.horizontal.distance(lobation.right_box, place)
    lobes = divide_left(left_oblique) * (left > 0) + divide_right(right_oblique, horizontal) * (right > 0)
    return LungMap(torch.maximum(left, right), lobes, left_oblique, right_oblique, horizontal)


def fissure_coverage(lobation: Lobation, lungs: LungMap, grid: Grid) -> Tensor:
    """Share of each voxel filled by fissures."""
    on_left = lungs.lobes <= LOBES["left lower"]
    left = lobation.left_oblique.sheet(lungs.left_oblique, lobation.left_box, grid) * on_left
    oblique = lobation.right_oblique.sheet(lungs.right_oblique, lobation.right_box, grid)
    horizontal = lobation.horizontal.sheet(lungs.horizontal, lobation.right_box, grid) * (lungs.right_oblique > 0)
    share = torch.maximum(left, torch.maximum(oblique, horizontal) * ~on_left)
    for accessory in lobation.accessory:
        share = torch.maximum(share, accessory.sheet(lobation, lungs, grid))
    return share
