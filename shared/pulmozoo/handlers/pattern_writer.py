"""What a run leaves of the tissue patterns in a CT: label map, DICOM SEG, numbers, picture."""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor

from .overlay import axial_sheet, canonical_pair, title_of
from .scan_writer import ScanWriter

LUNG_HU = (-1350.0, 150.0)
HEIGHTS = (0.75, 0.5, 0.25)  # of the shown slices, within the lungs; from above


class PatternWriter(ScanWriter):
    """As :class:`.scan_writer.ScanWriter`; the overlay shows three axial slices in the lung window.

    Args:
        colours: red, green and blue of label 1, 2, ..., 0 to 255.
    """

    def __init__(self, *args: Any, colours: Sequence[Sequence[int]], **more: Any) -> None:
        super().__init__(*args, **more)
        self.colours = [(red, green, blue) for red, green, blue in colours]

    def picture(self, data: Mapping[str, Any], path: Path) -> None:
        pattern_overlay_png(data["ct_hu"], data["pred"], path, self.named_labels(), self.colours)


def pattern_overlay_png(
    ct_hu: MetaTensor,
    labels: MetaTensor,
    path: str | PathLike[str],
    label_names: Mapping[int, str],
    colours: Sequence[tuple[int, int, int]],
) -> None:
    """Write axial slices at three heights of the lungs: the CT above, the labels on it below, a legend at the end.

    Args:
        ct_hu: ``(1, X, Y, Z)`` CT in Hounsfield units, with affine.
        labels: 0 outside the lungs; of the same shape and affine.
        path: the picture.
        label_names: what the legend says, by label.
        colours: of label 1, 2, ...
    """
    image, marks, spacing_mm = canonical_pair(ct_hu, labels)
    filled = np.flatnonzero(marks.any(axis=(0, 1)))
    indices = [int(filled[round(height * (len(filled) - 1))]) for height in HEIGHTS]
    picture = axial_sheet(image, marks, spacing_mm, indices, LUNG_HU, title_of(ct_hu), label_names, colours)
    picture.save(Path(path), format="PNG")
