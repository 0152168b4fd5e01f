"""Interstitial lung disease: five tissue patterns that are painted into the healthy lung.

Source of the classes and their order: LungNet's paper, https://arxiv.org/abs/1803.06167. How the patterns look follows
the Fleischner Society's glossary (Hansell et al., Radiology 2008;246:697-722); sizes and densities are ours.
"""

import math
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional as F

from .body import mean_voxel
from .cells import Cells, draw_cells
from .fields import Draws, SmoothField, coverage, smoothstep
from .scene import Scene
from .trees import ANYWHERE, Segments, tube_coverage

HEALTHY, GROUND_GLASS, MICRONODULES, CONSOLIDATION, RETICULATION, HONEYCOMBING = range(1, 7)
NOT_A_PATTERN = 0

# How often a picture is seen (a little more than 1 in all), and the chance of each pattern in it.
PICTURES: tuple[tuple[float, dict[int, float]], ...] = (
    (0.1, {}),
    (0.3, {HONEYCOMBING: 1.0, RETICULATION: 0.9, GROUND_GLASS: 0.4}),  # usual interstitial pneumonia
    (0.15, {RETICULATION: 0.9, GROUND_GLASS: 0.9}),  # non-specific interstitial pneumonia
    (0.12, {MICRONODULES: 1.0, GROUND_GLASS: 0.5}),  # hypersensitivity pneumonitis
    (0.13, {MICRONODULES: 1.0}),  # sarcoidosis, tuberculosis
    (0.21, {CONSOLIDATION: 1.0, GROUND_GLASS: 0.6}),  # pneumonia
)
PRIORITY = (HONEYCOMBING, CONSOLIDATION, RETICULATION, MICRONODULES, GROUND_GLASS)  # who takes the place first


@dataclass(frozen=True)
class Extent:
    """Where a pattern lies: where a smooth field exceeds a level that falls towards the base and inside a rim.

    Args:
        field: of unit spread.
        ragged: a finer field that frays the border.
        level: that the field must exceed at mid-height.
        basal: by how much the level falls from mid-height to the base of the lungs, and rises to their apex.
        rim_mm: depth below the pleura that the pattern reaches on the average; infinite for anywhere.
        soft: rise of the field over which the pattern becomes complete.
        lobe: the one lobe that is filled, whatever the field; 0 for none.
    """

    field: SmoothField
    ragged: SmoothField
    level: float
    basal: float
    rim_mm: float
    soft: float
    lobe: int

    def share(self, scene: Scene) -> Tensor:
        """How much of the pattern there is at each voxel, 0 to 1; 0 outside the lungs."""
        if self.lobe:
            return (scene.lobes == self.lobe).float()
        _, _, z = scene.grid.coordinates()
        box = scene.subject.lobation.left_box
        height = (2 * z - box.low[2] - box.high[2]) / box.height
        uneven = scene.grid.smooth(self.field)
        frayed = scene.grid.smooth(self.ragged)
        share = smoothstep(uneven + frayed - self.basal * height, self.level, self.level + self.soft)
        if math.isfinite(self.rim_mm):
            rim = self.rim_mm * (1 + 0.4 * uneven + 0.5 * frayed)
            share = share * smoothstep(rim - scene.pleura_mm, 0.0, 3.0)
        return share * (scene.lobes > 0)


@dataclass(frozen=True)
class Haze:
    """Ground glass: denser lung in which vessels stay visible."""

    gain_hu: float
    unevenness: SmoothField

    def paint(self, scene: Scene, share: Tensor) -> None:
        aerated = ((-250 - scene.hu) / 450).clamp(0, 1)
        scene.hu += share * aerated * (self.gain_hu + scene.grid.smooth(self.unevenness)).clamp(min=0)


@dataclass(frozen=True)
class Nodules:
    """Small round opacities, of soft tissue or of ground glass."""

    spacing_mm: float
    radius_mm: tuple[float, float]
    hu: float
    seed: int

    def paint(self, scene: Scene, share: Tensor) -> None:
        draws, lobation = Draws(self.seed), scene.subject.lobation
        centres = torch.cat(
            [self._lattice(draws, box.low, box.high) for box in (lobation.left_box, lobation.right_box)]
        )
        radius = torch.rand(len(centres), generator=draws.generator)
        low, high = self.radius_mm
        nodules = Segments(
            centres,
            centres,
            low + (high - low) * radius.square(),
            torch.full((len(centres),), ANYWHERE),
            torch.zeros(len(centres), dtype=torch.long),
        )
        filled = tube_coverage(nodules, scene.grid, scene.lobes) * (share > 0.5)
        scene.hu += filled * (self.hu - scene.hu).clamp(min=0)

    def _lattice(self, draws: Draws, low: tuple[float, ...], high: tuple[float, ...]) -> Tensor:
        axes = [torch.arange(a, b, self.spacing_mm) for a, b in zip(low, high, strict=True)]
        regular = torch.cartesian_prod(*axes)
        return regular + self.spacing_mm * torch.rand(regular.shape, generator=draws.generator)


@dataclass(frozen=True)
class Solid:
    """Consolidation: no air but in the bronchi, which stand out for it and are a little wider."""

    hu: float
    unevenness: SmoothField

    def paint(self, scene: Scene, share: Tensor) -> None:
        subject = scene.subject
        airways = subject.trees.airways
        lumen = tube_coverage(airways.thicker(0.3 * airways.radius), scene.grid, scene.lobes)
        tissue = self.hu + scene.grid.smooth(self.unevenness)
        filled = torch.maximum(scene.hu, tissue)
        filled += lumen * (subject.lumen_hu - filled)
        scene.hu += to_the_wall(share, scene) * (filled - scene.hu)


@dataclass(frozen=True)
class Mesh:
    """Reticulation: a net of thickened septa and, within it, a finer one."""

    meshes: tuple[tuple[Cells, float], ...]  # cells and the thickness of their walls in mm
    line_hu: float
    gain_hu: float

    def paint(self, scene: Scene, share: Tensor) -> None:
        chosen, voxel = share > 0, mean_voxel(scene.grid)
        old = scene.hu[chosen]
        lines = torch.zeros_like(old)
        for cells, thick_mm in self.meshes:
            wall, _ = cells.distances(scene.grid, chosen)
            lines = torch.maximum(lines, line_coverage(wall, thick_mm, voxel))
        new = old + self.gain_hu * ((-300 - old) / 400).clamp(0, 1)
        new += lines * (self.line_hu - new).clamp(min=0)
        scene.hu[chosen] = old + share[chosen] * (new - old)


@dataclass(frozen=True)
class Cysts:
    """Honeycombing: air-filled cysts that share walls, in scarred tissue."""

    cells: Cells
    wall_mm: float
    wall_hu: float
    air_hu: float

    def paint(self, scene: Scene, share: Tensor) -> None:
        chosen, voxel = share > 0, mean_voxel(scene.grid)
        wall, centre = self.cells.distances(scene.grid, chosen)
        depth = torch.minimum(wall - self.wall_mm / 2, 0.68 * self.cells.width_mm - centre)
        old = scene.hu[chosen]
        new = self.wall_hu + coverage(depth, voxel) * (self.air_hu - self.wall_hu)
        scene.hu[chosen] = old + share[chosen] * (new - old)


Brush = Haze | Nodules | Solid | Mesh | Cysts


class ILDPatterns:
    """The disease ``ild_patterns``, painted all over the lungs.

    Label 1 healthy, 2 ground glass, 3 micronodules, 4 consolidation, 5 reticulation, 6 honeycombing; 0 outside the
    lungs and where the lung is neither healthy nor one of these (nodules, a collapsed lobe).
    """

    name = "ild_patterns"

    def paint(self, scene: Scene, draws: Draws) -> Tensor:
        label = healthy_lung(scene)
        free = (scene.lobes > 0).float()
        shares = []
        for pattern, extent, brush in draw_patterns(draws):
            share = extent.share(scene) * free
            free = free - share
            label.masked_fill_(share > 0.5, pattern)
            shares.append((brush, share))
        for brush, share in reversed(shares):
            brush.paint(scene, share)
        return label


def healthy_lung(scene: Scene) -> Tensor:
    """Label of the lung before a disease is painted, without nodules and a collapsed lobe, uint8."""
    label = (scene.lobes > 0).to(torch.uint8) * HEALTHY
    subject = scene.subject
    for nodule, _ in subject.tissue.nodules:
        part = scene.grid.crop(*nodule.bounds())
        label[part.window].masked_fill_(nodule.depth(part.coordinates()) > 0, NOT_A_PATTERN)
    if subject.chest.patient.collapsed:
        label.masked_fill_(scene.lobes == subject.chest.patient.collapsed, NOT_A_PATTERN)
    return label


def draw_patterns(draws: Draws) -> list[tuple[int, Extent, Brush]]:
    """The patterns of one case with their places and looks, in the order of :data:`PRIORITY`."""
    drawn = draws.uniform(0, 1)
    reached = accumulate(often for often, _ in PICTURES)
    chances = next(chances for upto, (_, chances) in zip(reached, PICTURES, strict=True) if drawn < upto)
    present = [pattern for pattern in PRIORITY if draws.chance(chances.get(pattern, 0.0))]
    return [(pattern, draw_extent(draws, pattern), draw_brush(draws, pattern)) for pattern in present]


def draw_extent(draws: Draws, pattern: int) -> Extent:
    """Fibrosis lies below the pleura and at the base, nodules are diffuse, the others come in patches."""
    scale = {HONEYCOMBING: (25, 50), RETICULATION: (25, 55), MICRONODULES: (60, 110)}.get(pattern, (20, 50))
    basal = {HONEYCOMBING: (0.6, 1.8), RETICULATION: (0.3, 1.5), MICRONODULES: (-0.6, 0.3)}.get(pattern, (-0.4, 0.8))
    level = {HONEYCOMBING: (-0.4, 0.6), RETICULATION: (-0.5, 0.5), MICRONODULES: (-2.5, -0.2)}.get(pattern, (0.2, 1.1))
    rim_mm = {HONEYCOMBING: (8.0, 20.0), RETICULATION: (14.0, 50.0), CONSOLIDATION: (20.0, 80.0)}.get(pattern)
    return Extent(
        field=draws.smooth_field(draws.uniform(*scale)),
        ragged=draws.smooth_field(draws.uniform(5, 9), 0.08 if pattern == MICRONODULES else 0.25),
        level=draws.uniform(*level),
        basal=draws.uniform(*basal),
        rim_mm=draws.uniform(*rim_mm) if rim_mm else math.inf,
        soft={GROUND_GLASS: 0.6, CONSOLIDATION: 0.3, MICRONODULES: 0.3}.get(pattern, 0.15),
        lobe=draws.integer(1, 5) if pattern == CONSOLIDATION and draws.chance(0.2) else 0,
    )


def draw_brush(draws: Draws, pattern: int) -> Brush:
    """How one pattern of one case looks."""
    match pattern:
        case 2:
            return Haze(draws.uniform(130, 380), draws.smooth_field(draws.uniform(5, 14), draws.uniform(15, 50)))
        case 3:
            soft = draws.chance(0.3)
            return Nodules(
                spacing_mm=draws.uniform(5.0, 8.5),
                radius_mm=(1.2, 2.6) if soft else (0.7, draws.uniform(1.4, 2.2)),
                hu=draws.uniform(-550, -350) if soft else draws.uniform(-100, 60),
                seed=draws.integer(0, 2**31 - 1),
            )
        case 4:
            return Solid(draws.uniform(0, 70), draws.smooth_field(draws.uniform(6, 15), draws.uniform(5, 25)))
        case 5:
            coarse = draw_cells(draws, draws.uniform(11, 18), draws.uniform(1.5, 3))
            fine = draw_cells(draws, draws.uniform(4.5, 8), draws.uniform(1.2, 2.2))
            return Mesh(
                ((coarse, draws.uniform(0.9, 1.6)), (fine, draws.uniform(0.4, 0.9))),
                line_hu=draws.uniform(-250, -50),
                gain_hu=draws.uniform(20, 140),
            )
    return Cysts(
        draw_cells(draws, draws.uniform(4.5, 10), draws.uniform(1.2, 2.6)),
        wall_mm=draws.uniform(1.0, 1.9),
        wall_hu=draws.uniform(-150, 30),
        air_hu=draws.uniform(-990, -900),
    )


def to_the_wall(share: Tensor, scene: Scene) -> Tensor:
    """The share of a pattern also in the voxels around the lungs that hold some of their air."""
    skin = (scene.lobes == 0) & (scene.pleura_mm > -mean_voxel(scene.grid))
    spread = F.max_pool3d(share[None, None], kernel_size=(3, 3, 1), stride=1, padding=(1, 1, 0))[0, 0]
    return torch.where(skin, spread, share)


def line_coverage(distance_mm: Tensor, thick_mm: float, voxel_mm: float) -> Tensor:
    """Share of a voxel that a sheet fills; what is thinner than a voxel becomes a faint line of the same integral."""
    width = max(thick_mm, voxel_mm)
    return (1 - distance_mm / width).clamp(min=0) * (thick_mm / width)
