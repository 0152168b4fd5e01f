"""One synthetic chest painted on a grid before it is scanned, and the way by which a disease adds itself to it."""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from .anatomy import Chest, Interior, draw_chest
from .body import Habitus, draw_habitus, mean_voxel, paint_body
from .fields import Draws, Grid, Place, centred_grid
from .fissures import Lobation, LungMap, draw_lobation, map_lungs
from .parenchyma import Parenchyma, draw_parenchyma, normal_tissue, paint_lungs
from .trees import Trees, draw_trees, tube_coverage

SLAB_VOXELS = 250_000  # painted at once: small enough for the cache, large enough for vector units
ANATOMY, DISEASE = 0, 1000  # streams of random numbers; a disease adds a number made from its name
LUMEN_SHARE = 0.5
VESSEL_SHARE = 0.35
WALL_HU = 25.0
ARTERY, VEIN = 1, 2
SURVEY = (63, 49, 68), (6.0, 6.0, 6.0)  # the coarse grid that covers every chest


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

    def with_normal_tissue(self) -> "Subject":
        """The same person with tissue to paint diseases on, :func:`.parenchyma.normal_tissue`."""
        return replace(self, tissue=normal_tissue(self.tissue))

    def lungs_at(self, place: Place) -> LungMap:
        """Depth below the pleura, lobes and fissures at positions in the scan."""
        return map_lungs(self.lobation, place, Interior(self.chest, place).lungs)


@dataclass
class Scene:
    """A painted chest that has not been scanned yet: volumes ``(X, Y, Z)`` on one grid and device.

    Args:
        hu: HU without blur or noise; a disease changes it in place.
        lobes: lobe numbers, 0 outside the lungs.
        airways: 1 in the lumen.
        vessels: 1 in arteries and 2 in veins of the lungs.
        diseased: where the diseases before have left a label.
        grid: positions of the voxel centres in mm (``grid.coordinates()``) and ``spacing_mm``.
        subject: the drawn person.
    """

    hu: Tensor
    lobes: Tensor
    airways: Tensor
    vessels: Tensor
    diseased: Tensor
    grid: Grid
    subject: Subject

    @cached_property
    def survey(self) -> "Scene":
        """The same lungs without tubes on one coarse grid that holds them whole, to measure a share of them on.

        It is the same whatever the grid of the scan; a disease that measures on it paints there as well.
        """
        return paint_tissue(self.subject, centred_grid(*SURVEY, self.hu.device), body=False)

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
            lungs = self.subject.lungs_at(slab)
            volume[slab.window] = lungs.depth if name == "depth" else lungs.fissure_distance()
        return volume


class Disease(Protocol):
    """What ``thorax(..., diseases=[...])`` takes: anything with a name and a brush.

    ``name`` is the key of the label in the result. ``paint`` changes ``scene.hu`` in place and returns its label, uint8
    of the same shape with numbers of its own choice and 0 for none; the other volumes of the scene are only read.
    ``draws`` is a stream of random numbers of this seed and name, so the chest and other diseases are the same with and
    without it; as long as the disease draws in mm and asks for no grid first, it is the same on every grid as well.
    Between its lesions lies :func:`.parenchyma.normal_tissue`, in which nothing looks like a disease without a label.

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
    """Paint a person on a grid; without grain, blur or noise."""
    scene = paint_tissue(subject, grid)
    scene.airways, scene.vessels = _paint_tubes(subject, grid, scene.hu, scene.lobes)
    return scene


def paint_tissue(subject: Subject, grid: Grid, *, body: bool = True) -> Scene:
    """Paint a person without airways and vessels, slab by slab; without a ``body`` the lungs lie in water."""
    device, voxel = grid.x.device, mean_voxel(grid)
    hu = torch.empty(grid.shape, device=device)
    lobes = torch.empty(grid.shape, dtype=torch.uint8, device=device)
    for slab in slabs(grid):
        interior = Interior(subject.chest, slab)
        painted = paint_body(interior, subject.habitus, slab)
        lungs = map_lungs(subject.lobation, slab, interior.lungs)
        paint_lungs(painted, subject.tissue, subject.lobation, lungs, slab, voxel)
        hu[slab.window], lobes[slab.window] = painted, lungs.lobes
    tubes = torch.zeros_like(lobes)
    diseased = torch.zeros_like(lobes, dtype=torch.bool)
    return Scene(hu, lobes, tubes, tubes, diseased, grid, subject)


def paint_diseases(scene: Scene, seed: int, diseases: Sequence[Disease]) -> dict[str, Tensor]:
    """Let each disease paint; returns their labels by name."""
    labels = {}
    for disease in diseases:
        label = labels[disease.name] = disease.paint(scene, disease_draws(seed, disease.name))
        scene.diseased |= label > 0
    return labels


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
        yield Grid(grid.x, grid.y, grid.z[part], grid.spacing_mm, (whole, whole, part), grid.gap_mm)


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
