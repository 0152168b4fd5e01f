"""CTs with annotated tissue patterns, split into folds in which the patterns are evenly mixed."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np

from ..bundle.errors import BadInput, innermost_reason
from ..files import whole, write_rows
from .annotations import annotated_pixels
from .film_list import LeftOut, write_lists
from .folds import entropy_folds
from .hug import TISSUES, annotation_of
from .scans import find_scans

FOLDS = 5
SPLITS = {"validation": (3,), "test": (4,)}  # the other folds are for training
CLASSES = len(TISSUES)
LAYOUTS = ("hug", "folders")

logger = logging.getLogger(__name__)


class AnnotatedScan(NamedTuple):
    """Paths are absolute; ``pixels`` are those of each class, ``slices`` how many hold an annotation."""

    scan_id: str
    image: Path
    label: Path
    lung_mask: Path | None
    pixels: np.ndarray
    slices: int


def prepare_patterns(data_dir: Path, output_dir: Path, layout: str, seed: int = 0) -> Path:
    """Write ``datalist.json``, ``folds.csv``, ``left_out.csv`` and, from contours, ``labels/<id>.nii.gz``.

    Entries are ``image``, ``label``, ``fold`` and, where there is one, ``lung_mask``. Of five folds three train, one
    validates, one tests.

    Args:
        data_dir: of ``folders``, ``images`` and ``labels`` (0 not annotated, 1 to 6) with files of one name, maybe
            ``lungs``; of ``hug``, a folder a patient, see :mod:`.hug`.
        output_dir: made if missing.
        layout: folders or hug.
        seed: of the folds.

    Returns the path of the datalist; raises BadInput if fewer scans are annotated than there are folds.
    """
    scans: list[AnnotatedScan] = []
    left_out: list[LeftOut] = []
    found = hug_labels(data_dir, output_dir, left_out) if layout == "hug" else folder_labels(data_dir, left_out)
    for scan_id, image, label, lung_mask in found:
        try:
            pixels = annotated_pixels(str(label), CLASSES)
        except BadInput as error:
            left_out.append(LeftOut(str(image), innermost_reason(error)))
            continue
        if pixels.any():
            planes = np.asarray(nib.Nifti1Image.from_filename(label).dataobj).any(axis=(0, 1))
            scans.append(AnnotatedScan(scan_id, image, label, lung_mask, pixels, int(planes.sum())))
        else:
            left_out.append(LeftOut(str(image), "none of the six patterns is annotated"))
    folds = entropy_folds(np.array([scan.pixels for scan in scans]).reshape(-1, CLASSES), FOLDS, seed).tolist()
    others = {fold: name for name, numbers in SPLITS.items() for fold in numbers}
    datalist: dict[str, list[dict[str, str | int]]] = {"training": [], **{name: [] for name in SPLITS}}
    for scan, fold in zip(scans, folds, strict=True):
        mask = {} if scan.lung_mask is None else {"lung_mask": str(scan.lung_mask)}
        entry = {"image": str(scan.image), "label": str(scan.label), **mask, "fold": fold}
        datalist[others.get(fold, "training")].append(entry)
    rows = [
        {"scan_id": scan.scan_id, "source": layout, "fold": fold, "n_slices": scan.slices}
        for scan, fold in zip(scans, folds, strict=True)
    ]
    write_rows(output_dir / "folds.csv", rows, rows[0])
    write_lists(output_dir, datalist, left_out)
    logger.info("%d scans in %d folds, %d left out", len(scans), FOLDS, len(left_out))
    return output_dir / "datalist.json"


Found = tuple[str, Path, Path, Path | None]


def folder_labels(data_dir: Path, left_out: list[LeftOut]) -> Iterator[Found]:
    """Scans of ``images`` with a label of their name; those without are added to what is left out."""
    for scan in find_scans(data_dir / "images"):
        image = Path(scan["image"]).absolute()
        label, mask = (data_dir.absolute() / part / f"{scan['scan']}.nii.gz" for part in ("labels", "lungs"))
        if label.is_file():
            yield scan["scan"], image, label, mask if mask.is_file() else None
        else:
            left_out.append(LeftOut(str(image), f"there is no {label}"))


def hug_labels(data_dir: Path, output_dir: Path, left_out: list[LeftOut]) -> Iterator[Found]:
    """Patients' folders, each with the label that is written of its contours; those that fail are left out."""
    labels = output_dir.absolute() / "labels"
    for scan in find_scans(data_dir):
        image = Path(scan["image"]).absolute()
        path = labels / f"{scan['scan']}.nii.gz"
        try:
            drawn = annotation_of(image)
        except BadInput as error:
            left_out.append(LeftOut(str(image), innermost_reason(error)))
            continue
        with whole(path) as unfinished:
            nib.save(drawn, unfinished)
        yield scan["scan"], image, path, None
