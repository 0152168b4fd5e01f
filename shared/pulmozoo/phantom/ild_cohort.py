"""A cohort with interstitial lung disease: thin slices far apart or volumes, and annotations as radiologists draw them.

As LungNet's data, https://arxiv.org/abs/1803.06167: of 172 scans 109 with 10 to 15 mm between slices of 1 to 2 mm.
"""

import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from ..files import whole
from .annotation import draw_annotation
from .exam import Exam
from .fields import Draws
from .ild import ILDPatterns
from .scene import Disease

GAPPED_SHARE = 0.9  # more than there, since a volume takes ten times as long to paint
PIXEL_MM = (1.1, 1.5)
GAPPED_MM, THIN_MM = (10.0, 15.0), (1.0, 1.5)  # from slice to slice, and their thickness
VOLUMETRIC_MM = (1.5, 1.85)
ANNOTATIONS = "annotations"


def draw_ild(draws: Draws) -> list[Disease]:
    """The one disease of a subject, which draws its patterns itself."""
    return [ILDPatterns()]


def high_resolution(exam: Exam, draws: Draws) -> Exam:
    """The same field of view in small pixels, in thin slices far apart or as a volume."""
    x_mm, y_mm, z_mm = (count * step for count, step in zip(exam.shape, exam.spacing_mm, strict=True))
    pixel = draws.uniform(*PIXEL_MM)
    gapped = draws.chance(GAPPED_SHARE)
    step = draws.uniform(*(GAPPED_MM if gapped else VOLUMETRIC_MM))
    scanner = replace(exam.scanner, slice_mm=draws.uniform(*THIN_MM) if gapped else step)
    if gapped:
        scanner = replace(scanner, turn_degrees=(0.0, 0.0, 0.0))
    shape = (max(round(x_mm / pixel), 1), max(round(y_mm / pixel), 1), max(round(z_mm / step), 1))
    return Exam(shape, (pixel, pixel, step), scanner, exam.axes)


def write_annotations(folder: Path, subjects: Sequence[str]) -> None:
    """Write ``annotations/<id>.nii.gz`` of the full label maps on disk, on their grids; files already there stay."""
    for subject in subjects:
        path = folder / ANNOTATIONS / f"{subject}.nii.gz"
        if not path.exists():
            full = nib.Nifti1Image.from_filename(folder / ILDPatterns.name / path.name)
            with whole(path) as unfinished:
                nib.save(annotated(full, Draws(zlib.crc32(subject.encode()))), unfinished)


def annotated(full: nib.Nifti1Image, draws: Draws) -> nib.Nifti1Image:
    """The annotation of a full label map with any axes."""
    upright = nib.as_closest_canonical(full)
    label = torch.from_numpy(np.asarray(upright.dataobj).astype(np.uint8))
    x, y, z = (float(step) for step in upright.header.get_zooms()[:3])
    drawn = nib.Nifti1Image(draw_annotation(label, (x, y, z), draws).numpy(), upright.affine)
    own = nib.orientations.io_orientation(full.affine)
    back = drawn.as_reoriented(nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), own))
    back.header.set_xyzt_units("mm")
    return back
