"""Everything around the lungs: skin, fat, muscle, bones, mediastinum, belly and table, painted as HU."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .anatomy import Chest, Hemithorax, cage_depth, diaphragm_height
from .fields import Coordinates, Draws, Grid, SmoothField, coverage, smoothstep
from .solids import Ellipsoid, Solid, Tube, Vector

BONE_SHELL_MM = 2.0


@dataclass(frozen=True)
class Habitus:
    """Build, position and contrast of one patient; lengths in mm, densities in HU."""

    half_width: float
    half_depth: float
    middle_y: float
    exponent: float
    fat_mm: float
    rib_gap: float
    rib_slope: float
    rib_phase: float
    bone_hu: float
    blood_hu: float
    fat_field: SmoothField
    organ_field: SmoothField
    streaks: SmoothField
    streak_level: float
    belly_fat_level: float
    liver_hu: float
    liver_edge_x: float
    extras: tuple[tuple[Solid, float], ...]
    gas: tuple[Solid, ...]
    table_y: float | None
    table_curve: float
    air_hu: float


def draw_habitus(draws: Draws, chest: Chest) -> Habitus:
    """Patient around a chest."""
    left = chest.left
    cage_x, front, back = left.centre_x + left.lateral, left.anterior, left.posterior
    fat = draws.uniform(2, 12) if draws.chance(0.5) else draws.uniform(8, 45)
    muscle = draws.uniform(16, 30)
    half_width = cage_x + 8 + muscle + fat
    reach_front, reach_back = front + 12 + 0.5 * muscle + 0.7 * fat, back + 28 + 0.6 * muscle + 0.5 * fat
    half_depth = (reach_front + reach_back) / 2
    middle_y = (reach_back - reach_front) / 2
    arms_down = draws.chance(0.2)
    extras = _draw_shoulders(draws, left, arms_down, half_width)
    if draws.chance(0.3):
        extras += _draw_breasts(draws, half_width, reach_front - middle_y, middle_y)
    bone = draws.uniform(250, 700)
    return Habitus(
        half_width=half_width,
        half_depth=half_depth,
        middle_y=middle_y,
        exponent=draws.uniform(2.1, 2.9),
        fat_mm=fat,
        rib_gap=draws.uniform(22, 29) * left.height / 246,
        rib_slope=draws.uniform(0.25, 0.6),
        rib_phase=draws.uniform(0, 25),
        bone_hu=bone,
        blood_hu=draws.uniform(30, 55) if draws.chance(0.5) else draws.uniform(80, 280),
        fat_field=draws.smooth_field(60),
        organ_field=draws.smooth_field(40),
        streaks=draws.smooth_field(16),
        streak_level=draws.uniform(0.6, 2.0),
        belly_fat_level=draws.uniform(-1.0, 1.5),
        liver_hu=draws.uniform(35, 75) + (draws.uniform(20, 60) if draws.chance(0.3) else 0),
        liver_edge_x=draws.uniform(0, 55),
        extras=extras,
        gas=_draw_gas(draws, chest),
        table_y=middle_y + half_depth + draws.uniform(2, 25) if draws.chance(0.8) else None,
        table_curve=draws.uniform(0, 0.0014),
        air_hu=-1000 if draws.chance(0.6) else draws.uniform(-1024, -985),
    )


def _draw_shoulders(
    draws: Draws, half: Hemithorax, arms_down: bool, half_width: float
) -> tuple[tuple[Solid, float], ...]:
    """Clavicles, humeral heads and, where they hang down, the arms, with the HU to paint."""
    bodies: list[tuple[Solid, float]] = []
    top, reach = half.top, half_width
    for side in (1, -1):
        shoulder: Vector = (side * (reach + 12), 15.0, top + draws.uniform(-25, 25))
        if arms_down:
            elbow: Vector = (side * (reach + 55), 30.0, top - 320)
            bodies += [(Tube((shoulder, elbow), draws.uniform(38, 50)), -90.0), (Tube((shoulder, elbow), 33.0), 50.0)]
            bodies += [(Tube((shoulder, elbow), 11.0), 500.0), (Tube((shoulder, elbow), 6.0), 20.0)]
        else:
            bodies += [
                (Ellipsoid(shoulder, (48.0, 44.0, 52.0)), -60.0),
                (Ellipsoid(shoulder, (40.0, 36.0, 44.0)), 50.0),
            ]
        bodies += [(Ellipsoid(shoulder, (23.0, 23.0, 23.0)), 420.0), (Ellipsoid(shoulder, (20.0, 20.0, 20.0)), 180.0)]
        if draws.chance(0.8):
            inner: Vector = (side * 22.0, -0.62 * half.anterior, top - draws.uniform(8, 30))
            outer: Vector = (side * (reach - 6), -12.0, top + draws.uniform(5, 25))
            bodies += [(Tube((inner, outer), 6.5), 450.0), (Tube((inner, outer), 4.0), 180.0)]
    return tuple(bodies)


def _draw_breasts(draws: Draws, half_width: float, front: float, middle_y: float) -> tuple[tuple[Solid, float], ...]:
    size, thick, z = draws.uniform(45, 75), draws.uniform(18, 50), draws.uniform(-60, 10)
    bodies: list[tuple[Solid, float]] = []
    for side in (1, -1):
        centre: Vector = (side * 0.5 * half_width, middle_y - 0.92 * front, z)
        bodies.append((Ellipsoid(centre, (size, thick, size)), -95.0))
        if draws.chance(0.6):
            bodies.append((Ellipsoid(centre, (0.5 * size, 0.75 * thick, 0.5 * size)), 20.0))
    return tuple(bodies)


def _draw_gas(draws: Draws, chest: Chest) -> tuple[Solid, ...]:
    """Stomach bubble and bowel gas below the left dome."""
    left = chest.left
    floor = left.top - left.height + left.dome_height
    bubbles: list[Solid] = []
    if draws.chance(0.6):
        r = draws.uniform(14, 38)
        centre = (draws.uniform(40, 75), draws.uniform(-35, 5), floor - 10 - 0.7 * r)
        bubbles.append(Ellipsoid(centre, (r * 1.3, r, r * 0.7)))
    for _ in range(draws.integer(0, 5)):
        r = draws.uniform(8, 26)
        at = (draws.uniform(-70, 85), draws.uniform(-70, 10), floor - draws.uniform(55, 130))
        bubbles.append(Ellipsoid(at, (r * draws.uniform(0.8, 2), r, r)))
    return tuple(bubbles)


def paint_body(chest: Chest, habitus: Habitus, grid: Grid, at: Coordinates, mediastinum: Tensor) -> Tensor:
    """HU ``(X, Y, Z)`` of everything but the lungs."""
    voxel = mean_voxel(grid)
    cages = [cage_depth(half, at) for half in (chest.left, chest.right)]
    cage = torch.maximum(*cages)
    fat = grid.smooth(habitus.fat_field)
    hu = torch.full_like(cage, habitus.air_hu)
    _paint_table(hu, habitus, grid, voxel)
    skin = torch.maximum(skin_depth(habitus, chest.left.top, at), cage + 4)
    _paint(hu, skin, -100.0, voxel)
    _paint(hu, skin, 10.0, voxel, thickness=1.5)
    streaks = grid.smooth(habitus.streaks)
    muscle = 52 - 110 * smoothstep(streaks, habitus.streak_level, habitus.streak_level + 0.7)
    under_fat = skin - habitus.fat_mm * (1 + 0.25 * fat.clamp(-2, 2))
    _paint(hu, torch.maximum(under_fat, cage + 9), muscle, voxel)
    for solid, value in habitus.extras:
        _paint_solid(hu, solid, value, grid, at, voxel, outside=cage)
    _paint_belly_and_mediastinum(hu, chest, habitus, at, cage, mediastinum, streaks, grid, voxel)
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


def skin_depth(habitus: Habitus, top: float, at: Coordinates) -> Tensor:
    """Depth below the skin, narrowing to the neck above the lungs."""
    x, y, z = at
    shoulder, neck = smoothstep(z, top - 90, top + 10), smoothstep(z, top + 5, top + 80)
    across = (habitus.half_width * (1 + 0.08 * shoulder)) * (1 - neck) + 64 * neck
    along = (habitus.half_depth * (1 - 0.12 * shoulder)) * (1 - neck) + 66 * neck
    n = habitus.exponent
    radius = ((x / across).abs().pow(n) + ((y - habitus.middle_y) / along).abs().pow(n)).pow(1 / n)
    return (1 - radius) * along


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
    hu: Tensor,
    chest: Chest,
    habitus: Habitus,
    at: Coordinates,
    cage: Tensor,
    mediastinum: Tensor,
    streaks: Tensor,
    grid: Grid,
    voxel: float,
) -> None:
    x, y, z = at
    middle = chest.mediastinum
    organs = grid.smooth(habitus.organ_field)
    inner = torch.maximum(cage, mediastinum.clamp(max=20) * (cage > -25))
    fill = -95 + 110 * smoothstep(streaks + 0.5 * organs, -0.4, 0.8)
    _paint(hu, torch.minimum(inner, cage + 12), fill, voxel)
    roof = torch.where(x > 0, diaphragm_height(chest.left, x, y), diaphragm_height(chest.right, x, y))
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
    spleen = Ellipsoid((80.0, 35.0, floor + 0.55 * chest.left.dome_height - 25), (32.0, 42.0, 45.0))
    _paint(hu, torch.minimum(spleen.depth(at), under - 3), habitus.liver_hu - 5, voxel)
    for bubble in habitus.gas:
        _paint(hu, torch.minimum(bubble.depth(at) + 4, under - 3), 40.0, voxel)
        _paint(hu, torch.minimum(bubble.depth(at), under - 6), -950.0, voxel)
    for solid in (*middle.heart, *middle.vessels):
        _paint(hu, torch.minimum(solid.depth(at), 4 - under), habitus.blood_hu, voxel)
    for hilum in middle.hila:
        _paint(hu, hilum.depth(at) - 3, 35.0, voxel)
    _paint(hu, middle.oesophagus.depth(at), 38.0, voxel)
    _paint(hu, middle.aorta.depth(at), habitus.blood_hu, voxel)


def _paint_bones(hu: Tensor, chest: Chest, habitus: Habitus, at: Coordinates, cage: Tensor, voxel: float) -> None:
    x, y, z = at
    half, bone = chest.left, habitus.bone_hu
    _paint_spine(hu, chest, habitus, at, voxel)
    # Ribs: slanted rings in a shell around the cage; towards the sternum they are cartilage.
    phase = (z - habitus.rib_slope * (y - half.posterior) - habitus.rib_phase) / habitus.rib_gap
    nearest = (phase - phase.round()) * habitus.rib_gap
    shell = -cage - 7
    radius = ((nearest / 6.5).square() + (shell / 4.5).square()).sqrt()
    rib = torch.minimum((1 - radius) * 4.5, x.abs() - 20)
    rib = torch.minimum(rib, half.top + 8 - z)
    cartilage = smoothstep(-y, half.anterior * 0.72, half.anterior * 0.85)
    _paint(hu, rib, bone * (1 - cartilage) + 110 * cartilage, voxel)
    _paint(hu, rib - BONE_SHELL_MM, 0.35 * bone * (1 - cartilage) + 100 * cartilage, voxel)
    front = -half.anterior - 6
    slope = 0.28 * (z - half.top + 0.55 * half.height).clamp(min=0)
    sternum = torch.minimum(6 - (y - front - slope).abs(), 17 - x.abs())
    sternum = torch.minimum(sternum, torch.minimum(half.top - 25 - z, z - half.top + 0.72 * half.height))
    sternum = torch.minimum(sternum, -cage - 2)
    _paint(hu, sternum, 0.7 * bone, voxel)
    _paint(hu, sternum - BONE_SHELL_MM, 0.25 * bone, voxel)
    blade = torch.minimum(3.5 - (cage + 22).abs(), torch.minimum(x.abs() - 55, y - 5))
    blade = torch.minimum(
        blade, torch.minimum(half.top - 10 - z, z - half.top + 0.55 * half.height + 0.4 * (x.abs() - 55))
    )
    _paint(hu, blade, 0.7 * bone, voxel)


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
    arch = torch.minimum(4 - (canal - 12).abs(), 0.36 * habitus.rib_gap - from_middle)
    spike = torch.minimum(torch.minimum(4 - x.abs(), 14 - (y - front - 62).abs()), 0.3 * habitus.rib_gap - from_middle)
    wings = torch.minimum(torch.minimum(5 - (y - front - 42).abs(), 32 - x.abs()), 0.25 * habitus.rib_gap - from_middle)
    _paint(hu, torch.maximum(torch.maximum(arch, spike), wings), 0.75 * bone, voxel)
    _paint(hu, 9 - canal, 25.0, voxel)
