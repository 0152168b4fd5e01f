"""HU inside the lungs: aerated tissue, its gradients, fissures and disease-like distractors."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .anatomy import Chest
from .fields import Draws, Grid, SmoothField, coverage, smoothstep
from .fissures import Lobation, LungBox, LungMap, fissure_coverage
from .solids import Ellipsoid

FISSURE_HU = 20.0
# What it takes to get from all lungs to those that readers call normal.
NORMAL_RISE_HU, NORMAL_GRAIN, NORMAL_SKEW = 38.0, 1.3, 1.0


@dataclass(frozen=True)
class Patch:
    """A smooth random region that blends towards one density."""

    field: SmoothField
    level: float
    hu: float
    share: float


@dataclass(frozen=True)
class Parenchyma:
    """Densities of one case in HU."""

    mean_hu: float
    gravity_hu: float
    lobe_hu: tuple[float, ...]
    unevenness: SmoothField
    mosaic: tuple[SmoothField, float]  # patches with sharp borders: whole lobules that trap air or not
    subpleural_hu: float
    patches: tuple[Patch, ...]
    nodules: tuple[tuple[Ellipsoid, float], ...]
    pleura: tuple[SmoothField, float] | None
    grain_hu: float
    grain_skew: float = 0.0


def draw_parenchyma(draws: Draws, chest: Chest, lobation: Lobation) -> Parenchyma:
    """Densities and distractors of one case."""
    boxes = (lobation.left_box, lobation.right_box)
    patient = chest.patient
    by_lobe = [draws.uniform(-14, 14) for _ in range(6)]
    by_lobe[patient.collapsed] += draws.uniform(40, 260)
    by_lobe[0] = 0.0  # no lobe
    return Parenchyma(
        mean_hu=min(max(draws.normal(-908, 14) - 16 * patient.inflation, -945), -760),
        gravity_hu=max(draws.uniform(15, 75) - 12 * patient.inflation, 5),
        lobe_hu=tuple(by_lobe),
        unevenness=draws.smooth_field(draws.uniform(14, 35), draws.uniform(4, 14)),
        mosaic=(draws.smooth_field(draws.uniform(10, 22)), draws.uniform(0, 12) * draws.uniform(0, 1)),
        subpleural_hu=draws.uniform(0, 32),
        patches=_draw_patches(draws),
        nodules=_draw_nodules(draws, boxes),
        pleura=(draws.smooth_field(50), draws.uniform(2, 9)) if draws.chance(0.12) else None,
        grain_hu=draws.uniform(48, 74),
    )


def normal_tissue(tissue: Parenchyma) -> Parenchyma:
    """A case without the patches that look like a disease but have no label, and with the density and the evenness of
    lung that readers call normal: a median of -894 HU and a 5th percentile of -931 HU in smokers."""
    mean_hu, grain_hu = tissue.mean_hu + NORMAL_RISE_HU, NORMAL_GRAIN * tissue.grain_hu
    return replace(tissue, patches=(), mean_hu=mean_hu, grain_hu=grain_hu, grain_skew=NORMAL_SKEW)


def _draw_patches(draws: Draws) -> tuple[Patch, ...]:
    patches = []
    if draws.chance(0.2):  # emphysema-like
        patches.append(
            Patch(draws.smooth_field(draws.uniform(9, 25)), draws.uniform(0.5, 1.6), -985, draws.uniform(0.4, 1))
        )
    if draws.chance(0.25):  # ground glass
        patches.append(
            Patch(draws.smooth_field(draws.uniform(18, 50)), draws.uniform(0.8, 2), -560, draws.uniform(0.4, 1))
        )
    if draws.chance(0.15):  # consolidation
        patches.append(
            Patch(draws.smooth_field(draws.uniform(25, 55)), draws.uniform(1.3, 2.1), 30, draws.uniform(0.6, 1))
        )
    return tuple(patches)


def _draw_nodules(draws: Draws, boxes: tuple[LungBox, LungBox]) -> tuple[tuple[Ellipsoid, float], ...]:
    nodules = []
    for _ in range(draws.integer(1, 7) if draws.chance(0.45) else 0):
        low, high = (boxes[0].low, boxes[0].high) if draws.chance(0.5) else (boxes[1].low, boxes[1].high)
        x, y, z = draws.points(1, low, high)[0].tolist()
        r = draws.uniform(2.5, 9) if draws.chance(0.8) else draws.uniform(10, 36)
        radii = (r * draws.uniform(0.7, 1.3), r * draws.uniform(0.7, 1.3), r)
        nodules.append((Ellipsoid((x, y, z), radii), draws.uniform(-450, 80) if draws.chance(0.8) else 300.0))
    return tuple(nodules)


def paint_lungs(hu: Tensor, tissue: Parenchyma, lobation: Lobation, lungs: LungMap, grid: Grid, voxel: float) -> None:
    """Blend the lungs into a painted body, in place."""
    aerated = _density(tissue, lobation, lungs, grid)
    for patch in tissue.patches:
        share = patch.share * smoothstep(grid.smooth(patch.field), patch.level, patch.level + 0.35)
        aerated += share * (patch.hu - aerated)
    for nodule, value in tissue.nodules:
        low, high = nodule.bounds()
        part = grid.crop([v - 4 for v in low], [v + 4 for v in high])
        if 0 not in part.shape:
            target = aerated[part.window]
            target += coverage(nodule.depth(part.coordinates()), voxel) * (value - target)
    sheet = fissure_coverage(lobation, lungs, grid)
    aerated += sheet * (FISSURE_HU - aerated)
    if tissue.pleura is not None:
        smooth, thickness = tissue.pleura
        layer = thickness * smoothstep(grid.smooth(smooth), 0.5, 1.6) - lungs.depth
        aerated += coverage(layer, voxel) * (30 - aerated)
    hu += coverage(lungs.depth, voxel) * (aerated - hu)


def _density(tissue: Parenchyma, lobation: Lobation, lungs: LungMap, grid: Grid) -> Tensor:
    _, y, _ = grid.coordinates()
    box = lobation.right_box
    dependent = (y - (box.low[1] + box.high[1]) / 2) / (box.high[1] - box.low[1])
    by_lobe = torch.tensor(tissue.lobe_hu, device=lungs.depth.device)[lungs.lobes.long()]
    pattern, contrast_hu = tissue.mosaic
    lobules = contrast_hu * (2 * smoothstep(grid.smooth(pattern), -0.25, 0.25) - 1)
    subpleural = tissue.subpleural_hu * (-lungs.depth.clamp(min=0) / 2.5).exp()
    return (
        tissue.mean_hu + tissue.gravity_hu * dependent + by_lobe + subpleural + grid.smooth(tissue.unevenness) + lobules
    )
