"""A synthetic chest CT with exact labels: the entry point of the phantom."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .acquisition import acquire
from .artefacts import find_marks
from .fields import Draws
from .grain import lung_grain
from .scan_grid import ScanGrid
from .scanner import Scanner, draw_scanner
from .scene import Disease, draw_subject, paint_diseases, paint_scene

NOISE, GRAIN, SCANNER = 1, 3, 4  # streams of random numbers, beside that of the anatomy
ENHANCED_HU = 80.0  # blood as dense as this holds contrast agent


def thorax(
    seed: int,
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    device: str | torch.device = "cpu",
    diseases: Sequence[Disease] = (),
    scanner: Scanner | None = None,
) -> dict[str, Tensor]:
    """One synthetic chest CT with lobes, airways and vessels.

    Axes are (x, y, z), index rising to the patient's left, posterior and superior. The chest's centre is the grid's
    centre: a small grid cuts the chest, a large one has air around it. A seed is the same anatomy on every grid.

    Args:
        seed: which chest, 0 or more.
        shape: voxels along x, y, z.
        spacing_mm: voxel size along x, y, z.
        device: where to compute; the result stays there, but for the affine.
        diseases: what else to paint, see :class:`.scene.Disease`; each adds its label under its name and
            finds :func:`.parenchyma.normal_tissue` to paint on.
        scanner: how the scan is made; without it, kernel, noise, slices and artefacts are drawn from the seed.

    Returns ``ct_hu`` int16, ``lobes`` uint8 (1 left upper, 2 left lower, 3 right upper, 4 right lower, 5 right middle),
    ``airways`` uint8 (1 lumen), ``vessels`` uint8 (1 artery, 2 vein; within the lungs), the labels of the diseases,
    all of the given shape, and ``affine`` ``(4, 4)`` float64 from voxel index to RAS+ mm.
    """
    _check(seed, shape, spacing_mm)
    subject = draw_subject(seed)
    if diseases:
        subject = subject.with_normal_tissue()
    if scanner is None:
        scanner = draw_scanner(Draws(seed, SCANNER), spacing_mm)
    scan = ScanGrid(shape, spacing_mm, scanner)
    scene = paint_scene(subject, scan.painted(device))
    labels = {
        "lobes": scene.lobes,
        "airways": scene.airways,
        "vessels": scene.vessels,
        **paint_diseases(scene, seed, diseases),
    }
    aerated = (scene.lobes > 0) & (scene.hu < -600)
    tissue, grain = subject.tissue, Draws(seed, GRAIN)
    lung_grain(scene.hu, aerated, tissue.grain_hu, scene.grid.spacing_mm, grain, tissue.grain_skew)
    marks = find_marks(subject.chest, enhanced=subject.habitus.blood_hu >= ENHANCED_HU)
    return {
        "ct_hu": acquire(scene.hu, scan, marks, Draws(seed, NOISE)),
        **{name: scan.labels(label) for name, label in labels.items()},
        "affine": scan.affine(),
    }


def _check(seed: int, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> None:
    if not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed must be an integer of at least 0, got {seed!r}")
    if len(shape) != 3 or any(not isinstance(count, int) or count < 1 for count in shape):
        raise ValueError(f"shape must be three positive integers (x, y, z), got {shape}")
    if len(spacing_mm) != 3 or any(not (math.isfinite(step) and step > 0) for step in spacing_mm):
        raise ValueError(f"spacing_mm must be three positive numbers (x, y, z), got {spacing_mm}")
