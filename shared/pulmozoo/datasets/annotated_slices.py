"""Scans of which some axial slices are outlined: ``slices.csv``, its split by subject, and the samples it stands for.

Layout: ``images/<id>.nii.gz`` (HU), ``labels/<id>.nii.gz`` with the lesion on annotated slices, where there are any
``lungs/<id>.nii.gz``, and a table with a row for each annotated slice. SR-Net's paper (Bermejo-Peláez et al., ISBI
2019) splits its 664 slices of 111 subjects so, 55, 20 and 25 percent.
"""

import logging
import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from monai.data import load_decathlon_datalist

from ..bundle.errors import BadInput
from ..files import whole, write_rows
from ..losses.weighted_dice import inverse_frequency_weights
from ..transforms.lungs import lungs_from_ct
from .film_list import read_table

TABLE = "slices.csv"
SHARES = {"training": 0.55, "validation": 0.20, "test": 0.25}
SMALLEST_CM2 = 0.23  # the paper's smallest lesion on a slice; less is not worth an outline
WITH_LESION, WITHOUT = 6, 2  # slices of a phantom that are taken
NIFTI = (".nii.gz", ".nii")
LABEL_FOLDERS = {"folders": "labels", "phantom": "paraseptal"}

logger = logging.getLogger(__name__)


class AnnotatedSlice(NamedTuple):
    """A row of the table; paths are relative to it or absolute, ``slice_index`` counts along the scan's axial axis."""

    subject_id: str
    image: str
    lung: str
    label: str
    slice_index: int
    split: str
    lesion_area_cm2: float


def subjects(dataset_dir: str | Path, split: str) -> list[dict[str, Any]]:
    """The subjects of a split: ``image``, ``label``, maybe ``lung_mask``, and ``slices``, the annotated ones.

    Without ``slices.csv`` they come from ``datalist.json``, and all slices of a label count as annotated. An empty
    ``dataset_dir`` has nobody to validate on.
    """
    folder = Path(dataset_dir)
    if not str(dataset_dir):
        if split == "training":
            raise BadInput("no data were given: expected --dataset_dir with slices.csv or datalist.json")
        return []
    if (folder / TABLE).is_file():
        return subjects_of_table(folder / TABLE, split)
    if not (folder / "datalist.json").is_file():
        raise BadInput(f"{folder} has neither {TABLE} nor datalist.json: write one with `pulmozoo prepare paraseptal`")
    entries = load_decathlon_datalist(str(folder / "datalist.json"), True, split, str(folder))
    return [{key: entry[key] for key in ("image", "label")} for entry in entries]


def subjects_of_table(table: Path, split: str) -> list[dict[str, Any]]:
    """As :func:`subjects`, from the rows of a table."""
    found: dict[str, dict[str, Any]] = {}
    for row in read_table(table, AnnotatedSlice._fields):
        if row["split"] == split:
            subject = found.setdefault(row["subject_id"], {"slices": []})
            subject |= {key: str(table.parent / row[key]) for key in ("image", "label")}
            if row["lung"]:
                subject["lung_mask"] = str(table.parent / row["lung"])
            subject["slices"].append(int(row["slice_index"]))
    return list(found.values())


def rows_by_subject(table: Path) -> list[dict[str, Any]]:
    """The subjects of a table, each with its ``rows``, in which paths are absolute; in the table's order."""
    found: dict[str, dict[str, Any]] = {}
    for row in read_table(table, AnnotatedSlice._fields):
        paths = {key: str((table.parent / row[key]).resolve()) for key in ("image", "lung", "label") if row[key]}
        found.setdefault(row["subject_id"], {"rows": []})["rows"].append(row | paths)
    return list(found.values())


def write_splits(path: Path, splits: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Write a table of what :func:`rows_by_subject` gave, by split."""
    rows = [
        {**row, "split": split} for split, subjects in splits.items() for subject in subjects for row in subject["rows"]
    ]
    write_rows(path, rows, AnnotatedSlice._fields)


def prepare_slices(data_dir: Path, output_dir: Path, layout: str, seed: int = 0) -> Path:
    """Write ``slices.csv`` and, where the data have none, ``lungs/<id>.nii.gz``; images and labels stay in place.

    Args:
        layout: folders, in which a slice is annotated if it holds lesion; or phantom, a cohort of ``pulmozoo phantom
            --disease emphysema``, whose labels are complete: some slices are taken, some of them without lesion.
        seed: of the split by subject.

    Returns the path of the table; BadInput if the data are not laid out so.
    """
    labels = data_dir / LABEL_FOLDERS[layout]
    names = sorted(path.name for path in labels.glob("*") if path.name.endswith(NIFTI))
    if not names:
        raise BadInput(f"{labels} holds no label: expected images/<id>.nii.gz and {labels.name}/<id>.nii.gz")
    splits = split_subjects(names, seed)
    rows: list[AnnotatedSlice] = []
    pixels = np.zeros(2)
    (output_dir / "lungs").mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names, start=1):
        image, label = data_dir / "images" / name, labels / name
        if not image.is_file():
            raise BadInput(f"{label} has no image: expected {image}")
        lung = data_dir / "lungs" / name
        if not lung.is_file():
            lung = output_dir / "lungs" / name
            write_lungs(image, lung)
        areas, pixel_cm2 = lesion_areas(read(label))
        lung_pixels = slices_area(read(lung))
        chosen = some_slices(areas, np.flatnonzero(lung_pixels)) if layout == "phantom" else np.flatnonzero(areas)
        subject = name[: -len(next(end for end in NIFTI if name.endswith(end)))]
        rows += [
            AnnotatedSlice(
                subject,
                relative(image, output_dir),
                relative(lung, output_dir),
                relative(label, output_dir),
                int(index),
                splits[name],
                round(float(areas[index]), 3),
            )
            for index in chosen
        ]
        if splits[name] == "training":
            lesion = areas[chosen].sum() / pixel_cm2
            pixels += lesion, lung_pixels[chosen].sum() - lesion
        logger.info("%d of %d: %s, %d slices", number, len(names), name, len(chosen))
    if not rows:
        raise BadInput(f"{labels} holds no lesion: expected outlines on some slices")
    write_table(output_dir / TABLE, rows)
    if pixels.min() > 0:
        background, lesion = inverse_frequency_weights(pixels[::-1].tolist())
        logger.info("class_weights of these training slices: [%.3f, %.3f]", background, lesion)
    return output_dir / TABLE


def split_subjects(names: Sequence[str], seed: int) -> dict[str, str]:
    """A split for each subject, drawn, in the paper's shares."""
    drawn = list(names)
    random.Random(seed).shuffle(drawn)
    training = round(SHARES["training"] * len(drawn))
    validation = training + round(SHARES["validation"] * len(drawn))
    order = ["training"] * training + ["validation"] * (validation - training)
    return dict(zip(drawn, order + ["test"] * (len(drawn) - validation), strict=True))


def read(path: Path) -> nib.Nifti1Image:
    """A NIfTI file."""
    return nib.Nifti1Image.from_filename(path)


def relative(path: Path, folder: Path) -> str:
    """The path as it is written into a table in the folder."""
    return os.path.relpath(path.resolve(), folder.resolve())


def axial_axis(affine: np.ndarray) -> int:
    """The axis of a volume that runs closest to the patient's long one."""
    return int(np.flatnonzero(nib.orientations.io_orientation(affine)[:, 0] == 2)[0])


def slices_area(mask: nib.Nifti1Image) -> np.ndarray:
    """Voxels that are not 0, by axial slice."""
    axis = axial_axis(mask.affine)
    return np.count_nonzero(np.asarray(mask.dataobj), axis=tuple(other for other in range(3) if other != axis))


def lesion_areas(label: nib.Nifti1Image) -> tuple[np.ndarray, float]:
    """Area of the lesion in cm², by axial slice, and that of a pixel."""
    axis = axial_axis(label.affine)
    sizes = np.linalg.norm(label.affine[:3, :3], axis=0)
    pixel_cm2 = float(np.prod(np.delete(sizes, axis))) / 100
    return slices_area(label) * pixel_cm2, pixel_cm2


def some_slices(areas: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Numbers of a few slices with lesion and of fewer without, each kind evenly spread over those with lung."""
    lesion, healthy = inside[areas[inside] >= SMALLEST_CM2], inside[areas[inside] == 0]
    return np.sort(np.concatenate([spread(lesion, WITH_LESION), spread(healthy, WITHOUT)]))


def spread(numbers: np.ndarray, count: int) -> np.ndarray:
    """At most ``count`` of some numbers, evenly spread, the ends left out."""
    if len(numbers) <= count:
        return numbers
    return numbers[((np.arange(count) + 0.5) * len(numbers) / count).astype(int)]


def write_lungs(image: Path, path: Path) -> None:
    """The lungs that inference would find, left 1 and right 2; files already there are kept."""
    if path.is_file():
        return
    scan = read(image)
    lungs = lungs_from_ct(np.asarray(scan.dataobj), scan.affine)
    with whole(path) as unfinished:
        nib.save(nib.Nifti1Image(lungs, scan.affine), unfinished)


def write_table(path: Path, rows: Sequence[AnnotatedSlice]) -> None:
    """Replace the table as a whole."""
    write_rows(path, [row._asdict() for row in rows], AnnotatedSlice._fields)
