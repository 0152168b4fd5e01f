"""One synthetic chest painted on a grid before it is scanned, and the way by which a disease adds itself to it."""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from .anatomy import Chest, draw_chest, lung_depths, mediastinum_depth
from .body import Habitus, draw_habitus, mean_voxel, paint_body
from .fields import Draws, Grid
from .fissures import Lobation, LungMap, draw_lobation, map_lungs
from .parenchyma import Parenchyma, draw_parenchyma, paint_lungs
from .trees import Trees, draw_trees, tube_coverage

SLAB_VOXELS = 250_000  # painted at once: small enough for the cache, large enough for vector units
ANATOMY, DISEASE = 0, 1000  # streams of random numbers; a disease adds a number made from its name
LUMEN_SHARE = 0.5
VESSEL_SHARE = 0.35
WALL_HU = 25.0
ARTERY, VEIN = 1, 2


@dataclass(frozen=True)
class Subject:
    """All that is drawn about one person, in mm and HU, before any grid is known."""

    chest: Chest
    lobation: Lobation
    tissue: Parenchyma
    habitus: Habitus
    trees: Trees
    lumen_hu: float
    vessel_hu: float


@dataclass
class Scene:
    """A painted chest that has not been scanned yet: volumes ``(X, Y, Z)`` on one grid and device.

    Args:
        hu: HU without blur or noise; a disease changes it in place.
        lobes: lobe numbers, 0 outside the lungs.
        airways: 1 in the lumen.
        vessels: 1 in arteries and 2 in veins of the lungs.
        grid: positions of the voxel centres in mm (``grid.coordinates()``) and ``spacing_mm``.
        subject: the drawn person.
    """

    hu: Tensor
    lobes: Tensor
    airways: Tensor
    vessels: Tensor
    grid: Grid
    subject: Subject

    @cached_property
    def pleura_mm(self) -> Tensor:
        """Depth below the pleura, negative outside the lungs."""
        return self._measure("depth")

    @cached_property
    def fissure_mm(self) -> Tensor:
        """Distance to the nearest fissure of the same lung, missing parts included; of use within the lungs only."""
        return self._measure("fissure_distance")

    def _measure(self, name: str) -> Tensor:
        volume = torch.empty_like(self.hu)
        for slab in slabs(self.grid):
            _, _, lungs = _lungs_of(self.subject, slab)
            volume[slab.window] = lungs.depth if name == "depth" else lungs.fissure_distance()
        return volume


class Disease(Protocol):
    """What ``thorax(..., diseases=[...])`` takes: anything with a name and a brush.

    ``name`` is the key of the label in the result. ``paint`` changes ``scene.hu`` in place and returns its label, uint8
    of the same shape with numbers of its own choice and 0 for none; the other volumes of the scene are only read.
    ``draws`` is a stream of random numbers of this seed and name, so the chest and other diseases are the same with and
    without it; as long as the disease draws in mm and asks for no grid first, it is the same on every grid as well.

    A label is what was painted: a voxel carries it when its centre is diseased. The scanner blurs the HU, not the
    label, so at a soft kernel or in a thick slice the HU near the border of a label mix with what lies beyond it.
    Diseases paint in the order given, each on what the ones before it left.

    For instance, air in the outermost centimetre of the upper lobes::

        class ApicalAir:
            name = "apical_air"

            def paint(self, scene, draws):
                label = (scene.pleura_mm > 0) & (scene.pleura_mm < 10) & ((scene.lobes == 1) | (scene.lobes == 3))
                scene.hu[label] = draws.uniform(-1000, -980)
                return label.to(torch.uint8)
    """

    @property
    def name(self) -> str: ...

    def paint(self, scene: Scene, draws: Draws) -> Tensor: ...


def draw_subject(seed: int) -> Subject:
    """The person of one seed."""
    draws = Draws(seed, ANATOMY)
    chest = draw_chest(draws)
    lobation = draw_lobation(draws, chest)
    tissue = draw_parenchyma(draws, chest, lobation)
    habitus = draw_habitus(draws, chest)
    trees = draw_trees(draws, chest, lobation)
    return Subject(
        chest,
        lobation,
        tissue,
        habitus,
        trees,
        lumen_hu=draws.uniform(-1000, -960),
        vessel_hu=habitus.blood_hu + draws.uniform(-15, 15),
    )


def paint_scene(subject: Subject, grid: Grid) -> Scene:
    """Paint a person on a grid, slab by slab; without grain, blur or noise."""
    device, voxel = grid.x.device, mean_voxel(grid)
    hu = torch.empty(grid.shape, device=device)
    lobes = torch.empty(grid.shape, dtype=torch.uint8, device=device)
    for slab in slabs(grid):
        at, mediastinum, lungs = _lungs_of(subject, slab)
        painted = paint_body(subject.chest, subject.habitus, slab, at, mediastinum)
        paint_lungs(painted, subject.tissue, subject.lobation, lungs, slab, voxel)
        hu[slab.window], lobes[slab.window] = painted, lungs.lobes
    airways, vessels = _paint_tubes(subject, grid, hu, lobes)
    return Scene(hu, lobes, airways, vessels, grid, subject)


def paint_diseases(scene: Scene, seed: int, diseases: Sequence[Disease]) -> dict[str, Tensor]:
    """Let each disease paint; returns their labels by name."""
    return {disease.name: disease.paint(scene, disease_draws(seed, disease.name)) for disease in diseases}


def disease_draws(seed: int, name: str) -> Draws:
    """The random numbers of one disease of one chest."""
    return Draws(seed, DISEASE + zlib.crc32(name.encode()))


def slabs(grid: Grid) -> Iterator[Grid]:
    """The grid in pieces along z."""
    x, y, z = grid.shape
    thick = max(SLAB_VOXELS // (x * y), 1)
    whole = slice(None)
    for start in range(0, z, thick):
        part = slice(start, start + thick)
        yield Grid(grid.x, grid.y, grid.z[part], grid.spacing_mm, (whole, whole, part))


def _lungs_of(subject: Subject, slab: Grid) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor, LungMap]:
    """Upright positions, depth below the mediastinal pleura and the lungs on a slab."""
    at = subject.chest.straighten(slab)
    mediastinum = mediastinum_depth(subject.chest, at)
    return at, mediastinum, map_lungs(subject.lobation, slab, lung_depths(subject.chest, at, mediastinum))


def _paint_tubes(subject: Subject, grid: Grid, hu: Tensor, lobes: Tensor) -> tuple[Tensor, Tensor]:
    """Paint vessels and airways in place; returns the labels of airways and vessels."""
    trees, label = subject.trees, torch.zeros(grid.shape, dtype=torch.uint8, device=hu.device)
    largest = torch.full_like(hu, VESSEL_SHARE)
    for number, vessels in ((ARTERY, trees.arteries), (VEIN, trees.veins)):
        share = tube_coverage(vessels, grid, lobes)
        hu += share * (subject.vessel_hu - hu).clamp(min=0)
        label.masked_fill_((share > largest) & (lobes > 0), number)
        largest = torch.maximum(largest, share)
    wall = tube_coverage(trees.airways.thicker(trees.wall_mm), grid, lobes)
    hu += wall * (WALL_HU - hu)
    lumen = tube_coverage(trees.airways, grid, lobes)
    hu += lumen * (subject.lumen_hu - hu)
    airways = lumen > LUMEN_SHARE
    return airways.to(torch.uint8), label.masked_fill_(airways, 0)
