"""Contours of the HUG multimedia database of interstitial lung diseases (ILD_DB_txtROIs).

Source: Depeursinge et al., Computerized Medical Imaging and Graphics 2012;36:227-238. A folder a patient with DICOM
files ``CT-<number>-<slice>.dcm`` and one text file: ``SpacingX: mm``, ``SpacingY: mm``, for each tissue ``label:``, for
each slice ``slice_number:``, for each contour ``nb_points_on_contour:`` and as many lines ``x y`` in mm.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from skimage.draw import polygon

from ..bundle.errors import BadInput
from .dicom_series import read_headers, slices_of, stack

# Tissues that LungNet tells apart. Fibrosis is not among them: it may be reticulation or honeycombing.
TISSUES = {
    "healthy": 1,
    "ground_glass": 2,
    "micronodules": 3,
    "consolidation": 4,
    "reticulation": 5,
    "honeycombing": 6,
}


class Contour(NamedTuple):
    """One outlined region: ``points`` are ``(N, 2)``, column and row in pixels."""

    label: str
    slice_number: int
    points: np.ndarray


def read_contours(path: Path) -> list[Contour]:
    """The contours of a text file; BadInput says what is wrong with it."""
    lines = iter(path.read_text(encoding="utf-8", errors="replace").splitlines())
    try:
        return list(_contours(lines))
    except (ValueError, KeyError, StopIteration, RuntimeError) as error:
        raise BadInput(
            f"{path} is no list of contours as the HUG database has it ({error}): download it again"
        ) from error


def _contours(lines: Iterator[str]) -> Iterator[Contour]:
    known: dict[str, str] = {}
    for line in lines:
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "nb_points_on_contour":
            points = np.array([[float(number) for number in next(lines).split()] for _ in range(int(value))])
            spacing_mm = [float(known["SpacingX"]), float(known["SpacingY"])]
            yield Contour(known["label"], int(known["slice_number"]), points.reshape(-1, 2) / spacing_mm)
        elif value:
            known[key] = value


def annotation_of(folder: Path) -> nib.Nifti1Image:
    """The contours of a patient's folder as labels on the grid of its CT; BadInput for what cannot be used.

    Slices are told by the number at the end of the names of their files.
    """
    texts = sorted(folder.glob("*.txt"))
    if len(texts) != 1:
        raise BadInput(f"{folder} holds {len(texts)} text files: expected one with the contours")
    slices, affine = stack(
        [one for file, header in read_headers(folder).items() for one in slices_of(file, header)], folder
    )
    places = {number_of(one.file): index for index, one in enumerate(slices)}
    rows, columns = slices[0].size
    label = np.zeros((columns, rows, len(slices)), dtype=np.uint8)
    for contour in read_contours(texts[0]):
        if contour.label not in TISSUES:
            continue
        if contour.slice_number not in places:
            raise BadInput(f"{texts[0]} outlines slice {contour.slice_number}, which is not in {folder}")
        x, y = contour.points.T
        inside = polygon(y, x, shape=(rows, columns))
        label[inside[1], inside[0], places[contour.slice_number]] = TISSUES[contour.label]
    image = nib.Nifti1Image(label, affine)
    image.header.set_xyzt_units("mm")
    return image


def number_of(file: Path) -> int:
    """The number at the end of a file's name, -1 without one."""
    found = re.search(r"(\d+)$", file.stem)
    return int(found.group(1)) if found else -1
