"""Branching vessels and airways: grown in mm from the hilum into each lobe, then drawn with partial volume."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .anatomy import LEFT, RIGHT, Chest, lung_depths, mediastinum_depth
from .fields import Draws, Grid, Points
from .fissures import Lobation, LungBox, map_lungs

CANDIDATES = 12000  # positions tried per lung
VOLUME_PER_TIP_MM3 = 2000.0
CLEARANCE_MM = 5.0  # vessels keep away from fissures, which is how a reader finds a fissure that is not seen
PATH_WEIGHT = 0.55  # how much a short way from the hilum counts against a short new piece
ANYWHERE = 255
CHUNK = 3_000_000  # voxel updates drawn at once


@dataclass(frozen=True)
class Segments:
    """Straight pieces of tubes: ends ``(N, 3)`` and radii ``(N,)`` in mm, and the lobe that each may enter."""

    start: Tensor
    end: Tensor
    radius: Tensor
    lobe: Tensor

    def thicker(self, by_mm: float) -> "Segments":
        return Segments(self.start, self.end, self.radius + by_mm, self.lobe)


@dataclass(frozen=True)
class Trees:
    """All tubes of one chest."""

    vessels: Segments
    airways: Segments
    wall_mm: float


def draw_trees(draws: Draws, chest: Chest, lobation: Lobation) -> Trees:
    """Arteries, veins and airways of one chest."""
    vessels: list[Segments] = []
    airways = [_central_airways(draws, chest)]
    tip_mm = draws.uniform(0.6, 0.95)
    density = draws.uniform(0.6, 1.5)
    airway_size = draws.uniform(0.75, 1.15)
    sides = ((LEFT, lobation.left_box, (1, 2)), (RIGHT, lobation.right_box, (3, 4, 5)))
    for side, box, numbers in sides:
        hilum = bend(chest, torch.tensor([chest.mediastinum.roots[0 if side == LEFT else 1]]))[0]
        tips, lobes = _vessel_tips(draws, chest, lobation, box)
        volume = (box.high[0] - box.low[0]) * (box.high[1] - box.low[1]) * box.height
        for lobe in numbers:
            inside = tips[lobes == lobe]
            count = int(volume * len(inside) / CANDIDATES / VOLUME_PER_TIP_MM3 * density)
            if len(inside) < 20:
                continue
            arteries = _grow(inside[: max(count, 15)], hilum, lobe, tip_mm)
            veins = _grow(
                inside.flip(0)[: max(count * 2 // 3, 10)], hilum + torch.tensor([0.0, -8.0, -12.0]), lobe, tip_mm
            )
            vessels += [arteries, veins]
            airways.append(_along_arteries(arteries, airway_size))
    return Trees(_join(vessels), _join(airways), wall_mm=draws.uniform(0.8, 1.8))


def bend(chest: Chest, upright: Tensor) -> Tensor:
    """Where positions ``(N, 3)`` of the upright chest lie in the scan: the inverse of :meth:`Chest.straighten`."""
    xyz = upright.clone()
    for _ in range(4):
        xyz = xyz + upright - torch.stack(chest.straighten(Points(xyz)), dim=1)
    return xyz


def _vessel_tips(draws: Draws, chest: Chest, lobation: Lobation, box: LungBox) -> tuple[Tensor, Tensor]:
    """Positions inside one lung that a vessel may reach, with their lobe numbers."""
    xyz = draws.points(CANDIDATES, box.low, box.high)
    chosen = torch.rand(CANDIDATES, generator=draws.generator)
    place = Points(xyz)
    at = chest.straighten(place)
    lungs = map_lungs(lobation, place, lung_depths(chest, at, mediastinum_depth(chest, at)))
    distance = lungs.fissure_distance()
    free = (distance > CLEARANCE_MM) & (chosen < (distance - CLEARANCE_MM) / 8) & (lungs.depth > 4)
    return xyz[free], lungs.lobes[free]


def _grow(tips: Tensor, hilum: Tensor, lobe: int, tip_mm: float) -> Segments:
    """One tree through all positions ``(N, 3)``, each joined to the best one nearer to the lobe's root.

    Radii follow Murray's law: the cube of a radius is the sum of the cubes downstream.
    """
    root = tips[(tips - hilum).square().sum(1).argmin()]
    order = (tips - root).square().sum(1).argsort(stable=True)
    nodes = tips[order]
    from_root = (nodes - root).square().sum(1).sqrt()
    apart = (nodes[:, None] - nodes[None]).square().sum(2).sqrt()
    cost = apart + PATH_WEIGHT * from_root[None]
    cost = cost.masked_fill(torch.ones_like(cost, dtype=torch.bool).triu(), torch.inf)
    parents = cost[1:].argmin(dim=1)
    tips_behind = torch.tensor(_tips_behind(parents.tolist()), dtype=torch.float32)
    radius = tip_mm * tips_behind.pow(1 / 3)
    start = torch.cat([hilum[None], nodes[parents]])
    return Segments(start, nodes, radius, torch.full((len(nodes),), lobe))


def _tips_behind(parents: list[int]) -> list[int]:
    """Number of end points downstream of each node; node ``i + 1`` hangs on ``parents[i]``, which comes before it."""
    count = [0] * (len(parents) + 1)
    for node in range(len(parents), 0, -1):
        count[node] = max(count[node], 1)
        count[parents[node - 1]] += count[node]
    count[0] = max(count[0], 1)
    return count


def _along_arteries(arteries: Segments, size: float) -> Segments:
    """Airways beside the thicker arteries of a lobe."""
    large = arteries.radius > max(1.5, 0.5 * float(arteries.radius.max()))
    radius = arteries.radius[large] * size * 0.9
    aside = torch.tensor([0.35, 0.65, 0.67]) * (arteries.radius[large] + radius + 0.5)[:, None]
    return Segments(arteries.start[large] + aside, arteries.end[large] + aside, radius, arteries.lobe[large])


def _central_airways(draws: Draws, chest: Chest) -> Segments:
    """Trachea and main bronchi."""
    carina = torch.tensor(chest.mediastinum.carina)
    left, right = (torch.tensor(root) for root in chest.mediastinum.roots)
    top = torch.tensor([draws.normal(2, 4), draws.normal(2, 4), chest.left.height / 2 + 120])
    radius = draws.normal(8.7, 1.0)
    paths = [_line(top, carina, 12), _line(carina, left, 5), _line(carina, right, 4)]
    sizes = torch.cat(
        [torch.full((len(path[0]),), radius * s) for path, s in zip(paths, (1.0, 0.68, 0.78), strict=True)]
    )
    start, end = (bend(chest, torch.cat([path[i] for path in paths])) for i in (0, 1))
    return Segments(start, end, sizes, torch.full((len(sizes),), ANYWHERE))


def _line(start: Tensor, end: Tensor, pieces: int) -> tuple[Tensor, Tensor]:
    nodes = start + (end - start) * torch.linspace(0, 1, pieces + 1)[:, None]
    return nodes[:-1], nodes[1:]


def _join(parts: list[Segments]) -> Segments:
    return Segments(
        torch.cat([part.start for part in parts]),
        torch.cat([part.end for part in parts]),
        torch.cat([part.radius for part in parts]),
        torch.cat([part.lobe for part in parts]),
    )


def tube_coverage(segments: Segments, grid: Grid, lobes: Tensor) -> Tensor:
    """Share of each voxel filled by tubes, ``(X, Y, Z)``; a tube enters no lobe but its own.

    A tube thinner than a voxel becomes a faint line of the same cross-sectional area.
    """
    device = lobes.device
    voxel = min(grid.spacing_mm)
    drawn = torch.zeros(grid.shape, device=device)
    for low, high in ((0.0, 0.75), (0.75, 1.5), (1.5, 3.0), (3.0, torch.inf)):
        chosen = (segments.radius >= low * voxel) & (segments.radius < high * voxel)
        if chosen.any():
            part = Segments(*(value[chosen].to(device) for value in vars(segments).values()))
            _draw(part, grid, lobes, drawn)
    return drawn


def _draw(segments: Segments, grid: Grid, lobes: Tensor, drawn: Tensor) -> None:
    """Add tubes of similar radius, in place: each voxel takes the largest share that any tube point gives it."""
    voxel = min(grid.spacing_mm)
    points, owner = _points_along(segments, step_mm=voxel / 2)
    spacing = torch.tensor(grid.spacing_mm, device=points.device)
    origin = torch.stack([grid.x[0], grid.y[0], grid.z[0]])
    reach_mm = max(float(segments.radius.max()) + voxel / 2, 1.3 * voxel)
    filled = _filled_length(segments, spacing, voxel)
    cube = _offsets(reach_mm, grid.spacing_mm).to(points.device)
    size = torch.tensor(grid.shape, device=points.device)
    flat, flat_lobes = drawn.view(-1), lobes.reshape(-1)
    for begin in range(0, len(points), max(CHUNK // len(cube), 1)):
        piece = slice(begin, begin + max(CHUNK // len(cube), 1))
        centre, index = points[piece], owner[piece]
        nearest = ((centre - origin) / spacing).round().long()
        at = nearest[:, None] + cube
        away = (origin + at * spacing - centre[:, None]).abs()
        # A voxel longer than it is wide is hit by whatever passes through its length.
        away = (away - (spacing - voxel) / 2).clamp(min=0)
        share = _share(away.square().sum(2).sqrt(), segments.radius[index][:, None], voxel) * filled[index][:, None]
        position = (at[..., 0] * size[1] + at[..., 1]) * size[2] + at[..., 2]
        inside = ((at >= 0) & (at < size)).all(2) & (share > 0)
        position, share = position[inside], share[inside]
        own = segments.lobe[index][:, None].expand(inside.shape)[inside]
        here = flat_lobes[position]
        allowed = (here == 0) | (here == own) | (own == ANYWHERE)
        flat.scatter_reduce_(0, position[allowed], share[allowed], "amax")


def _points_along(segments: Segments, step_mm: float) -> tuple[Tensor, Tensor]:
    """Positions ``(M, 3)`` on the axes of all segments, and the segment each belongs to."""
    direction = segments.end - segments.start
    pieces = (direction.square().sum(1).sqrt() / step_mm).ceil().long() + 1
    owner = torch.arange(len(pieces), device=pieces.device).repeat_interleave(pieces)
    first = pieces.cumsum(0) - pieces
    along = (torch.arange(len(owner), device=owner.device) - first[owner]) / (pieces[owner] - 1).clamp(min=1)
    return segments.start[owner] + along[:, None] * direction[owner], owner


def _filled_length(segments: Segments, spacing_mm: Tensor, voxel_mm: float) -> Tensor:
    """Share ``(N,)`` of the longer sides of a voxel that a tube crossing them fills."""
    direction = torch.nn.functional.normalize(segments.end - segments.start, dim=1)
    sine = (1 - direction.square()).clamp(min=1e-4).sqrt()
    thick = (2 * segments.radius).clamp(min=voxel_mm)[:, None]
    share = (thick / (sine * spacing_mm)).clamp(max=1)
    return torch.where(spacing_mm > voxel_mm, share, 1.0).prod(dim=1)


def _offsets(reach_mm: float, spacing_mm: tuple[float, float, float]) -> Tensor:
    """Voxel offsets ``(M, 3)`` of the box that a ball of this radius may touch."""
    axes = [torch.arange(-n, n + 1) for n in (int(reach_mm / step + 0.5) for step in spacing_mm)]
    return torch.cartesian_prod(*axes)


def _share(distance_mm: Tensor, radius_mm: Tensor, voxel_mm: float) -> Tensor:
    """Filled share at a distance from the axis: a soft-edged disc, or for thin tubes a cone of the same integral."""
    width = 1.3 * voxel_mm
    thin = 3 * (radius_mm / width).square() * (1 - distance_mm / width).clamp(min=0)
    disc = ((radius_mm - distance_mm) / voxel_mm + 0.5).clamp(0, 1)
    return torch.where(radius_mm < 0.75 * voxel_mm, thin, disc)
