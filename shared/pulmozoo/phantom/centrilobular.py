"""Centrilobular emphysema: small ill-defined spots of air amid lobules, more above, merging as they grow."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .fields import REACH_MM, Draws, Points, SmoothField, smoothstep
from .fissures import LungBox
from .lung_air import check_percent, free_lung, from_root, height_in, level_of, scattered, take_tissue
from .scene import Scene, Subject, slabs

KNOT_MM = 2.5  # of the spline that carries the spots, which rounds each piece of them with a sd of 1.4 mm
PIECES = 4  # of each spot, so that it is not round
SPARED_MM = 4.0  # below pleura and fissures, where a lobule has its rim
HILUM_MM = 25.0  # around the root of a lung there are no lobules
SOFTNESS = 0.4  # of the level at a spot's border: how far to each side it goes from tissue to air
MOST_PERCENT = 80.0


@dataclass(frozen=True)
class Centrilobular:
    """A :class:`.scene.Disease` that takes ``percent`` of the lungs' volume, 0 to 80; its label is 1."""

    percent: float
    name: ClassVar[str] = "centrilobular"

    def __post_init__(self) -> None:
        check_percent(self.name, self.percent, MOST_PERCENT)

    def paint(self, scene: Scene, draws: Draws) -> Tensor:
        spots, air_hu = draw_spots(draws, scene.subject), draws.uniform(-1000, -985)
        level = level_of(scene.survey.grid.smooth(spots), scene.survey, self.percent)
        scene.survey.diseased |= _destroy(scene.survey, spots, level, air_hu)
        return _destroy(scene, spots, level, air_hu).to(torch.uint8)


def draw_spots(draws: Draws, subject: Subject) -> SmoothField:
    """How strongly each place is destroyed: the sum of spots, one a lobule, whose strength varies over the lungs."""
    regions, upper = draws.smooth_field(draws.uniform(40, 70), draws.uniform(0.3, 0.7)), draws.uniform(0.5, 2.5)
    pitch_mm = draws.uniform(5.5, 8.5)
    knots = int(2 * REACH_MM / KNOT_MM) + 3
    control = torch.zeros(knots**3)
    for box in (subject.lobation.left_box, subject.lobation.right_box):
        centres, strength = _lobules(draws, subject, box, pitch_mm)
        strength = strength * (centres.smooth(regions) + upper * height_in(box, centres.xyz)).exp()
        for _ in range(PIECES):
            pieces = centres.xyz + 0.28 * pitch_mm * draws.noise(centres.xyz.shape).clamp(-2, 2)
            _add(control, pieces, strength / PIECES, knots)
    return SmoothField(control.view(knots, knots, knots), KNOT_MM)


def _lobules(draws: Draws, subject: Subject, box: LungBox, pitch_mm: float) -> tuple[Points, Tensor]:
    """The middles of one lung's lobules and a strength of its own for each, ``(N,)``."""
    centres = scattered(draws, box, pitch_mm, jitter=0.4)
    lungs = subject.lungs_at(centres)
    kept = (lungs.depth > SPARED_MM) & (lungs.fissure_distance() > SPARED_MM)
    kept &= from_root(subject, centres.xyz) > HILUM_MM
    return Points(centres.xyz[kept]), (0.4 * draws.noise((len(kept),))[kept]).exp()


def _add(control: Tensor, positions: Tensor, strength: Tensor, knots: int) -> None:
    """Share the strengths ``(N,)`` of positions ``(N, 3)`` among the eight knots around each, in place."""
    at = (positions + REACH_MM) / KNOT_MM + 1
    low, part = at.floor().long(), at.frac()
    for corner in torch.cartesian_prod(*[torch.tensor([0, 1])] * 3):
        weight = torch.where(corner.bool(), part, 1 - part).prod(dim=1)
        x, y, z = (low + corner).unbind(dim=1)
        control.index_add_(0, (x * knots + y) * knots + z, weight * strength)


def _destroy(scene: Scene, spots: SmoothField, level: float, air_hu: float) -> Tensor:
    """Put air where the spots are denser than a level, softly, in place; returns where, bool ``(X, Y, Z)``."""
    free = free_lung(scene)
    for slab in slabs(scene.grid):
        density, here = slab.smooth(spots), free[slab.window]
        share = smoothstep(density, (1 - SOFTNESS) * level, (1 + SOFTNESS) * level) * here
        take_tissue(scene.hu[slab.window], share, air_hu)
        here &= density >= level
    return free
