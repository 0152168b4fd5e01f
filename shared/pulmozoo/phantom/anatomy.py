"""Shape of one chest: rib cage, diaphragm, mediastinum and the two lungs between them, all as depths in mm."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .fields import Coordinates, Draws, Grid, Place, SmoothField, smoothstep
from .solids import Ellipsoid, Solid, Tube, Vector, smooth_max, smooth_min, union_depth

SURVEY_STEP_MM = 8.0  # of the fixed grid on which a chest is measured before it is voxelised
LEFT, RIGHT = 1, -1  # sign of x


@dataclass(frozen=True)
class Hemithorax:
    """One half of the rib cage and its half of the diaphragm; lengths in mm, x counted outward from the midline."""

    side: int
    top: float
    height: float
    centre_x: float
    lateral: float
    medial: float
    anterior: float
    posterior: float
    apex: float  # share of the height over which the cage tapers
    exponent: float
    dome_height: float
    dome_x: float
    dome_y: float
    dome_power: float
    dome_tilt: float


@dataclass(frozen=True)
class Mediastinum:
    """What lies between the lungs: named bodies and the sheet that joins them."""

    heart: tuple[Solid, ...]
    aorta: Tube
    vessels: tuple[Solid, ...]
    hila: tuple[Solid, ...]
    roots: tuple[Vector, Vector]
    oesophagus: Tube
    carina: Vector
    septum_x: float
    septum_lean: float
    anterior_half: float
    posterior_half: float
    upper_half: float
    upper_front: float
    spine_front: float
    spine_half: float


@dataclass(frozen=True)
class Chest:
    """Everything that fixes the outlines of the lungs."""

    left: Hemithorax
    right: Hemithorax
    mediastinum: Mediastinum
    kyphosis: float
    rotation: tuple[float, float]
    warp: tuple[SmoothField, SmoothField, SmoothField]

    def straighten(self, place: Place) -> Coordinates:
        """Positions in the upright, symmetric chest in which all bodies are described."""
        x, y, z = place.coordinates()
        turn, nod = self.rotation
        x, y = x + turn * y, y - turn * x
        y, z = y + nod * z, z - nod * y
        wx, wy, wz = (place.smooth(component) for component in self.warp)
        x, y, z = x + wx, y + wy, z + wz
        level = z / self.left.height
        return x, y + self.kyphosis * (level + 0.05).clamp(-0.7, 0.7).square(), z


def draw_chest(draws: Draws) -> Chest:
    """One random chest; lungs spread about the measured left 121 x 163 x 247 mm and right 131 x 166 x 248 mm."""
    height = min(max(draws.normal(246, 30), 180), 300)
    width, depth = draws.normal(1, 0.1), draws.normal(1, 0.11)
    dome = draws.normal(72, 18) * (1.3 if height < 215 else 1.0)
    dome = min(max(dome, 28), 0.48 * height)
    right = _draw_hemithorax(draws, RIGHT, height, width, depth, dome)
    left = _draw_hemithorax(draws, LEFT, height, width, depth, dome - draws.normal(10, 9))
    return Chest(
        left=left,
        right=right,
        mediastinum=_draw_mediastinum(draws, height, width, depth, left.dome_height),
        kyphosis=draws.uniform(30, 130),
        rotation=(draws.normal(0, 0.05), draws.normal(0, 0.05)),
        warp=_draw_warp(draws, draws.uniform(55, 90), draws.uniform(2.0, 4.0)),
    )


def _draw_warp(draws: Draws, scale_mm: float, rms: float) -> tuple[SmoothField, SmoothField, SmoothField]:
    x, y, z = (draws.smooth_field(scale_mm, rms) for _ in range(3))
    return x, y, z


def _draw_hemithorax(
    draws: Draws, side: int, height: float, width: float, depth: float, dome_height: float
) -> Hemithorax:
    own_width, own_height = draws.normal(1, 0.04), draws.normal(1, 0.025)
    top = height / 2 + draws.normal(0, 3)
    centre_x = 52 * width
    lateral = (78 if side == RIGHT else 75) * width * own_width
    return Hemithorax(
        side=side,
        top=top,
        height=height * own_height,
        centre_x=centre_x,
        lateral=lateral,
        medial=72 * width,
        anterior=draws.normal(82, 6) * depth,
        posterior=draws.normal(84, 4) * depth,
        apex=draws.uniform(0.35, 0.7),
        exponent=draws.uniform(1.95, 2.7),
        dome_height=max(dome_height, 20),
        dome_x=draws.normal(58, 6) * width,
        dome_y=draws.normal(-20, 8) * depth,
        dome_power=draws.uniform(1.8, 2.8),
        dome_tilt=draws.normal(0, 0.05),
    )


def _draw_mediastinum(draws: Draws, height: float, width: float, depth: float, dome: float) -> Mediastinum:
    size = draws.normal(1, 0.1)
    floor = -height / 2 + 0.88 * dome
    carina_z = height / 2 - draws.uniform(0.28, 0.4) * height
    carina = (draws.normal(-3, 3), draws.normal(12, 4) * depth, carina_z)
    heart_x = draws.normal(20, 6) * width
    heart_radii = (draws.normal(60, 6) * size * math.sqrt(width), 47 * size * depth, draws.normal(46, 4) * size)
    heart_z = floor + 0.72 * heart_radii[2]
    heart_y = draws.normal(-24, 5) * depth
    spine_front = draws.normal(47, 4) * depth
    base_z = max(carina_z - 42, heart_z + 12)
    aorta_r, arch_z = draws.normal(13.5, 1.8), carina_z + draws.uniform(2, 18)
    aorta = Tube(
        (
            (-6, heart_y + 8, base_z - 15),
            (-14, heart_y + 5, arch_z - 20),
            (-6, heart_y + 12, arch_z - 2),
            (14, 0.5 * (heart_y + spine_front), arch_z + 4),
            (23, spine_front - 6, arch_z - 8),
            (25, spine_front + 2, arch_z - 35),
            (14, spine_front - 10, -height / 2 + dome - 20),
            (4, spine_front - 10, -height / 2 - 80),
        ),
        aorta_r,
    )
    hilum_z = carina_z - draws.uniform(28, 45)
    hilum_y, hilum_x = draws.normal(10, 5) * depth, draws.normal(36, 4) * width
    bulge = draws.normal(1, 0.2)
    # The root of each lung hangs on a bridge of main bronchus and artery.
    hila: list[Solid] = []
    roots: list[Vector] = []
    for side in (LEFT, RIGHT):
        centre = (side * hilum_x, hilum_y, hilum_z + (6 if side == LEFT else -4))
        inner = (side * 8.0, carina[1] - 4, carina_z - 14)
        roots.append(centre)
        hila += [Ellipsoid(centre, (14 * bulge, 17 * bulge, 26 * bulge)), Tube((inner, centre), 13 * bulge)]
    return Mediastinum(
        heart=(
            Ellipsoid((heart_x, heart_y, heart_z), heart_radii, tilt=draws.uniform(0.2, 0.75)),
            Ellipsoid(
                (-4, heart_y + 12 * depth, 0.5 * (heart_z + carina_z) - 6),
                (38 * size, 36 * size, max(0.5 * (carina_z - heart_z) + 6, 30)),
            ),
        ),
        aorta=aorta,
        vessels=(
            Ellipsoid((14, heart_y + 8, carina_z - 24), (24 * size, 22 * size, 28 * size)),
            Tube(
                ((-24, heart_y + 8, heart_z), (-25, heart_y + 8, carina_z), (-22, -4, height / 2)), draws.normal(9, 1)
            ),
            Tube(((-24, 2, heart_z), (-24, 8, -height / 2)), draws.normal(12, 1.5)),
        ),
        hila=tuple(hila),
        roots=(roots[0], roots[1]),
        oesophagus=Tube(
            ((2, carina[1] + 18, height / 2 + 60), (3, spine_front - 10, carina_z), (10, spine_front - 16, floor - 20)),
            draws.normal(8, 1.5),
        ),
        carina=carina,
        septum_x=draws.normal(2, 5),
        septum_lean=draws.normal(0, 0.08),
        anterior_half=draws.uniform(1.5, 9),
        posterior_half=draws.uniform(7, 16),
        upper_half=draws.normal(27, 4),
        upper_front=draws.normal(-22, 9),
        spine_front=spine_front,
        spine_half=draws.normal(23, 2),
    )


def cage_depth(half: Hemithorax, at: Coordinates) -> Tensor:
    """Depth below the inner face of one half of the rib cage, open below."""
    x, y, z = at
    below = half.top - z
    lateral, medial = (
        _taper(below, half.lateral, half.height * half.apex * 0.8),
        _taper(below, half.medial, half.height * 0.42),
    )
    front, back = (
        _taper(below, half.anterior, half.height * half.apex * 1.5),
        _taper(below, half.posterior, half.height * 0.4),
    )
    outward = half.side * x - half.centre_x
    across = torch.maximum(outward / lateral, -outward / medial)
    along = torch.maximum(y / back, -y / front)
    radius = (across.pow(half.exponent) + along.pow(half.exponent)).pow(1 / half.exponent)
    return torch.minimum((1 - radius) * 0.5 * (lateral + back), below)


def _taper(below_apex: Tensor, size: float, length: float) -> Tensor:
    """Half-width of a cage that closes like a dome over ``length`` mm; never zero, so that it can divide."""
    return (1 - (1 - (below_apex / length).clamp(0, 1)).square()).sqrt() * (size - 1) + 1


def diaphragm_height(half: Hemithorax, x: Tensor, y: Tensor) -> Tensor:
    """Height z of the diaphragm below one lung."""
    outward = half.side * x - half.dome_x
    lateral = half.centre_x + half.lateral - half.dome_x
    back, front = half.posterior - half.dome_y, (half.anterior + half.dome_y) * 1.7
    across = torch.maximum(outward / lateral, -outward / (2.3 * half.dome_x))
    ahead = y - half.dome_y
    along = torch.maximum(ahead / back, -ahead / front)
    sag = (across.square() + along.square()).pow(half.dome_power / 2)
    return half.top - half.height + half.dome_height * (1 - sag) + half.dome_tilt * outward


def mediastinum_depth(chest: Chest, at: Coordinates) -> Tensor:
    """Depth below the pleura that covers heart, vessels, spine and the sheet between the lungs."""
    x, y, z = at
    middle = chest.mediastinum
    upper = smoothstep(z, middle.carina[2] - 25, middle.carina[2] + 25)
    behind = (
        smoothstep(y, -30, 25) * (1 - upper) + smoothstep(y, middle.upper_front - 18, middle.upper_front + 18) * upper
    )
    wide = middle.posterior_half + (middle.upper_half - middle.posterior_half) * upper
    half_width = middle.anterior_half + (wide - middle.anterior_half).clamp(min=0) * behind
    sheet = half_width - (x - middle.septum_x * (1 - behind) - middle.septum_lean * z * (1 - behind)).abs()
    bodies = union_depth((*middle.heart, middle.aorta, *middle.vessels, *middle.hila), at)
    return smooth_max(smooth_max(sheet, spine_depth(middle, at), 10), bodies, 8)


def spine_depth(middle: Mediastinum, at: Coordinates) -> Tensor:
    """Depth below the front and sides of the vertebral column and the muscle behind it."""
    x, y, _ = at
    back = y - middle.spine_front
    across = x / (middle.spine_half + 0.3 * (back - 20).clamp(min=0))
    rounded = (across.square() + ((20 - back) / 20).clamp(min=0).square()).sqrt()
    return (1 - rounded) * 20


def lung_depth(half: Hemithorax, at: Coordinates, mediastinum: Tensor) -> Tensor:
    """Depth below the pleura of one lung: within the cage, above the diaphragm, beside the mediastinum."""
    x, y, z = at
    above = (z - diaphragm_height(half, x, y)) * 0.8
    depth = smooth_min(cage_depth(half, at), above, 5)
    depth = smooth_min(depth, -mediastinum, 6)
    # Beyond the other side of the midline a lung must not reappear.
    return torch.minimum(depth, half.side * x + 30)


def lung_depths(chest: Chest, at: Coordinates, mediastinum: Tensor) -> tuple[Tensor, Tensor]:
    """Depths of the left and the right lung beside a mediastinum of known depth; at most one of them is positive."""
    left, right = (lung_depth(half, at, mediastinum) for half in (chest.left, chest.right))
    x, _, z = at
    leftward = x - chest.mediastinum.septum_x - chest.mediastinum.septum_lean * z
    return torch.minimum(left, leftward), torch.minimum(right, -leftward)


def survey_grid() -> Grid:
    """The fixed coarse grid that covers every chest."""
    x = torch.arange(-184.0, 185.0, SURVEY_STEP_MM)
    y = torch.arange(-144.0, 145.0, SURVEY_STEP_MM)
    z = torch.arange(-200.0, 201.0, SURVEY_STEP_MM)
    return Grid(x, y, z, (SURVEY_STEP_MM, SURVEY_STEP_MM, SURVEY_STEP_MM))
