"""Shadows of the lungs on a film: aerated tissue, vessels and, where a lung has collapsed, the air around it."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from .anatomy import LEFT, RIGHT, Chest, Interior
from .fields import Coordinates, Draws, Grid, Points, coverage, smoothstep
from .film_body import apex_depth
from .fissures import LungBox
from .pneumothorax import Pneumothorax, place_of
from .projection import Frame, ellipsoid_shadow, tube_shadow
from .scene import Subject
from .solids import Ellipsoid, smooth_min
from .trees import ANYWHERE, Segments

VOLUME_STEP_MM = 5.0  # of the volumes from which finer grids are interpolated
FINEST_STEP_MM = 1.0  # of a lung before it is projected, across the beam
SIDES = {LEFT: (1, 2), RIGHT: (3, 4, 5)}  # lobe numbers
BLOOD = 1.05  # density relative to water
WALL_MM = 0.7  # of a bulla
SLAB_VOXELS = 150_000  # painted at once: small enough for the cache
FREE_MM = 1.5  # a pleural line is drawn where the pleurae are further apart


@dataclass(frozen=True)
class Lungs:
    """Both lungs of one patient before any collapse."""

    boxes: tuple[LungBox, LungBox]
    grid: Grid
    depths: tuple[Tensor, Tensor]
    density: Tensor  # of aerated tissue relative to water, on the grid
    vessels: tuple[Segments, Segments]
    bullae: tuple[Ellipsoid, ...]
    fluid_mm: dict[int, float]  # of an effusion, per side

    def box(self, side: int) -> LungBox:
        return self.boxes[0] if side == LEFT else self.boxes[1]

    def depth(self, side: int) -> Tensor:
        return self.depths[0] if side == LEFT else self.depths[1]


@dataclass(frozen=True)
class LungShadow:
    """Paths in mm through one pleural space ``(H, W)``: all of it, its lung and its free air; ``water_mm`` it adds."""

    space: Tensor
    lung: Tensor
    air: Tensor
    water_mm: Tensor


def breathe_in(chest: Chest, share: float) -> Chest:
    """A standing chest in deep inspiration: the domes keep their tops, their slopes only ``share`` of their height."""
    left, right = (
        replace(half, height=half.height - (1 - share) * half.dome_height, dome_height=share * half.dome_height)
        for half in (chest.left, chest.right)
    )
    return replace(chest, left=left, right=right)


def draw_lungs(draws: Draws, subject: Subject, taper_mm: float) -> Lungs:
    """The lungs of a subject, their uppermost ``taper_mm`` domes, with opacities, bullae and effusions in some."""
    chest, lobation, trees = subject.chest, subject.lobation, subject.trees
    boxes = (lobation.left_box, lobation.right_box)
    grid = _volume_grid(boxes)
    x, _, z = grid.coordinates()
    left, right = Interior(chest, grid).lungs
    depths = (
        smooth_min(left, apex_depth(boxes[0], taper_mm, x, z), 8),
        smooth_min(right, apex_depth(boxes[1], taper_mm, x, z), 8),
    )
    boxes = (_from_base(boxes[0], depths[0], grid), _from_base(boxes[1], depths[1], grid))
    bullae: list[Ellipsoid] = []
    if draws.chance(0.12):
        box = boxes[0] if draws.chance(0.5) else boxes[1]
        bullae = [_draw_bulla(draws, box) for _ in range(draws.integer(1, 4))]
    return Lungs(
        boxes=boxes,
        grid=grid,
        depths=depths,
        density=_draw_density(draws, grid, boxes),
        vessels=(trees.arteries, trees.veins),
        bullae=tuple(bullae),
        fluid_mm={side: draws.uniform(8, 110) for side in (LEFT, RIGHT) if draws.chance(0.12)},
    )


def _from_base(box: LungBox, depth: Tensor, grid: Grid) -> LungBox:
    """The box of a lung from where its lowest part lies now that the chest has breathed in."""
    base = float(grid.z[(depth > 0).any(dim=1).any(dim=0)].min())
    return LungBox((*box.low[:2], base), box.high)


def _volume_grid(boxes: tuple[LungBox, LungBox]) -> Grid:
    low = [min(box.low[axis] for box in boxes) - 8 for axis in range(3)]
    high = [max(box.high[axis] for box in boxes) + 8 for axis in range(3)]
    x, y, z = (torch.arange(start, stop, VOLUME_STEP_MM) for start, stop in zip(low, high, strict=True))
    return Grid(x, y, z, (VOLUME_STEP_MM, VOLUME_STEP_MM, VOLUME_STEP_MM))


def _draw_density(draws: Draws, grid: Grid, boxes: tuple[LungBox, LungBox]) -> Tensor:
    mean = draws.uniform(0.1, 0.2) if draws.chance(0.6) else draws.uniform(0.18, 0.33)
    density = mean * (1 + 0.12 * grid.smooth(draws.smooth_field(30)))
    if draws.chance(0.25):  # a haze over large parts
        haze = draws.smooth_field(draws.uniform(35, 80))
        density += draws.uniform(0.05, 0.3) * smoothstep(grid.smooth(haze), draws.uniform(-0.5, 1), 2)
    if draws.chance(0.3):  # infiltrates, masses and nodules
        for _ in range(draws.integer(1, 5)):
            box = boxes[0] if draws.chance(0.5) else boxes[1]
            x, y, z = draws.points(1, box.low, box.high)[0].tolist()
            r = draws.uniform(5, 15) if draws.chance(0.4) else draws.uniform(15, 50)
            blob = Ellipsoid((x, y, z), (r * draws.uniform(0.7, 1.4), r, r * draws.uniform(0.7, 1.4)))
            edge = draws.uniform(4, 4 + r)
            depth = blob.depth(grid.coordinates()) + 0.25 * r * grid.smooth(draws.smooth_field(25))
            density += draws.uniform(0.1, 0.7) * smoothstep(depth, -0.5 * edge, 0.5 * edge)
    if draws.chance(0.12):  # most of one lung, or its lower part, without air
        box = boxes[0] if draws.chance(0.5) else boxes[1]
        top = box.low[2] + draws.uniform(0.25, 1.1) * (box.high[2] - box.low[2])
        x, _, z = grid.coordinates()
        own_side = x * (box.low[0] + box.high[0]) > 0
        within = smoothstep(top - z + 20 * grid.smooth(draws.smooth_field(40)), -25, 25) * own_side
        density += draws.uniform(0.2, 0.9) * within
    return density.clamp(0.03, 0.95)


def _draw_bulla(draws: Draws, box: LungBox) -> Ellipsoid:
    """Air in the upper part of a lung, within thin walls."""
    (x0, y0, z0), (x1, y1, z1) = box.low, box.high
    middle = (0.5 * (x0 + x1), 0.5 * (y0 + y1))
    spread = (0.3 * (x1 - x0), 0.3 * (y1 - y0))
    r = draws.uniform(8, 30)
    height = min(z0 + draws.uniform(0.55, 0.95) * (z1 - z0), z1 - r)
    centre = (middle[0] + draws.uniform(-1, 1) * spread[0], middle[1] + draws.uniform(-1, 1) * spread[1], height)
    return Ellipsoid(centre, (r * draws.uniform(0.7, 1.2), r, r * draws.uniform(0.8, 1.4)))


def sample(volume: Tensor, grid: Grid, at: Coordinates) -> Tensor:
    """Trilinear values of a volume on ``grid`` at positions in mm, edges repeated; shape of the positions."""
    place = place_of(at, grid)
    flat = place.reshape(1, -1, 1, 1, 3)
    values = F.grid_sample(volume[None, None], flat, align_corners=True, padding_mode="border")
    return values.reshape(place.shape[:-1])


def lung_shadow(lungs: Lungs, side: int, frame: Frame, collapse: Pneumothorax | None = None) -> LungShadow:
    """Shadow of one lung without its vessels, whole or collapsed."""
    grid = _fine_grid(lungs.box(side), frame)
    planes = torch.zeros(4, len(grid.x), len(grid.z))
    layers = max(SLAB_VOXELS // (len(grid.x) * len(grid.z)), 1)
    for y in grid.y.split(layers):
        planes += _lung_slab(lungs, side, Grid(grid.x, y, grid.z, grid.spacing_mm), collapse)
    return LungShadow(*_onto_frame(planes, grid, frame))


def _lung_slab(lungs: Lungs, side: int, grid: Grid, collapse: Pneumothorax | None) -> Tensor:
    """Paths ``(4, X, Z)`` through a part of one pleural space: the fields of :class:`LungShadow`."""
    soft = max(grid.spacing_mm)
    at = grid.coordinates()
    floor = lungs.box(side).low[2]
    space_depth = sample(lungs.depth(side), lungs.grid, at)
    space = coverage(space_depth, soft)
    if collapse is None:
        tissue, line = space, torch.zeros(())
        water = sample(lungs.density, lungs.grid, at)
        rim = 0.0015 * (at[0].square() + at[1].square()) - 20  # fluid climbs along the wall
        wet = coverage(floor + lungs.fluid_mm.get(side, -100.0) + rim - at[2], soft)
    else:
        source = collapse.source(grid)
        depth = sample(lungs.depth(side), lungs.grid, source)
        tissue = torch.minimum(coverage(depth, soft), space)
        packed = min(collapse.volume_share ** (-collapse.condensing), 5.0)
        water = (sample(lungs.density, lungs.grid, source) * packed).clamp(max=0.95)
        apart = smoothstep(space_depth - depth, FREE_MM, FREE_MM + 2)
        from_edge = depth.abs() * min(collapse.scale)
        line = (1 - from_edge / soft).clamp(min=0) * (collapse.line_mm / soft) * apart * space
        wet = coverage(floor + (collapse.fluid_mm or -100.0) - at[2], soft)
    dry = 1 - wet
    paths = [space, tissue * dry, (space - tissue) * dry, (tissue * water - space + line) * dry]
    return torch.stack([path.sum(1) for path in paths]) * grid.spacing_mm[1]


def _fine_grid(box: LungBox, frame: Frame) -> Grid:
    across = max(frame.pixel_mm, FINEST_STEP_MM)
    steps = (across, 1.4 * across, across)
    x, y, z = (torch.arange(low - 6, high + 6, step) for low, high, step in zip(box.low, box.high, steps, strict=True))
    return Grid(x, y, z, steps)


def _onto_frame(planes: Tensor, grid: Grid, frame: Frame) -> Tensor:
    """Planes ``(C, X, Z)`` on a grid as ``(C, H, W)`` on the frame, 0 beside the grid."""
    place = torch.stack(
        torch.broadcast_tensors(
            2 * (frame.z() - grid.z[0]) / (grid.z[-1] - grid.z[0]) - 1,
            2 * (frame.x() - grid.x[0]) / (grid.x[-1] - grid.x[0]) - 1,
        ),
        dim=-1,
    )
    return F.grid_sample(planes[None], place[None], mode="bicubic", align_corners=True)[0]


def vessel_shadow(lungs: Lungs, side: int, frame: Frame, collapse: Pneumothorax | None = None) -> Tensor:
    """Water ``(H, W)`` in mm that the vessels and bullae of one lung add, moved with the lung where it collapsed."""
    start, end, radius, lobe = (
        torch.cat([getattr(tree, name) for tree in lungs.vessels]) for name in ("start", "end", "radius", "lobe")
    )
    middle = Points((start + end) / 2)
    shared = (lobe == ANYWHERE) & (middle.xyz[:, 0] * side > 0)
    inside = (torch.isin(lobe, torch.tensor(SIDES[side])) | shared) & (
        sample(lungs.depth(side), lungs.grid, middle.coordinates()) > 0
    )
    bullae = [bulla for bulla in lungs.bullae if (bulla.centre[0] > 0) == (side > 0)]
    for bulla in bullae:
        inside &= bulla.depth(middle.coordinates()) < 0
    density = BLOOD - sample(lungs.density, lungs.grid, middle.coordinates())
    start, end, radius, density = start[inside], end[inside], radius[inside], density[inside]
    if collapse is not None:
        start, end = collapse.target(torch.cat([start, end])).chunk(2)
        radius = radius * collapse.volume_share ** (1 / 6)
    shadow = tube_shadow(frame, start, end, radius, density)
    for bulla in bullae:
        shadow += _bulla_shadow(lungs, bulla, frame, collapse)
    return shadow


def _bulla_shadow(lungs: Lungs, bulla: Ellipsoid, frame: Frame, collapse: Pneumothorax | None) -> Tensor:
    """Water that a bulla lacks, and its wall."""
    centre = torch.tensor([bulla.centre])
    density = float(sample(lungs.density, lungs.grid, Points(centre).coordinates()))
    radii = torch.tensor(bulla.radii)
    if collapse is not None:
        centre, radii = collapse.target(centre), radii * torch.tensor(collapse.scale)
    middle = (float(centre[0, 0]), float(centre[0, 2]))
    rx, ry, rz = radii.tolist()
    outer = ellipsoid_shadow(frame, middle, (rx, ry, rz))
    inner = ellipsoid_shadow(frame, middle, (rx - WALL_MM, ry - WALL_MM, rz - WALL_MM))
    return (outer - inner) - 0.9 * density * inner
