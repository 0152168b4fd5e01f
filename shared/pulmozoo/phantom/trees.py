"""Airways, arteries and veins: grown in mm from the hilum into each lobe, then drawn with partial volume."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .anatomy import LEFT, RIGHT, Chest, Interior
from .fields import Draws, Grid, Points
from .fissures import Lobation, LungBox, map_lungs

CANDIDATES = 14000  # positions tried per lung
CLEARANCE_MM = 6.5  # vessels keep away from fissures, which is how a reader finds a fissure that is not seen
REACH = 0.4  # of the way to the middle of what it supplies is how long a branch is
BEND = 0.17  # of its length is how far a branch bows out towards the direction of its parent
NARROWEST_LUMEN_MM = 0.8  # radius; what is narrower is not seen in a lung CT
ANYWHERE = 255
CLASSES = (0.0, 0.75, 1.5, 3.0, 6.0, 12.0, torch.inf)  # radii in voxels that are drawn together
CHUNK = 3_000_000  # voxel updates drawn at once


@dataclass(frozen=True)
class Segments:
    """Straight pieces of tubes: ends ``(N, 3)``, radii ``(N,)`` in mm, the lobe that each may enter, its generation.

    A piece that is not the first of its tube starts where another one ends; the trachea is generation 0.
    """

    start: Tensor
    end: Tensor
    radius: Tensor
    lobe: Tensor
    generation: Tensor

    def thicker(self, by_mm: Tensor) -> "Segments":
        return Segments(self.start, self.end, self.radius + by_mm, self.lobe, self.generation)

    def where(self, chosen: Tensor) -> "Segments":
        return Segments(*(value[chosen] for value in vars(self).values()))


@dataclass(frozen=True)
class Trees:
    """All tubes of one chest; the radius of an airway is that of its lumen."""

    arteries: Segments
    veins: Segments
    airways: Segments
    wall_scale: float

    @property
    def wall_mm(self) -> Tensor:
        """Thickness of each airway's wall, which falls with its calibre."""
        return self.wall_scale * (0.28 + 0.2 * self.airways.radius).clamp(max=1.8)


@dataclass(frozen=True)
class Growth:
    """A tree as nodes ``(N, 3)``: each but the first hangs on ``parent``, an earlier one, and feeds ``tips`` ends."""

    nodes: Tensor
    parent: Tensor
    tips: Tensor
    generation: Tensor


def draw_trees(draws: Draws, chest: Chest, lobation: Lobation) -> Trees:
    """Arteries, veins and airways of one chest.

    An airway and an artery run side by side; veins run where both are not.
    """
    arteries: list[Segments] = []
    veins: list[Segments] = []
    airways = [_central_airways(draws, chest)]
    calibre_mm, per_tip_mm3 = draws.uniform(0.44, 0.62), draws.uniform(1100, 2200)
    lumen = draws.uniform(0.5, 0.78)  # of the artery's radius
    aside = normalize(draws.noise((3,)), dim=0)
    sides = ((LEFT, lobation.left_box, (1, 2)), (RIGHT, lobation.right_box, (3, 4, 5)))
    for side, box, numbers in sides:
        root = chest.mediastinum.roots[0 if side == LEFT else 1]
        carina = chest.mediastinum.carina
        upper = tuple(0.45 * c + 0.55 * r for c, r in zip(carina, root, strict=True))
        hilum, offspring = bend(chest, torch.tensor([root, upper]))
        tips, lobes = _vessel_tips(draws, chest, lobation, box)
        volume = (box.high[0] - box.low[0]) * (box.high[1] - box.low[1]) * box.height
        for lobe in numbers:
            inside = tips[lobes == lobe]
            count = max(int(volume * len(inside) / CANDIDATES / per_tip_mm3), 15)
            if len(inside) < 20:
                continue
            # The right upper lobe's bronchus leaves before the others do.
            origin = offspring if lobe == 3 else hilum
            supply = _grow(draws, inside[:count], origin)
            arteries.append(_vessels(supply, hilum + torch.tensor([0.0, -7.0, 3.0]), lobe, calibre_mm))
            airways.append(_beside(supply, origin, lobe, calibre_mm, lumen, aside))
            apart = torch.cdist(inside, supply.nodes).amin(dim=1)
            between = inside[apart > apart.median()]
            drain = hilum + torch.tensor([0.0, -9.0, -14.0])
            veins.append(_vessels(_grow(draws, between[: count * 3 // 4], drain), drain, lobe, calibre_mm * 1.05))
    return Trees(_join(arteries), _join(veins), _join(airways), wall_scale=draws.uniform(0.75, 1.35))


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
    lungs = map_lungs(lobation, place, Interior(chest, place).lungs)
    distance = lungs.fissure_distance()
    free = (distance > CLEARANCE_MM) & (chosen < (distance - CLEARANCE_MM) / 8) & (lungs.depth > 4)
    return xyz[free], lungs.lobes[free]


def _grow(draws: Draws, tips: Tensor, origin: Tensor) -> Growth:
    """One tree that fills the space of its tips ``(N, 3)``: halve what a branch supplies until one tip is left.

    The first node is the tip nearest to the origin: the tree's gate to the lobe. Source: Tawhai et al., J Appl Physiol
    2004;97:2310-2321 (grow part of the way to the centroid, split the supplied points by a plane). Differs: the plane
    holds the branch and lies across the widest extent of the points, a random way off their middle.
    """
    gate = tips[(tips - origin).square().sum(1).argmin()]
    nodes, parents, counts, generations = [gate[None]], [torch.tensor([0])], [torch.tensor([len(tips)])], []
    generations.append(torch.tensor([2]))
    start, hangs_on = gate[None], torch.tensor([0])
    group = torch.zeros(len(tips), dtype=torch.long)  # of each tip: the branch that will reach it
    made = 1
    while len(start):
        branches = len(start)
        size = torch.zeros(branches).index_add_(0, group, torch.ones(len(group)))
        centre = torch.zeros(branches, 3).index_add_(0, group, tips) / size[:, None]
        end = torch.where(size[:, None] > 1, start + REACH * (centre - start), centre)
        nodes.append(end)
        parents.append(hangs_on)
        counts.append(size.long())
        generations.append(torch.full((branches,), 2 + len(generations)))
        here = made + torch.arange(branches)
        made += branches
        # Tips of branches that reach them drop out; the others go to either side of the splitting plane.
        onward = size[group] > 1
        tips, group = tips[onward], group[onward]
        off = tips - centre[group]
        along = normalize(end - start, dim=1)[group]
        across = off - (off * along).sum(1, keepdim=True) * along
        spread = torch.zeros(branches, 3, 3).index_add_(0, group, across[:, :, None] * across[:, None])
        widest = torch.linalg.eigh(spread).eigenvectors[:, :, -1]
        sided = (off * widest[group]).sum(1)
        extent = (torch.zeros(branches).index_add_(0, group, sided.square()) / size).sqrt()
        plane = (0.5 * extent * draws.noise((branches,)).clamp(-1.5, 1.5))[group]
        plane = torch.where(size[group] > 4, plane, 0.0)
        child = 2 * group + (sided > plane)
        kept, group = child.unique(return_inverse=True)
        start, hangs_on = end[kept // 2], here[kept // 2]
    return Growth(torch.cat(nodes), torch.cat(parents), torch.cat(counts), torch.cat(generations))


def _vessels(growth: Growth, root: Tensor, lobe: int, calibre_mm: float) -> Segments:
    """Vessels of one tree."""
    return _segments(growth, growth.nodes, root, lobe, _calibre(growth, calibre_mm))


def _calibre(growth: Growth, calibre_mm: float) -> Tensor:
    """Radius of each branch: raised to the power of 2.8 it is the sum of what it feeds (Murray's law would say 3)."""
    return calibre_mm * growth.tips.float().pow(1 / 2.8)


def _beside(growth: Growth, root: Tensor, lobe: int, calibre_mm: float, lumen: float, aside: Tensor) -> Segments:
    """The airways of a lobe beside its arteries, as far as they are wide enough to be seen."""
    artery = _calibre(growth, calibre_mm)
    incoming = normalize(growth.nodes - growth.nodes[growth.parent], dim=1)
    sideways = normalize(aside - (incoming * aside).sum(1, keepdim=True) * incoming, dim=1)
    moved = growth.nodes + sideways * ((1 + lumen) * artery * 1.2 + 0.8)[:, None]
    airways = _segments(growth, moved, root, lobe, artery * lumen)
    return airways.where(airways.radius > NARROWEST_LUMEN_MM)


def _segments(growth: Growth, nodes: Tensor, root: Tensor, lobe: int, radius: Tensor) -> Segments:
    """Two pieces for each branch, bowed so that it leaves in its parent's direction; the first comes from the root."""
    start = torch.cat([root[None], nodes[growth.parent[1:]]])
    along = nodes - start
    before = normalize(along[growth.parent], dim=1)
    length = along.norm(dim=1, keepdim=True)
    middle = start + 0.5 * along + BEND * length * (before - normalize(along, dim=1))
    lobes = torch.full((len(nodes),), lobe)
    lobes[0] = ANYWHERE
    return Segments(
        torch.stack([start, middle], dim=1).flatten(0, 1),
        torch.stack([middle, nodes], dim=1).flatten(0, 1),
        radius.repeat_interleave(2),
        lobes.repeat_interleave(2),
        growth.generation.repeat_interleave(2),
    )


def _central_airways(draws: Draws, chest: Chest) -> Segments:
    """Trachea and main bronchi, generations 0 and 1."""
    carina = torch.tensor(chest.mediastinum.carina)
    left, right = (torch.tensor(root) for root in chest.mediastinum.roots)
    top = torch.tensor([draws.normal(2, 4), draws.normal(2, 4), chest.left.height / 2 + 120])
    radius = draws.normal(8.7, 1.0)
    paths = [_line(top, carina, 12), _line(carina, left, 5), _line(carina, right, 4)]
    sizes, generations = (
        torch.cat([torch.full((len(path[0]),), value) for path, value in zip(paths, values, strict=True)])
        for values in ((radius, 0.68 * radius, 0.78 * radius), (0, 1, 1))
    )
    start, end = (bend(chest, torch.cat([path[i] for path in paths])) for i in (0, 1))
    return Segments(start, end, sizes, torch.full((len(sizes),), ANYWHERE), generations)


def _line(start: Tensor, end: Tensor, pieces: int) -> tuple[Tensor, Tensor]:
    nodes = start + (end - start) * torch.linspace(0, 1, pieces + 1)[:, None]
    return nodes[:-1], nodes[1:]


def _join(parts: list[Segments]) -> Segments:
    return Segments(*(torch.cat(values) for values in zip(*(vars(part).values() for part in parts), strict=True)))


def tube_coverage(segments: Segments, grid: Grid, lobes: Tensor) -> Tensor:
    """Share of each voxel filled by tubes, ``(X, Y, Z)``; a tube enters no lobe but its own.

    A tube thinner than a voxel becomes a faint line of the same cross-sectional area.
    """
    device = lobes.device
    voxel = min(grid.spacing_mm)
    drawn = torch.zeros(grid.shape, device=device)
    for low, high in pairwise(CLASSES):
        chosen = (segments.radius >= low * voxel) & (segments.radius < high * voxel)
        if chosen.any():
            part = Segments(*(value[chosen].to(device) for value in vars(segments).values()))
            _draw(part, grid, lobes, drawn, step_mm=voxel * max(0.5, low / 4))
    return drawn


def _draw(segments: Segments, grid: Grid, lobes: Tensor, drawn: Tensor, step_mm: float) -> None:
    """Add tubes of similar radius, in place: each voxel takes the largest share that any tube point gives it."""
    voxel = min(grid.spacing_mm)
    points, owner = _points_along(segments, step_mm)
    spacing = torch.tensor(grid.spacing_mm, device=points.device)
    step = spacing + spacing.new_tensor([0.0, 0.0, grid.gap_mm])
    origin = torch.stack([grid.x[0], grid.y[0], grid.z[0]])
    reach_mm = max(float(segments.radius.max()) + voxel / 2, 1.3 * voxel)
    filled = _filled_length(segments, spacing, voxel)
    last = torch.stack([grid.x[-1], grid.y[-1], grid.z[-1]])
    margin = reach_mm + spacing
    seen = ((points > origin - margin) & (points < last + margin)).all(dim=1)
    points, owner = points[seen], owner[seen]
    cube = _offsets(reach_mm, step.tolist()).to(points.device)
    size = torch.tensor(grid.shape, device=points.device)
    flat, flat_lobes = drawn.view(-1), lobes.reshape(-1)
    for begin in range(0, len(points), max(CHUNK // len(cube), 1)):
        piece = slice(begin, begin + max(CHUNK // len(cube), 1))
        centre, index = points[piece], owner[piece]
        nearest = ((centre - origin) / step).round().long()
        at = nearest[:, None] + cube
        away = (origin + at * step - centre[:, None]).abs()
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
    direction = normalize(segments.end - segments.start, dim=1)
    sine = (1 - direction.square()).clamp(min=1e-4).sqrt()
    thick = (2 * segments.radius).clamp(min=voxel_mm)[:, None]
    share = (thick / (sine * spacing_mm)).clamp(max=1)
    return torch.where(spacing_mm > voxel_mm, share, 1.0).prod(dim=1)


def _offsets(reach_mm: float, steps_mm: Sequence[float]) -> Tensor:
    """Voxel offsets ``(M, 3)`` of the box that a ball of this radius may touch."""
    axes = [torch.arange(-n, n + 1) for n in (int(reach_mm / step + 0.5) for step in steps_mm)]
    return torch.cartesian_prod(*axes)


def _share(distance_mm: Tensor, radius_mm: Tensor, voxel_mm: float) -> Tensor:
    """Filled share at a distance from the axis: a soft-edged disc, or for thin tubes a cone of the same integral."""
    width = 1.3 * voxel_mm
    thin = 3 * (radius_mm / width).square() * (1 - distance_mm / width).clamp(min=0)
    disc = ((radius_mm - distance_mm) / voxel_mm + 0.5).clamp(0, 1)
    return torch.where(radius_mm < 0.75 * voxel_mm, thin, disc)
