"""CTs with lobe labels: any folder of them, and TotalSegmentator's data set.

Source of its layout and names: https://zenodo.org/records/10047292 (version 2): a folder a subject with ``ct.nii.gz``
and ``segmentations/<structure>.nii.gz``, and ``meta.csv``, parted by semicolons, with the columns ``image_id`` and
``split``.
"""

import csv
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from ..bundle.errors import BadInput, innermost_reason
from ..phantom.lobe_shape import LOBES
from ..transforms.lung_files import on_ct
from ..transforms.reading import read_ct
from .copdgene import split
from .film_list import LeftOut, write_lists
from .scans import VOLUME_SUFFIXES, find_scans

LAYOUTS = ("folders", "totalsegmentator")
STRUCTURES = {  # of TotalSegmentator: our number
    "lung_upper_lobe_left": LOBES["left upper"],
    "lung_lower_lobe_left": LOBES["left lower"],
    "lung_upper_lobe_right": LOBES["right upper"],
    "lung_lower_lobe_right": LOBES["right lower"],
    "lung_middle_lobe_right": LOBES["right middle"],
}
SPLITS = {"train": "training", "val": "validation", "test": "test"}

logger = logging.getLogger(__name__)

Entry = dict[str, str | int]
Labelled = tuple[str, Path, Path]  # id, CT, label


def prepare_lobes(data_dir: Path, output_dir: Path, layout: str, seed: int = 0) -> Path:
    """Write ``datalist.json``, ``left_out.csv`` and, from single masks, ``labels/<id>.nii.gz``; CTs stay in place.

    Every CT is read and its label held against it. Entries are ``image`` and ``label``, absolute paths; eight of ten
    are for training, one validates, one tests, unless the data set says otherwise.

    Args:
        data_dir: of ``folders``, ``images`` and ``labels`` (0, 1 LUL, 2 LLL, 3 RUL, 4 RLL, 5 RML) with files of one
            name; of ``totalsegmentator``, a folder a subject.
        output_dir: made if missing.
        layout: folders or totalsegmentator.
        seed: of the split.

    Returns the path of the datalist; raises BadInput if no CT has lobes.
    """
    left_out: list[LeftOut] = []
    found = joined_masks(data_dir, output_dir, left_out) if layout == LAYOUTS[1] else labelled(data_dir, left_out)
    entries: dict[str, Entry] = {}
    for name, image, label in found:
        try:
            check_lobes(image, label)
        except BadInput as error:
            left_out.append(LeftOut(str(image), innermost_reason(error)))
        else:
            entries[name] = {"image": str(image), "label": str(label)}
            logger.info("%d CTs with lobes, %d left out", len(entries), len(left_out))
    if not entries:
        reasons = "; ".join(dict.fromkeys(one.reason for one in left_out)) or "there is no CT"
        raise BadInput(f"{data_dir} holds nothing to learn lobes from: {reasons}")
    splits = own_splits(data_dir) if layout == LAYOUTS[1] else {}
    drawn = split([entry for name, entry in entries.items() if name not in splits], seed)
    for name, entry in entries.items():
        if name in splits:
            drawn[splits[name]].append(entry)
    write_lists(output_dir, drawn, left_out)
    return output_dir / "datalist.json"


def labelled(data_dir: Path, left_out: list[LeftOut]) -> Iterator[Labelled]:
    """CTs of ``images`` with a label of their name; those without are added to what is left out."""
    for scan in find_scans(data_dir / "images"):
        image = Path(scan["image"]).absolute()
        named = [data_dir.absolute() / "labels" / f"{scan['scan']}{suffix}" for suffix in VOLUME_SUFFIXES]
        label = next((path for path in named if path.is_file()), None)
        if label is None:
            left_out.append(LeftOut(str(image), f"there is no {named[0]}"))
        else:
            yield scan["scan"], image, label


def joined_masks(data_dir: Path, output_dir: Path, left_out: list[LeftOut]) -> Iterator[Labelled]:
    """TotalSegmentator's subjects with a label that is written of their five masks; those without are left out."""
    (output_dir / "labels").mkdir(parents=True, exist_ok=True)
    for image in sorted(data_dir.absolute().glob("*/ct.nii.gz")):
        subject, masks = image.parent.name, image.parent / "segmentations"
        missing = [name for name in STRUCTURES if not (masks / f"{name}.nii.gz").is_file()]
        if missing:
            left_out.append(LeftOut(str(image), f"there is no {masks / missing[0]}.nii.gz"))
            continue
        path = output_dir.absolute() / "labels" / f"{subject}.nii.gz"
        unfinished = path.with_name(f"unfinished_{path.name}")
        nib.save(joined({STRUCTURES[name]: masks / f"{name}.nii.gz" for name in STRUCTURES}), unfinished)
        unfinished.replace(path)
        yield subject, image, path


def joined(masks: Mapping[int, Path]) -> nib.Nifti1Image:
    """One label map of several masks on one grid; where two overlap the later one holds."""
    first = nib.Nifti1Image.from_filename(next(iter(masks.values())))
    labels = np.zeros(first.shape, dtype=np.uint8)
    for number, path in masks.items():
        labels[np.asarray(nib.Nifti1Image.from_filename(path).dataobj) > 0] = number
    return nib.Nifti1Image(labels, first.affine)


def check_lobes(image: Path, label: Path) -> None:
    """Raise BadInput unless the CT can be read, the label lies on its grid and holds lobes and nothing else."""
    values = torch.unique(on_ct(label, read_ct(image)).as_tensor()).tolist()
    if max(values) > max(LOBES.values()):
        raise BadInput(f"{label} holds {max(values)}: expected 0 to {max(LOBES.values())}, the lobes' numbers")
    if max(values) == 0:
        raise BadInput(f"{label} holds no lobe")


def own_splits(data_dir: Path) -> dict[str, str]:
    """Where TotalSegmentator itself puts its subjects; empty without its table."""
    table = data_dir / "meta.csv"
    if not table.is_file():
        return {}
    with table.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    return {row["image_id"]: SPLITS[row["split"]] for row in rows if row.get("split") in SPLITS}
