"""Air between the pleurae: a lung that shrinks towards a point and what its air pushes aside."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .anatomy import LEFT, RIGHT
from .fields import Coordinates, Draws, Grid, Place, Points, SmoothField, smoothstep
from .fissures import LungBox
from .solids import Vector

KINDS = ("apical", "lateral", "large", "tension", "supine", "loculated")
CHANCES = {
    "PA": {"apical": 0.45, "lateral": 0.2, "large": 0.2, "tension": 0.05, "loculated": 0.1},
    "AP": {"apical": 0.25, "lateral": 0.2, "large": 0.15, "tension": 0.1, "supine": 0.2, "loculated": 0.1},
}
INVERSION_STEPS = 6


@dataclass(frozen=True)
class Pneumothorax:
    """The lung of one side shrinks by ``scale`` about ``centre``, fully where ``share`` is 1; lengths in mm."""

    kind: str
    side: int
    centre: Vector
    scale: Vector
    apex_only: tuple[float, float] | None  # heights between which the air ends
    pocket: tuple[Vector, Vector] | None  # centre and radii of a loculated pocket
    uneven: SmoothField
    shift_mm: float  # of the mediastinum, away from the air
    drop_mm: float  # of the diaphragm below the air
    line_mm: float  # thickness of the visceral pleura
    condensing: float  # 0: the lung keeps its density as it shrinks, 1: its weight
    fluid_mm: float  # depth of fluid with a level

    def share(self, place: Place) -> Tensor:
        """How much of the shrinking happens at each position."""
        x, y, z = place.coordinates()
        share = 1 + 0.22 * place.smooth(self.uneven).clamp(-2, 2)
        if self.apex_only is not None:
            share = share * smoothstep(z, *self.apex_only)
        if self.pocket is not None:
            (cx, cy, cz), (rx, ry, rz) = self.pocket
            radius = ((x - cx) / rx).square() + ((y - cy) / ry).square() + ((z - cz) / rz).square()
            share = share * smoothstep(-radius, -1.0, -0.15)
        return share

    def source(self, place: Place) -> Coordinates:
        """Where the lung that now lies at each position lay before."""
        share = self.share(place)
        x, y, z = (
            value + share * (1 / factor - 1) * (value - middle)
            for value, middle, factor in zip(place.coordinates(), self.centre, self.scale, strict=True)
        )
        return x, y, z

    def target(self, xyz: Tensor) -> Tensor:
        """Where positions ``(N, 3)`` of the whole lung come to lie: the inverse of :meth:`source`."""
        centre = torch.tensor(self.centre)
        pull = 1 / torch.tensor(self.scale) - 1
        moved = xyz
        for _ in range(INVERSION_STEPS):  # exact where the share is even
            shrinking = self.share(Points(moved))[:, None] * pull
            moved = (xyz + shrinking * centre) / (1 + shrinking)
        return moved

    @property
    def volume_share(self) -> float:
        x, y, z = self.scale
        return x * y * z


def draw_pneumothorax(draws: Draws, kind: str, boxes: tuple[LungBox, LungBox]) -> Pneumothorax:
    """One pneumothorax of a kind, in the left or right lung of these boxes."""
    side = LEFT if draws.chance(0.5) else RIGHT
    box = boxes[0] if side == LEFT else boxes[1]
    (x0, y0, z0), (x1, y1, z1) = box.low, box.high
    medial, lateral = (x0, x1) if side == LEFT else (x1, x0)
    width, depth, height = x1 - x0, y1 - y0, z1 - z0
    near, middle_y = medial + side * draws.uniform(-0.02, 0.12) * width, y0 + draws.uniform(0.45, 0.65) * depth
    hilum: Vector = (near, middle_y, z0 + draws.uniform(0.4, 0.55) * height)
    base: Vector = (near, middle_y, z0 + draws.uniform(0.0, 0.35) * height)
    apex_only: tuple[float, float] | None = None
    pocket: tuple[Vector, Vector] | None = None
    shift = drop = 0.0
    if kind == "apical":
        s = draws.uniform(0.82, 0.965)
        centre, scale = base, (s, 0.5 + 0.5 * s, s)
        lowest = z0 + draws.uniform(0.1, 0.55) * height
        apex_only = (lowest, lowest + draws.uniform(0.2, 0.4) * height)
    elif kind == "lateral":
        s = draws.uniform(0.72, 0.95)
        centre, scale = hilum, (s, 0.6 + 0.4 * s, draws.uniform(s, 1.0))
    elif kind == "large":
        s = draws.uniform(0.45, 0.78)
        centre, scale = hilum, (s * draws.uniform(0.9, 1.1), draws.uniform(s, 0.9), s * draws.uniform(0.95, 1.2))
        shift, drop = draws.uniform(0, 10), draws.uniform(0, 8)
    elif kind == "tension":
        s = draws.uniform(0.28, 0.55)
        centre, scale = hilum, (s, draws.uniform(s, 0.75), s * draws.uniform(1.0, 1.5))
        shift, drop = draws.uniform(12, 40), draws.uniform(8, 30)
    elif kind == "supine":
        centre = (near, y1 - 0.05 * depth, z0 + draws.uniform(0.75, 0.95) * height)
        scale = (draws.uniform(0.86, 0.97), draws.uniform(0.7, 0.9), draws.uniform(0.8, 0.95))
        drop = draws.uniform(4, 25)
    else:
        s = draws.uniform(0.6, 0.85)
        centre, scale = hilum, (s, 0.5 + 0.5 * s, draws.uniform(0.9, 1.0))
        at: Vector = (lateral, y0 + draws.uniform(0.2, 0.8) * depth, z0 + draws.uniform(0.15, 0.85) * height)
        pocket = (at, (0.8 * width, 0.9 * depth, draws.uniform(0.15, 0.35) * height))
    upright = kind != "supine"
    return Pneumothorax(
        kind=kind,
        side=side,
        centre=centre,
        scale=scale,
        apex_only=apex_only,
        pocket=pocket,
        uneven=draws.smooth_field(draws.uniform(50, 90)),
        shift_mm=shift,
        drop_mm=drop,
        line_mm=draws.uniform(0.35, 0.9),
        condensing=draws.uniform(0.1, 0.8),
        fluid_mm=draws.uniform(10, 55) if upright and pocket is None and draws.chance(0.12) else 0.0,
    )


def draw_kind(draws: Draws, view: str) -> str:
    """A kind of pneumothorax as often as the view has it."""
    level = draws.uniform(0, 1)
    for kind, chance in CHANCES[view].items():
        level -= chance
        if level < 0:
            return kind
    return "apical"


def place_of(xyz: Coordinates, grid: Grid) -> Tensor:
    """Positions as the coordinates that ``grid_sample`` wants for a volume on ``grid``: ``(..., 3)`` in -1 to 1."""
    x, y, z = torch.broadcast_tensors(*xyz)
    axes = zip((z, y, x), (grid.z, grid.y, grid.x), strict=True)
    return torch.stack([2 * (value - axis[0]) / (axis[-1] - axis[0]) - 1 for value, axis in axes], dim=-1)
