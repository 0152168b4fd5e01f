"""Paraseptal emphysema: rows of air cysts with thin walls below pleura and fissures, and a bulla now and then."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .body import mean_voxel
from .fields import Draws, Grid, Points, coverage
from .fissures import LungBox
from .lung_air import check_percent, free_lung, from_root, height_in, level_of, scattered, take_tissue
from .scene import Scene, Subject

WALL_HU = -180.0
HILUM_MM = 60.0  # around the root of a lung cysts are rare
FAR_MM = 1e3
CHUNK = 3_000_000  # voxel updates at once
MOST_PERCENT = 25.0


@dataclass(frozen=True)
class Cysts:
    """Balls of air cut by their neighbours: centre ``(N, 3)`` and radius in mm, lobe, and how early each one comes."""

    centre: Tensor
    radius: Tensor
    lobe: Tensor
    rank: Tensor

    def where(self, chosen: Tensor) -> "Cysts":
        return Cysts(*(value[chosen] for value in vars(self).values()))

    def to(self, device: torch.device) -> "Cysts":
        return Cysts(*(value.to(device) for value in vars(self).values()))


@dataclass(frozen=True)
class Paraseptal:
    """A :class:`.scene.Disease` that takes ``percent`` of the lungs' volume, 0 to 25; its label is 1, on walls too."""

    percent: float
    name: ClassVar[str] = "paraseptal"

    def __post_init__(self) -> None:
        check_percent(self.name, self.percent, MOST_PERCENT)

    def paint(self, scene: Scene, draws: Draws) -> Tensor:
        cysts = draw_cysts(draws, scene.subject)
        air_hu, wall_mm = draws.uniform(-1000, -985), draws.uniform(0.5, 0.9)
        level = level_of(rank_map(cysts, scene.survey), scene.survey, self.percent)
        present = cysts.where(cysts.rank >= level)
        scene.survey.diseased |= _inflate(scene.survey, present, air_hu, wall_mm)
        return _inflate(scene, present, air_hu, wall_mm).to(torch.uint8)


def draw_cysts(draws: Draws, subject: Subject) -> Cysts:
    """All cysts that a chest may have, one layer below its pleura and fissures; the first to come are in rows."""
    regions, upper = draws.smooth_field(draws.uniform(30, 55)), draws.uniform(0.5, 3)
    pitch_mm = draws.uniform(5, 8)
    bullae = draws.uniform(0.003, 0.012) if draws.chance(0.4) else 0.0
    layers = []
    for box in (subject.lobation.left_box, subject.lobation.right_box):
        layer = _layer(draws, subject, box, pitch_mm, bullae)
        rows = Points(layer.centre).smooth(regions) + upper * height_in(box, layer.centre)
        layers.append(Cysts(layer.centre, layer.radius, layer.lobe, layer.rank + rows))
    return Cysts(*(torch.cat(values) for values in zip(*(vars(layer).values() for layer in layers), strict=True)))


def _layer(draws: Draws, subject: Subject, box: LungBox, pitch_mm: float, bullae: float) -> Cysts:
    """One lung's cysts, of which a share are ``bullae``; fissures get theirs a little later than the pleura."""
    centres = scattered(draws, box, pitch_mm, jitter=0.3)
    lungs = subject.lungs_at(centres)
    at_fissure = lungs.fissure_distance() < lungs.depth
    below = torch.where(at_fissure, lungs.fissure_distance(), lungs.depth)
    kept = (lungs.depth > 0.5) & (below > 0.5) & (below < 0.8 * pitch_mm)
    below, at_fissure = below[kept], at_fissure[kept]
    size = draws.points(len(below), (0.6, 0.0, 1.0), (1.0, 1.0, 2.2))
    radius = torch.maximum(pitch_mm * size[:, 0], below + 0.5)
    radius = torch.where(size[:, 1] < bullae, pitch_mm * size[:, 2] + 2, radius)
    rank = 0.25 * draws.noise((len(below),)) - 0.6 * at_fissure
    rank -= 2.5 * (1 - from_root(subject, centres.xyz[kept]) / HILUM_MM).clamp(min=0)
    return Cysts(centres.xyz[kept], radius, lungs.lobes[kept], rank)


def rank_map(cysts: Cysts, scene: Scene) -> Tensor:
    """Of each voxel the rank of the first cyst to take it, minus infinity where none does."""
    cysts = cysts.to(scene.hu.device)
    first = torch.full_like(scene.hu, -torch.inf)
    for position, outside, index in _around(cysts, scene.grid, scene.lobes):
        inside = outside < 0
        first.view(-1).scatter_reduce_(0, position[inside], cysts.rank[index[inside]], "amax")
    return first


def _inflate(scene: Scene, cysts: Cysts, air_hu: float, wall_mm: float) -> Tensor:
    """Paint cysts and their walls in place; returns where they are, bool ``(X, Y, Z)``."""
    nearest, second = two_nearest(cysts.to(scene.hu.device), scene.grid, scene.lobes)
    voxel, free = mean_voxel(scene.grid), free_lung(scene)
    wall = torch.maximum(
        _sheet(nearest + wall_mm / 2, wall_mm, voxel) / 2, _sheet((second - nearest) / 2, wall_mm, voxel)
    )
    inside = coverage(-nearest, voxel) * free
    scene.hu += inside * wall * (WALL_HU - scene.hu).clamp(min=0)
    take_tissue(scene.hu, inside * (1 - wall), air_hu)
    return free & (nearest < 0)


def two_nearest(cysts: Cysts, grid: Grid, lobes: Tensor) -> tuple[Tensor, Tensor]:
    """Distance in mm of each voxel to the nearest cyst of its lobe, negative inside, and to the second nearest."""
    nearest, second = (torch.full(grid.shape, FAR_MM, device=lobes.device) for _ in range(2))
    for position, outside, _ in _around(cysts, grid, lobes):
        nearest.view(-1).scatter_reduce_(0, position, outside, "amin")
    for position, outside, _ in _around(cysts, grid, lobes):
        other = outside > nearest.view(-1)[position]
        second.view(-1).scatter_reduce_(0, position[other], outside[other], "amin")
    return nearest, second


def _around(cysts: Cysts, grid: Grid, lobes: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Voxels near cysts of their lobe, in parts: flat index, mm outside the cyst's surface, number of the cyst."""
    sx, sy, sz = grid.spacing_mm
    spacing = cysts.centre.new_tensor([sx, sy, sz + grid.gap_mm])
    origin, size = torch.stack([grid.x[0], grid.y[0], grid.z[0]]), torch.tensor(grid.shape, device=lobes.device)
    order = cysts.radius.argsort(descending=True)
    while len(order):
        reach = float(cysts.radius[order[0]]) + spacing
        cube = torch.cartesian_prod(*[torch.arange(-n, n + 1, device=lobes.device) for n in (reach / spacing).int()])
        index, order = order.tensor_split([max(CHUNK // len(cube), 1)])
        centre, radius = cysts.centre[index, None], cysts.radius[index, None]
        at = ((centre - origin) / spacing).round().long() + cube
        outside = (origin + at * spacing - centre).norm(dim=2) - radius
        near = ((at >= 0) & (at < size)).all(dim=2) & (outside < float(spacing.max()))
        at, outside, index = at[near], outside[near], index[:, None].expand(near.shape)[near]
        position = (at[:, 0] * size[1] + at[:, 1]) * size[2] + at[:, 2]
        own = lobes.view(-1)[position] == cysts.lobe[index]
        yield position[own], outside[own], index[own]


def _sheet(distance_mm: Tensor, thick_mm: float, voxel_mm: float) -> Tensor:
    """Share of each voxel filled by a sheet, from the distance of its centre to the sheet's middle."""
    width = max(thick_mm, voxel_mm)
    return (1 - distance_mm.abs() / width).clamp(min=0) * (thick_mm / width)
