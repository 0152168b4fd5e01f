"""A synthetic chest CT with exact labels: the entry point of the phantom."""

import math

import torch
from torch import Tensor

from .acquisition import acquire, draw_scanner
from .anatomy import draw_chest, lung_depths, mediastinum_depth
from .body import draw_habitus, mean_voxel, paint_body
from .fields import Draws, Grid, centred_grid
from .fissures import draw_lobation, map_lungs
from .parenchyma import draw_parenchyma, paint_lungs
from .trees import draw_trees, tube_coverage

SLAB_VOXELS = 250_000  # painted at once: small enough for the cache, large enough for vector units
ANATOMY, NOISE = 0, 1  # streams of random numbers
LUMEN_SHARE = 0.5
VESSEL_SHARE = 0.35
WALL_HU = 25.0


def thorax(
    seed: int, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], device: str | torch.device = "cpu"
) -> dict[str, Tensor]:
    """One synthetic chest CT with lobes, airways and vessels.

    Axes are (x, y, z), index rising to the patient's left, posterior and superior. The chest's centre is the grid's
    centre: a small grid cuts the chest, a large one has air around it. A seed is the same anatomy on every grid.

    Args:
        seed: which chest, 0 or more.
        shape: voxels along x, y, z.
        spacing_mm: voxel size along x, y, z.
        device: where to compute; the result stays there, but for the affine.

    Returns ``ct_hu`` int16, ``lobes`` uint8 (1 left upper, 2 left lower, 3 right upper, 4 right lower, 5 right middle),
    ``airways`` (lumen) and ``vessels`` uint8 masks, all of the given shape, and ``affine`` ``(4, 4)`` float64 from
    voxel index to RAS+ mm.
    """
    _check(seed, shape, spacing_mm)
    draws = Draws(seed, ANATOMY)
    chest = draw_chest(draws)
    lobation = draw_lobation(draws, chest)
    tissue = draw_parenchyma(draws, lobation)
    habitus = draw_habitus(draws, chest)
    trees = draw_trees(draws, chest, lobation)
    lumen_hu, scanner = draws.uniform(-1000, -960), draw_scanner(draws)
    vessel_hu = habitus.blood_hu + draws.uniform(-15, 15)

    grid = centred_grid(shape, spacing_mm, device)
    voxel = mean_voxel(grid)
    hu = torch.empty(shape, device=device)
    lobes = torch.empty(shape, dtype=torch.uint8, device=device)
    for slab in _slabs(grid):
        at = chest.straighten(slab)
        mediastinum = mediastinum_depth(chest, at)
        lungs = map_lungs(lobation, slab, lung_depths(chest, at, mediastinum))
        painted = paint_body(chest, habitus, slab, at, mediastinum)
        paint_lungs(painted, tissue, lobation, lungs, slab, voxel)
        hu[slab.window], lobes[slab.window] = painted, lungs.lobes

    vessels = tube_coverage(trees.vessels, grid, lobes)
    vessels *= lobes > 0
    hu += vessels * (vessel_hu - hu).clamp(min=0)
    wall = tube_coverage(trees.airways.thicker(trees.wall_mm), grid, lobes)
    hu += wall * (WALL_HU - hu)
    lumen = tube_coverage(trees.airways, grid, lobes)
    hu += lumen * (lumen_hu - hu)
    aerated = (lobes > 0) & (hu < -600)
    airways = lumen > LUMEN_SHARE
    ct_hu = acquire(hu, aerated, tissue.grain_hu, scanner, spacing_mm, Draws(seed, NOISE))
    return {
        "ct_hu": ct_hu,
        "lobes": lobes,
        "airways": airways.to(torch.uint8),
        "vessels": ((vessels > VESSEL_SHARE) & ~airways).to(torch.uint8),
        "affine": _affine(shape, spacing_mm),
    }


def _check(seed: int, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> None:
    if not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed must be an integer of at least 0, got {seed!r}")
    if len(shape) != 3 or any(not isinstance(count, int) or count < 1 for count in shape):
        raise ValueError(f"shape must be three positive integers (x, y, z), got {shape}")
    if len(spacing_mm) != 3 or any(not (math.isfinite(step) and step > 0) for step in spacing_mm):
        raise ValueError(f"spacing_mm must be three positive numbers (x, y, z), got {spacing_mm}")


def _slabs(grid: Grid) -> list[Grid]:
    """The grid in pieces along z."""
    x, y, z = grid.shape
    thick = max(SLAB_VOXELS // (x * y), 1)
    whole = slice(None)
    return [
        Grid(grid.x, grid.y, grid.z[part], grid.spacing_mm, (whole, whole, part))
        for part in (slice(start, start + thick) for start in range(0, z, thick))
    ]


def _affine(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> Tensor:
    """Voxel index to RAS+ mm, with the grid's centre at 0."""
    x, y, z = (step * (count - 1) / 2 for count, step in zip(shape, spacing_mm, strict=True))
    sx, sy, sz = spacing_mm
    return torch.tensor([[-sx, 0, 0, x], [0, -sy, 0, y], [0, 0, sz, -z], [0, 0, 0, 1]], dtype=torch.float64)
