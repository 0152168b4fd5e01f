"""Everything around the lungs: skin, fat, muscle, bones, mediastinum, belly and table, painted as HU."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .anatomy import LEFT, RIGHT, Chest, Hemithorax, Interior
from .fields import Coordinates, Draws, Grid, SmoothField, coverage, smoothstep
from .patient import Patient
from .solids import Ellipsoid, Solid, Tube, Vector, Whereabouts, smooth_max

BONE_SHELL_MM = 2.0


@dataclass(frozen=True)
class Scapula:
    """One shoulder blade: a thin triangle with its spine; ``turn`` in radians is how far it faces outward."""

    side: int
    centre: Vector
    turn: float
    upward: float
    half_width: float
    half_height: float


@dataclass(frozen=True)
class Habitus:
    """Build, position and contrast of one patient; lengths in mm, densities in HU."""

    half_width: float
    front: float
    back: float
    exponent: float
    fat_mm: float
    rib_gap: float
    rib_slope: float
    rib_phase: float
    bone_hu: float
    blood_hu: float
    muscle_hu: float
    heart_fat_mm: float
    fat_field: SmoothField
    organ_field: SmoothField
    streaks: SmoothField
    streak_level: float
    belly_fat_level: float
    liver_hu: float
    liver_edge_x: float
    scapulae: tuple[Scapula, Scapula]
    extras: tuple[tuple[Solid, float], ...]
    calcium: tuple[Solid, ...]
    gas: tuple[Solid, ...]
    cover_mm: float | None
    table_y: float | None
    table_curve: float
    air_hu: float


def draw_habitus(draws: Draws, chest: Chest) -> Habitus:
    """Body around a chest."""
    patient, left = chest.patient, chest.left
    cage_x = left.centre_x + left.lateral * (1 + 0.5 * left.flare)
    fat = max((patient.bmi - 15) * (1.25 if patient.female else 1.0) * draws.uniform(0.6, 1.3), 2)
    muscle = max(draws.normal(12 if patient.female else 17, 3) - 4 * patient.ageing, 5)
    front_of_spine = chest.mediastinum.spine_front
    half_width = cage_x + 11 + 0.8 * muscle + fat
    front, back = (
        left.anterior + 13 + 0.4 * muscle + 0.7 * fat,
        max(left.posterior + 26, front_of_spine + 82) + 0.8 * muscle + 0.5 * fat,
    )
    extras = _draw_shoulders(draws, patient, left, half_width, fat)
    if patient.female:
        extras += _draw_breasts(draws, patient, half_width, front)
    blood = draws.uniform(80, 280) if patient.enhanced else draws.uniform(30, 52)
    return Habitus(
        half_width=half_width,
        front=front,
        back=back,
        exponent=draws.uniform(2.05, 2.6),
        fat_mm=fat,
        rib_gap=draws.uniform(23, 28) * left.height / 246,
        rib_slope=draws.uniform(0.45, 0.85),
        rib_phase=draws.uniform(0, 25),
        bone_hu=max(draws.normal(560, 90) - 200 * patient.ageing, 180),
        blood_hu=blood,
        muscle_hu=52 if blood < 80 else 52 + 0.25 * blood,
        heart_fat_mm=min(max(draws.normal(2 + 0.12 * patient.bmi, 1.5), 1), 10),
        fat_field=draws.smooth_field(60),
        organ_field=draws.smooth_field(40),
        streaks=draws.smooth_field(16),
        streak_level=draws.uniform(0.6, 2.0) - 0.5 * patient.ageing,
        belly_fat_level=draws.uniform(-1.0, 1.5) - 0.04 * (patient.bmi - 26),
        liver_hu=draws.uniform(35, 70) + (draws.uniform(10, 60) if patient.enhanced else 0),
        liver_edge_x=draws.uniform(0, 55),
        scapulae=(_draw_scapula(draws, patient, left, LEFT), _draw_scapula(draws, patient, left, RIGHT)),
        extras=extras,
        calcium=_draw_calcium(draws, chest),
        gas=_draw_gas(draws, chest),
        cover_mm=draws.uniform(2, 14) if draws.chance(0.6) else None,
        table_y=back + draws.uniform(2, 25) if draws.chance(0.8) else None,
        table_curve=draws.uniform(0, 0.0014),
        air_hu=-1000 if draws.chance(0.6) else draws.uniform(-1024, -985),
    )


def _draw_scapula(draws: Draws, patient: Patient, half: Hemithorax, side: int) -> Scapula:
    """Arms that are up turn the blade outward and lift it."""
    raised = 0.0 if patient.arms_down else draws.uniform(0.5, 1)
    angle = 0.62 + 0.16 * raised + draws.normal(0, 0.06)  # from straight back, seen from above
    x = 0.85 * half.centre_x + (half.lateral + 15) * math.sin(angle)
    y = (half.posterior + 14) * math.cos(angle) ** 0.9
    z = half.top - draws.uniform(52, 72) + 18 * raised
    return Scapula(
        side, (side * x, y, z), angle - draws.uniform(0, 0.2), 0.55 * raised, draws.normal(50, 4), draws.normal(72, 6)
    )


def _draw_shoulders(
    draws: Draws, patient: Patient, half: Hemithorax, half_width: float, fat: float
) -> tuple[tuple[Solid, float], ...]:
    """Clavicles, humeri and arms, hanging down or lifted beside the head, with the HU to paint."""
    bodies: list[tuple[Solid, float]] = []
    top, reach = half.top, half.centre_x + half.lateral + 24
    flesh = 36 + 0.25 * fat
    for side in (LEFT, RIGHT):
        lift = draws.uniform(-25, 10) if patient.arms_down else draws.uniform(0, 35)
        shoulder: Vector = (side * (reach + 22), 12.0, top + lift)
        elbow: Vector = (side * (half_width + 48), 30.0, top - 310)
        if not patient.arms_down:
            elbow = (side * (reach + draws.uniform(0, 60)), draws.uniform(-40, 20), top + 330)
        arm = (shoulder, elbow)
        bodies += [(Tube(arm, flesh + 0.5 * fat), -98.0), (Tube(arm, flesh), 52.0)]
        bodies += [(Ellipsoid(shoulder, (flesh + 8, flesh + 4, flesh + 10)), 52.0)]
        bodies += [(Tube(arm, 11.5), 650.0), (Tube(arm, 7.0), 30.0)]
        bodies += [(Ellipsoid(shoulder, (24.0, 24.0, 24.0)), 480.0), (Ellipsoid(shoulder, (21.5, 21.5, 21.5)), 170.0)]
        inner: Vector = (side * 20.0, -0.55 * half.anterior, top - draws.uniform(5, 25))
        middle: Vector = (side * 0.5 * reach, -0.62 * half.anterior, top + draws.uniform(0, 12) + 0.3 * lift)
        outer: Vector = (side * (reach + 4), -6.0, top + 22 + lift)
        bodies += [(Tube((inner, middle, outer), 6.5), 560.0), (Tube((inner, middle, outer), 4.2), 190.0)]
    return tuple(bodies)


def _draw_breasts(draws: Draws, patient: Patient, half_width: float, front: float) -> tuple[tuple[Solid, float], ...]:
    """Fat with islands of gland, fewer with age; lying on the back they spread to the side."""
    size = draws.uniform(58, 76) + 0.8 * (patient.bmi - 24)
    thick, z = size * draws.uniform(0.35, 0.65), draws.uniform(-65, -5)
    out = draws.uniform(0.48, 0.62) * half_width
    glands = draws.integer(0, 9) if draws.chance(1 - 0.5 * patient.ageing) else 0
    bodies: list[tuple[Solid, float]] = []
    for side in (LEFT, RIGHT):
        centre: Vector = (side * out, -0.7 * front, z)
        bodies += [
            (Ellipsoid(centre, (size, thick + 1.5, size)), 5.0),
            (Ellipsoid(centre, (size, thick, size)), -100.0),
        ]
        for _ in range(glands):
            x, y, up = draws.points(1, (-0.4, -0.6, -0.45), (0.4, 0.0, 0.45))[0].tolist()
            r = draws.uniform(6, 14)
            at: Vector = (centre[0] + x * size, centre[1] + y * thick, z + up * size)
            bodies.append((Ellipsoid(at, (r, r * draws.uniform(0.4, 0.8), r)), 25.0))
    return tuple(bodies)


def _draw_calcium(draws: Draws, chest: Chest) -> tuple[Solid, ...]:
    """Calcified plaques in the wall of the aorta and on the coronary arteries, more with age."""
    count = int(draws.uniform(0, 26) * max(chest.patient.ageing - 0.25, 0))
    aorta, heart = chest.mediastinum.aorta, chest.mediastinum.heart[0]
    plaques: list[Solid] = []
    for number in range(count):
        direction = torch.nn.functional.normalize(draws.noise((3,)), dim=0)
        if number % 4 == 3:
            centre = torch.tensor(heart.bounds()).mean(0) + direction * torch.tensor([44.0, 38.0, 34.0])
        else:
            piece, along = draws.integer(0, len(aorta.path) - 2), draws.uniform(0, 1)
            start, end = torch.tensor(aorta.path[piece]), torch.tensor(aorta.path[piece + 1])
            axis = torch.nn.functional.normalize(end - start, dim=0)
            aside = torch.nn.functional.normalize(direction - (direction @ axis) * axis, dim=0)
            centre = start + along * (end - start) + aside * (aorta.radius - 0.5)
        x, y, z = centre.tolist()
        plaques.append(Ellipsoid((x, y, z), tuple(draws.points(1, (1, 1, 1), (2.6, 2.6, 5))[0].tolist())))
    return tuple(plaques)


def _draw_gas(draws: Draws, chest: Chest) -> tuple[Solid, ...]:
    """Stomach bubble and bowel gas below the left dome."""
    left = chest.left
    floor = left.top - left.height + left.dome_height
    bubbles: list[Solid] = []
    if draws.chance(0.7):
        r = draws.uniform(12, 32)
        centre = (draws.uniform(45, 75), draws.uniform(-45, -10), floor - 10 - 0.7 * r)
        bubbles.append(Ellipsoid(centre, (r * 1.4, r * 0.9, r * 0.7), tilt=draws.uniform(-0.5, 0.3)))
    for _ in range(draws.integer(0, 6)):
        r = draws.uniform(7, 20)
        at = (draws.uniform(-70, 95), draws.uniform(-75, 0), floor - draws.uniform(50, 130))
        bubbles.append(Ellipsoid(at, (r * draws.uniform(0.9, 2.2), r, r), tilt=draws.uniform(-0.6, 0.6)))
    return tuple(bubbles)


def paint_body(interior: Interior, habitus: Habitus, grid: Grid) -> Tensor:
    """HU ``(X, Y, Z)`` of everything but the lungs."""
    chest, at, voxel = interior.chest, interior.at, mean_voxel(grid)
    cage = torch.maximum(*interior.cages)
    fat = grid.smooth(habitus.fat_field)
    streaks = grid.smooth(habitus.streaks)
    hu = torch.full_like(cage, habitus.air_hu)
    _paint_table(hu, habitus, grid, voxel)
    skin = smooth_max(skin_depth(habitus, chest.left, at), cage + 6, 4)
    if habitus.cover_mm is not None:
        cover = -skin - habitus.cover_mm * (1 + 0.5 * fat) - 2 * streaks
        hu += (1 - cover.abs() / max(voxel, 1.0)).clamp(min=0) * (300 * min(0.8 / voxel, 1.0))
    _paint(hu, skin, -100.0, voxel)
    _paint(hu, skin, 10.0, voxel, thickness=1.5)
    muscle = 52 - 110 * smoothstep(streaks, habitus.streak_level, habitus.streak_level + 0.7)
    under_fat = skin - habitus.fat_mm * (1 + 0.25 * fat.clamp(-2, 2))
    _paint(hu, torch.maximum(under_fat, cage + 9), muscle, voxel)
    _paint_between_muscles(hu, torch.minimum(under_fat, -cage - 10), fat, streaks, habitus, voxel)
    for solid, value in habitus.extras:
        _paint_solid(hu, solid, value, grid, at, voxel, outside=cage)
    _paint_belly_and_mediastinum(hu, interior, habitus, cage, streaks, grid, voxel)
    _paint_bones(hu, chest, habitus, at, cage, voxel)
    return hu


def mean_voxel(grid: Grid) -> float:
    x, y, z = grid.spacing_mm
    return float((x * y * z) ** (1 / 3))


def _paint(hu: Tensor, depth: Tensor, value: Tensor | float, voxel: float, thickness: float | None = None) -> None:
    """Blend a value in where the depth is positive, in place; with a thickness only into the outermost layer."""
    share = coverage(depth, voxel)
    if thickness is not None:
        share = share - coverage(depth - thickness, voxel)
    hu += share * (value - hu)


def _paint_solid(
    hu: Tensor, solid: Solid, value: float, grid: Grid, at: Coordinates, voxel: float, outside: Tensor | None = None
) -> None:
    """Paint a body, looking only where it can be; never within a depth ``outside``."""
    low, high = solid.bounds()
    margin = 80.0  # a chest is warped, turned and curved by less
    part = grid.crop([v - margin for v in low], [v + margin for v in high]).window
    if 0 in hu[part].shape:
        return
    x, y, z = (value_[part] for value_ in at)
    depth = solid.depth((x, y, z))
    if outside is not None:
        depth = torch.minimum(depth, -outside[part] - 8)
    target = hu[part]
    target += coverage(depth, voxel) * (value - target)


def _paint_between_muscles(
    hu: Tensor, within: Tensor, fat: Tensor, streaks: Tensor, habitus: Habitus, voxel: float
) -> None:
    """Sheets of fat between the layers of muscle of the chest wall and the shoulders."""
    layer = 3.0 - (within - 13 - 5 * fat).abs() + 1.5 * streaks + 0.06 * habitus.fat_mm
    _paint(hu, torch.minimum(layer, within - 3), -85.0, voxel)


def skin_depth(habitus: Habitus, half: Hemithorax, at: Coordinates) -> Tensor:
    """Depth below the skin: the front falls back with the ribs towards the neck, the shoulders are wide."""
    x, y, z = at
    top = half.top
    shoulder, neck = smoothstep(z, top - 110, top - 10), smoothstep(z, top + 15, top + 85)
    across = habitus.half_width * (1 + 0.1 * shoulder) * (1 - neck) + 60 * neck
    lean = half.slope * 0.75 * half.anterior * ((z - top) / half.height + 0.9).clamp(0, 1)
    front = (habitus.front - lean + 10 * shoulder) * (1 - neck) + 52 * neck
    back = (habitus.back - 6 * shoulder) * (1 - neck) + 78 * neck
    along = torch.where(y > 0, y / back, y / front).abs()
    n = habitus.exponent + 0.7 * shoulder
    radius = ((x / across).abs().pow(n) + along.pow(n)).pow(1 / n)
    return (1 - radius) * front


def _paint_table(hu: Tensor, habitus: Habitus, grid: Grid, voxel: float) -> None:
    if habitus.table_y is None:
        return
    x, y, _ = grid.coordinates()
    below = y - habitus.table_y + habitus.table_curve * x.square()
    within = coverage(225 - x.abs(), voxel)
    shell = coverage(below, voxel) - coverage(below - 3, voxel)
    hu += within * shell * (-150 - hu)
    foam = coverage(below - 3, voxel) - coverage(below - 45, voxel)
    hu += within * foam * (-930 - hu)


def _paint_belly_and_mediastinum(
    hu: Tensor, interior: Interior, habitus: Habitus, cage: Tensor, streaks: Tensor, grid: Grid, voxel: float
) -> None:
    x, y, z = interior.at
    chest, middle = interior.chest, interior.chest.mediastinum
    organs = grid.smooth(habitus.organ_field)
    inner = torch.maximum(cage, interior.mediastinum.clamp(max=20) * (cage > -25))
    fill = -95 + 125 * smoothstep(streaks + 0.5 * organs, 0.2, 1.6)
    _paint(hu, torch.minimum(inner, cage + 12), fill, voxel)
    roof = torch.where(x > 0, *interior.diaphragms)
    under = torch.minimum((roof - z) * 0.8, cage + 3)
    belly = torch.where(
        smoothstep(organs + 0.4 * streaks, habitus.belly_fat_level - 0.3, habitus.belly_fat_level) > 0.5, 42.0, -98.0
    )
    _paint(hu, under, 45.0, voxel)
    _paint(hu, under - 4, belly, voxel)
    edge = habitus.liver_edge_x + 0.5 * (z - roof) - 8 * organs - 0.15 * y
    liver = torch.minimum(torch.minimum(under - 3, edge - x), z - roof + 120)
    _paint(hu, liver, habitus.liver_hu, voxel)
    floor = chest.left.top - chest.left.height
    whole, above = Whereabouts(interior.at), 4 - under
    spleen = Ellipsoid((80.0, 35.0, floor + 0.55 * chest.left.dome_height - 25), (32.0, 42.0, 45.0))
    for part, depth in whole.depths((spleen,), voxel):
        _paint(hu[part], torch.minimum(depth, under[part] - 3), habitus.liver_hu - 5, voxel)
    for part, bowel in whole.depths(habitus.gas, 4 + voxel):
        _paint(hu[part], torch.minimum(bowel + 4, under[part] - 3), 40.0, voxel)
        _paint(hu[part], torch.minimum(bowel, under[part] - 6), -950.0, voxel)
    for part, muscle in whole.depths(middle.heart, voxel):
        depth = torch.minimum(muscle, above[part])
        _paint(hu[part], depth, -90.0, voxel)
        _paint(hu[part], depth - habitus.heart_fat_mm * (1 + 0.4 * organs[part]), habitus.muscle_hu, voxel)
    for part, hilum in whole.depths(middle.hila, voxel):
        _paint(hu[part], hilum - 3, 25.0, voxel)
    for part, blood in whole.depths((*middle.chambers, *middle.vessels, *middle.branches, middle.aorta), voxel):
        _paint(hu[part], torch.minimum(blood, above[part]), habitus.blood_hu, voxel)
    for part, gullet in whole.depths((middle.oesophagus,), voxel):
        _paint(hu[part], gullet, 38.0, voxel)
    for part, plaque in whole.depths(habitus.calcium, voxel):
        _paint(hu[part], plaque, 650.0, voxel)


def _paint_bones(hu: Tensor, chest: Chest, habitus: Habitus, at: Coordinates, cage: Tensor, voxel: float) -> None:
    x, y, z = at
    half, bone = chest.left, habitus.bone_hu
    _paint_spine(hu, chest, habitus, at, voxel)
    # Ribs: slanted rings in a shell around the cage; towards the sternum they are cartilage.
    phase = (z - habitus.rib_slope * (y - half.posterior) - habitus.rib_phase) / habitus.rib_gap
    nearest = (phase - phase.round()) * habitus.rib_gap
    shell = -cage - 6
    radius = ((nearest / 7.5).square() + (shell / 4.0).square()).sqrt()
    rib = torch.minimum((1 - radius) * 4.0, x.abs() - 20)
    rib = torch.minimum(rib, half.top + 8 - z)
    front = _breastbone_front(half, z)
    cartilage = smoothstep(-y / front, 0.72, 0.86)
    _paint(hu, rib, 1.1 * bone * (1 - cartilage) + 100 * cartilage, voxel)
    _paint(hu, rib - BONE_SHELL_MM, 0.45 * bone * (1 - cartilage) + 85 * cartilage, voxel)
    level = (half.top - 22 - z) / half.height
    wide = 16 + 14 * smoothstep(-level, -0.2, -0.06) - 8 * smoothstep(level, 0.6, 0.72)
    bow = ((y + front + 8) / 6).square() + (x / wide).square().square()
    sternum = torch.minimum((1 - bow.sqrt()) * 6, torch.minimum(level, 0.72 - level) * half.height)
    _paint(hu, sternum, 0.75 * bone, voxel)
    _paint(hu, sternum - 0.8 * BONE_SHELL_MM, 0.3 * bone, voxel)
    for scapula in habitus.scapulae:
        _paint_scapula(hu, scapula, habitus, at, cage, voxel)


def _breastbone_front(half: Hemithorax, z: Tensor) -> Tensor:
    """How far in front of the middle the breastbone lies."""
    lean = 1 - half.slope * (1 - (half.top - z) / half.height).clamp(0, 1)
    return half.anterior * lean


def _paint_scapula(hu: Tensor, blade: Scapula, habitus: Habitus, at: Coordinates, cage: Tensor, voxel: float) -> None:
    x, y, z = (value - middle for value, middle in zip(at, blade.centre, strict=True))
    sine, cosine = math.sin(blade.turn), math.cos(blade.turn)
    behind = blade.side * x * sine + y * cosine
    along = blade.side * x * cosine - y * sine
    rise, run = math.cos(blade.upward), math.sin(blade.upward)
    along, up = along * rise + z * run, z * rise - along * run
    # A triangle with its tip below, thick at the outer border, which carries the socket of the shoulder.
    outer = blade.half_width * (0.35 + 0.65 * (up / blade.half_height + 1) / 2) - along
    inner = along + blade.half_width * (0.5 + 0.25 * up / blade.half_height)
    ends = torch.minimum(blade.half_height * 0.75 - up, up + blade.half_height)
    thick = 1.8 + 4.5 * smoothstep(along - outer, 20.0, 45.0)
    plate = torch.minimum(
        thick - (behind + 0.004 * along.square()).abs(), torch.minimum(torch.minimum(outer, inner), ends)
    )
    ridge_up = up - 0.42 * blade.half_height + 0.25 * along
    ridge = torch.minimum(2.2 - ridge_up.abs(), torch.minimum(behind, 10 + 0.28 * (along + 30) - behind))
    ridge = torch.minimum(ridge, torch.minimum(along + 0.6 * blade.half_width, blade.half_width + 12 - along))
    bone = torch.minimum(torch.maximum(plate, ridge), -cage - 12)
    _paint(hu, bone, 0.95 * habitus.bone_hu, voxel)
    _paint(hu, bone - BONE_SHELL_MM, 0.4 * habitus.bone_hu, voxel)


def _paint_spine(hu: Tensor, chest: Chest, habitus: Habitus, at: Coordinates, voxel: float) -> None:
    x, y, z = at
    bone = habitus.bone_hu
    front = chest.mediastinum.spine_front + 4
    phase = (z + 0.3 * habitus.rib_phase) / habitus.rib_gap
    from_middle = ((phase - phase.round()) * habitus.rib_gap).abs()
    radius = ((x / 17).square() + ((y - front - 15) / 15).square()).sqrt()
    column = (1 - radius) * 15
    body = torch.minimum(column, 0.42 * habitus.rib_gap - from_middle)
    _paint(hu, column, 85.0, voxel)
    _paint(hu, body, 0.8 * bone, voxel)
    _paint(hu, body - BONE_SHELL_MM, 0.4 * bone, voxel)
    canal = (x.square() + (y - front - 38).square()).sqrt()
    arch = torch.minimum(3.5 - (canal - 11.5).abs(), 0.36 * habitus.rib_gap - from_middle)
    # Spinous processes slant downward: they are those of the vertebra above.
    back = y - front - 48
    below = phase + 0.5 * back.clamp(0, 40) / habitus.rib_gap
    slanted = ((below - below.round()) * habitus.rib_gap).abs()
    spike = torch.minimum(torch.minimum(3.5 - 0.03 * back - x.abs(), torch.minimum(back, 27 - back)), 6 - slanted)
    side = x.abs() - 12
    wings = torch.minimum(4.5 - (y - front - 36 - 0.55 * side).abs(), torch.minimum(side, 24 - side))
    wings = torch.minimum(wings, 6 - from_middle)
    _paint(hu, 9 - canal, 25.0, voxel)
    parts = torch.maximum(torch.maximum(arch, spike), wings)
    _paint(hu, parts, 0.9 * bone, voxel)
    _paint(hu, parts - BONE_SHELL_MM, 0.5 * bone, voxel)
