"""What a run leaves of a CT with a lesion: as of any CT, but the picture shows the axial slices with most of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.data import MetaTensor

from .overlay import axial_sheet, canonical_pair, title_of
from .scan_writer import ScanWriter

PANELS = 3
APART_MM = 15.0  # between the slices that are shown, so that they do not all show the same spot
WINDOW_HU = (-1000.0, -500.0)  # narrower than the lung window: a cyst is hardly darker than lung
AXIAL, THROUGH = (0, 1), 2


class LesionWriter(ScanWriter):
    """As :class:`.scan_writer.ScanWriter` with a picture of the slices with the largest lesion."""

    def picture(self, data: Mapping[str, Any], path: Path) -> None:
        largest_slices_png(data["ct_hu"], data["pred"], data["lungs"], path, self.named_labels())


def largest_slices_png(
    ct_hu: MetaTensor, labels: MetaTensor, lungs: MetaTensor, path: Path, label_names: Mapping[int, str]
) -> None:
    """Write axial slices, the CT above and the labels on it below, with a legend; patient right is on the left.

    They are those with the largest labelled areas at some distance from each other, top of the patient first; without a
    label the middle of the lungs.

    Args:
        ct_hu, labels, lungs: ``(1, X, Y, Z)`` on one grid.
        path: the picture.
        label_names: what the legend says, by label.
    """
    image, marks, spacing_mm = canonical_pair(ct_hu, labels)
    inside = nib.orientations.apply_orientation(
        lungs.as_tensor()[0].cpu().numpy(), nib.orientations.io_orientation(lungs.affine.cpu().numpy())
    )
    indices = slices_to_show((marks > 0).sum(axis=AXIAL), inside.any(axis=AXIAL), float(spacing_mm[THROUGH]))
    picture = axial_sheet(image, marks, spacing_mm, indices, WINDOW_HU, title_of(ct_hu), label_names)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, format="PNG")


def slices_to_show(areas: np.ndarray, with_lung: np.ndarray, slice_mm: float) -> Sequence[int]:
    """Numbers of up to three slices, the last first: largest areas at least 15 mm apart, or the middle of the lungs."""
    if not areas.any():
        return [int(np.median(np.flatnonzero(with_lung)))]
    left = areas.astype(float)
    shown: list[int] = []
    while left.any() and len(shown) < PANELS:
        shown.append(int(left.argmax()))
        left[np.abs(np.arange(len(left)) - shown[-1]) * slice_mm < APART_MM] = 0
    return sorted(shown, reverse=True)
