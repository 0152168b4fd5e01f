"""Shape of one chest: rib cage, diaphragm, mediastinum and the two lungs between them, all as depths in mm."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .fields import Coordinates, Draws, Grid, Place, SmoothField, smoothstep
from .patient import Patient, draw_patient
from .solids import Ellipsoid, Solid, Tube, Vector, near, smooth_max, smooth_min, union_depth

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
    flare: float  # how much wider the cage is at its base than at its top
    slope: float  # how much the breastbone leans forward: share of the anterior reach that grows with the depth
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
    chambers: tuple[Solid, ...]
    vessels: tuple[Solid, ...]
    branches: tuple[Solid, ...]
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

    patient: Patient
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
    patient = draw_patient(draws)
    breath = patient.inflation
    height = 243 * (patient.stature_m / 1.7) * (1 + 0.05 * breath) * draws.normal(1, 0.075)
    height = min(max(height, 175), 315)
    width = draws.normal(0.97 if patient.female else 1.03, 0.075) * (1 + 0.01 * breath)
    depth = draws.normal(0.97 if patient.female else 1.02, 0.095) * (1 + 0.025 * breath + 0.04 * patient.ageing)
    dome = (draws.normal(66, 15) - 9 * breath) * (1.25 if height < 215 else 1.0)
    dome = min(max(dome, 22), 0.46 * height)
    lost = 1 if patient.collapsed in (1, 2) else 2 if patient.collapsed else 0  # 1 left, 2 right
    raised = (draws.uniform(8, 24), draws.uniform(0.9, 0.98), draws.uniform(3, 14))
    halves = []
    for number, side, low in ((1, LEFT, draws.normal(10, 9)), (2, RIGHT, 0.0)):
        up, narrow, _ = raised if lost == number else (0.0, 1.0, 0.0)
        halves.append(_draw_hemithorax(draws, side, height, width * narrow, depth, min(dome - low + up, 0.48 * height)))
    shift = raised[2] * (1 if lost == 1 else -1 if lost == 2 else 0)
    return Chest(
        patient=patient,
        left=halves[0],
        right=halves[1],
        mediastinum=_draw_mediastinum(draws, patient, height, width, depth, halves[0].dome_height, shift),
        kyphosis=draws.uniform(25, 75) + 40 * patient.ageing,
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
    return Hemithorax(
        side=side,
        top=height / 2 + draws.normal(0, 3),
        height=height * own_height,
        centre_x=52 * width,
        lateral=(80 if side == RIGHT else 77) * width * own_width,
        medial=72 * width,
        anterior=draws.normal(86, 6) * depth,
        posterior=draws.normal(91, 4) * depth,
        apex=draws.uniform(0.4, 0.75),
        flare=draws.uniform(-0.02, 0.14),
        slope=draws.uniform(0.3, 0.6),
        exponent=draws.uniform(1.9, 2.45),
        dome_height=max(dome_height, 20),
        dome_x=draws.normal(58, 6) * width,
        dome_y=draws.normal(-20, 8) * depth,
        dome_power=draws.uniform(1.8, 2.8),
        dome_tilt=draws.normal(0, 0.05),
    )


def _draw_mediastinum(
    draws: Draws, patient: Patient, height: float, width: float, depth: float, dome: float, shift: float
) -> Mediastinum:
    """Named bodies; ``shift`` in mm moves the heart towards a lung that has lost volume."""
    size = draws.normal(1, 0.09) * (0.95 if patient.female else 1.04) * (1 + 0.06 * patient.ageing)
    floor = -height / 2 + 0.88 * dome
    carina_z = height / 2 - draws.uniform(0.28, 0.4) * height
    carina = (draws.normal(-3, 3) + 0.5 * shift, draws.normal(12, 4) * depth, carina_z)
    heart_x = draws.normal(21, 6) * width + shift
    heart_radii = (draws.normal(59, 5) * size * math.sqrt(width), 46 * size * depth, draws.normal(45, 4) * size)
    heart_z = floor + 0.72 * heart_radii[2]
    heart_y = draws.normal(-25, 5) * depth
    spine_front = draws.normal(45, 4) * depth
    base_z = max(carina_z - 42, heart_z + 12)
    aorta_r, arch_z = draws.normal(12.3, 1.4) + 2.5 * patient.ageing, carina_z + draws.uniform(2, 18)
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
    bulge = draws.normal(1, 0.15)
    # The root of each lung hangs on a bridge of main bronchus and artery.
    hila: list[Solid] = []
    roots: list[Vector] = []
    for side in (LEFT, RIGHT):
        centre = (side * hilum_x, hilum_y, hilum_z + (6 if side == LEFT else -4))
        inner = (side * 8.0, carina[1] - 4, carina_z - 14)
        roots.append(centre)
        hila += [Ellipsoid(centre, (10 * bulge, 13 * bulge, 21 * bulge)), Tube((inner, centre), 11 * bulge)]
    trunk = (14 + shift, heart_y + 8, carina_z - 24)
    cava_x = -24 * math.sqrt(width) + shift
    atrium = (-4 + shift, heart_y + 14 * depth, 0.5 * (heart_z + carina_z) - 8)
    artery = draws.normal(9.5, 1)
    x, y, z = heart_x, heart_y, heart_z
    return Mediastinum(
        heart=(
            Ellipsoid((x, y, z), heart_radii, tilt=draws.uniform(0.2, 0.75)),
            Ellipsoid(atrium, (38 * size, 34 * size, max(0.5 * (carina_z - z) + 4, 30))),
        ),
        chambers=(
            Ellipsoid((x + 16 * size, y + 6 * size, z), (25 * size, 21 * size, 22 * size), tilt=0.5),
            Ellipsoid((x - 12 * size, y - 17 * size, z + 2), (29 * size, 15 * size, 26 * size), tilt=0.3),
            Ellipsoid((cava_x + 2, y + 2, z + 12), (21 * size, 24 * size, 27 * size)),
            Ellipsoid(atrium, (27 * size, 19 * size, 22 * size)),
        ),
        aorta=aorta,
        vessels=(
            Ellipsoid(trunk, (17 * size, 19 * size, 25 * size)),
            Tube(
                ((cava_x, y + 8, z), (cava_x - 1, y + 8, carina_z), (-22, -4, height / 2), (-40, -8, height / 2 + 25)),
                draws.normal(9, 1),
            ),
            Tube(((cava_x, 2, z), (-24, 8, -height / 2)), draws.normal(12, 1.5)),
            Tube((trunk, (0, carina[1] - 18, carina_z - 20), roots[1]), artery),
            Tube((trunk, (24, carina[1] - 4, carina_z - 12), roots[0]), artery),
            *(Tube((atrium, (side * 30 + shift, y + 24, hilum_z - 22)), 6.5) for side in (LEFT, RIGHT)),
        ),
        branches=_branches(height, arch_z, carina_z, heart_y, aorta_r / 13.5),
        hila=tuple(hila),
        roots=(roots[0], roots[1]),
        oesophagus=Tube(
            ((2, carina[1] + 18, height / 2 + 60), (3, spine_front - 10, carina_z), (10, spine_front - 16, floor - 20)),
            draws.normal(8, 1.5),
        ),
        carina=carina,
        septum_x=draws.normal(2, 5) + shift,
        septum_lean=draws.normal(0, 0.08),
        anterior_half=draws.uniform(1.5, 9),
        posterior_half=draws.uniform(7, 16),
        upper_half=draws.normal(23, 3.5),
        upper_front=draws.normal(-22, 9),
        spine_front=spine_front,
        spine_half=draws.normal(23, 2),
    )


def _branches(height: float, arch_z: float, carina_z: float, heart_y: float, size: float) -> tuple[Solid, ...]:
    """Great vessels above the aortic arch: three arteries, the left brachiocephalic vein and the azygos vein."""
    top = height / 2
    return (
        Tube(((-6, -6, arch_z + 4), (-17, -4, top - 5), (-20, 2, top + 70)), 6.5 * size),
        Tube(((6, -3, arch_z + 6), (15, 4, top - 5), (22, 4, top + 70)), 4.5 * size),
        Tube(((13, 8, arch_z + 6), (25, 16, top - 12), (34, 8, top + 5), (80, -4, top + 12)), 5.2 * size),
        Tube(((-22, -14, carina_z + 22), (8, heart_y, arch_z + 18), (36, -18, top), (75, -14, top + 14)), 6.5),
        Tube(((-8, 36, -top), (-9, 36, carina_z), (-20, 22, carina_z + 11), (-24, -8, carina_z + 4)), 4.2),
    )


def cage_depth(half: Hemithorax, at: Coordinates) -> Tensor:
    """Depth below the inner face of one half of the rib cage, open below."""
    x, y, z = at
    below = half.top - z
    level = below / half.height
    flare = 1 + half.flare * (level - 0.6).clamp(-0.6, 0.5)
    lateral = _taper(below, half.lateral, half.height * half.apex * 0.8) * flare
    medial, back = _taper(below, half.medial, half.height * 0.42), _taper(below, half.posterior, half.height * 0.4)
    lean = 1 - half.slope * (1 - level).clamp(0, 1)
    front = _taper(below, half.anterior, half.height * half.apex * 0.6) * lean
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
    depth = smooth_max(sheet, spine_depth(middle, at), 10)
    heart = near(middle.heart, z)
    if heart:  # leans broadly on the breastbone
        depth = smooth_max(depth, union_depth(heart, at) - 2, 24)
    solids = near((middle.aorta, *middle.vessels, *middle.branches, *middle.hila), z)
    return smooth_max(depth, union_depth(solids, at), 8) if solids else depth


def spine_depth(middle: Mediastinum, at: Coordinates) -> Tensor:
    """Depth below the front and sides of the vertebral column and the muscle behind it."""
    x, y, _ = at
    back = y - middle.spine_front
    across = x / (middle.spine_half + 0.3 * (back - 20).clamp(min=0))
    rounded = (across.square() + ((20 - back) / 20).clamp(min=0).square()).sqrt()
    return (1 - rounded) * 20


class Interior:
    """What bounds the lungs of a chest at some positions, each worked out when it is first asked for; left, then right.

    Args:
        chest: of one person.
        place: the positions; ``at`` are those in the upright chest.
    """

    def __init__(self, chest: Chest, place: Place) -> None:
        self.chest = chest
        self.at = chest.straighten(place)

    @cached_property
    def cages(self) -> tuple[Tensor, Tensor]:
        """Depths below the inner faces of the rib cage, open below."""
        return cage_depth(self.chest.left, self.at), cage_depth(self.chest.right, self.at)

    @cached_property
    def diaphragms(self) -> tuple[Tensor, Tensor]:
        """Heights z."""
        x, y, _ = self.at
        return diaphragm_height(self.chest.left, x, y), diaphragm_height(self.chest.right, x, y)

    @cached_property
    def mediastinum(self) -> Tensor:
        """Depth below the pleura between the lungs."""
        return mediastinum_depth(self.chest, self.at)

    @cached_property
    def lungs(self) -> tuple[Tensor, Tensor]:
        """Depths below the pleura; at most one of them is positive."""
        x, _, z = self.at
        middle = self.chest.mediastinum
        leftward = x - middle.septum_x - middle.septum_lean * z
        left, right = (self._lung(side) for side in (0, 1))
        return torch.minimum(left, leftward), torch.minimum(right, -leftward)

    def _lung(self, number: int) -> Tensor:
        """Within the cage, above the diaphragm, beside the mediastinum."""
        x, _, z = self.at
        depth = smooth_min(self.cages[number], (z - self.diaphragms[number]) * 0.8, 5)
        depth = smooth_min(depth, -self.mediastinum, 6)
        # Beyond the other side of the midline a lung must not reappear.
        return torch.minimum(depth, (LEFT, RIGHT)[number] * x + 30)


def survey_grid() -> Grid:
    """The fixed coarse grid that covers every chest."""
    x = torch.arange(-184.0, 185.0, SURVEY_STEP_MM)
    y = torch.arange(-144.0, 145.0, SURVEY_STEP_MM)
    z = torch.arange(-200.0, 201.0, SURVEY_STEP_MM)
    return Grid(x, y, z, (SURVEY_STEP_MM, SURVEY_STEP_MM, SURVEY_STEP_MM))
