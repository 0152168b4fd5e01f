"""CTs with lobe labels: any folder of them, and data sets as they are downloaded.

Sources of layouts and names:

- TotalSegmentator: https://zenodo.org/records/10047292 (version 2): a folder a subject with ``ct.nii.gz`` and
  ``segmentations/<structure>.nii.gz``, and ``meta.csv``, parted by semicolons, with the columns ``image_id`` and
  ``split``.
- LUNA16, https://luna16.grand-challenge.org: ``subset0`` to ``subset9`` with ``<series>.mhd``; lobes of 50 of them by
  Tang et al., https://arxiv.org/abs/1903.09879: ``<series>_LobeSegmentation.nrrd``, numbered as in the Chest Imaging
  Platform (region in the low byte: 4 RUL, 5 RML, 6 RLL, 7 LUL, 8 LLL; what kind of tissue in the high byte).
- LOLA11, https://lola11.grand-challenge.org: ``lola11-01`` to ``lola11-55``, whose lobes are not published.
- COPDGene's own files have no lobes: the layout is ours.
"""

import csv
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import torch

from ..bundle.errors import BadInput, innermost_reason
from ..files import whole
from ..phantom.lobe_shape import LOBES
from ..transforms.lung_files import on_ct, read_labels
from ..transforms.reading import read_ct
from .copdgene import split
from .film_list import LeftOut, write_lists
from .scans import VOLUME_SUFFIXES, find_scans

STRUCTURES = {  # of TotalSegmentator: our number
    "lung_upper_lobe_left": LOBES["left upper"],
    "lung_lower_lobe_left": LOBES["left lower"],
    "lung_upper_lobe_right": LOBES["right upper"],
    "lung_lower_lobe_right": LOBES["right lower"],
    "lung_middle_lobe_right": LOBES["right middle"],
}
SPLITS = {"train": "training", "val": "validation", "test": "test"}
REGIONS = {  # of the Chest Imaging Platform: our number
    0: 0,
    1: 0,  # lung that nobody gave to a lobe
    4: LOBES["right upper"],
    5: LOBES["right middle"],
    6: LOBES["right lower"],
    7: LOBES["left upper"],
    8: LOBES["left lower"],
}
LUNG_MASKS = "seg-lungs-LUNA16"  # a folder of LUNA16 with files named as the CTs
LOBES_OF_LUNA16 = "_LobeSegmentation.nrrd"
LOBES_BESIDE = "_lobes"

logger = logging.getLogger(__name__)

Entry = dict[str, str | int]


class LobeScan(NamedTuple):
    """A CT and its label; scans of one subject stay in one split."""

    name: str
    subject: str
    image: Path
    label: Path


def prepare_lobes(data_dir: Path, output_dir: Path, layout: str, seed: int = 0) -> Path:
    """Write ``datalist.json``, ``left_out.csv`` and, where labels have to be made, ``labels/<id>.nii.gz``.

    CTs stay in place. Every one is read and its label held against it. Entries are ``image`` and ``label``, absolute
    paths; of ten subjects eight are for training, one validates, one tests, unless the data set says otherwise.

    Args:
        data_dir: of ``folders``, ``images`` and ``labels`` (0, 1 LUL, 2 LLL, 3 RUL, 4 RLL, 5 RML) with files of one
            name; of ``copdgene``, a folder a subject with such labels as ``<scan>_lobes.nii.gz`` beside each CT; of
            ``totalsegmentator``, a folder a subject; of ``luna16``, the subsets and the lobes by Tang et al.; of
            ``lola11``, the CTs, which are all for testing and have no ``label``.
        output_dir: made if missing.
        layout: one of ``LAYOUTS``.
        seed: of the split.

    Returns the path of the datalist; raises BadInput if no CT has lobes.
    """
    if layout == "lola11":
        return prepare_unlabelled(data_dir, output_dir)
    left_out: list[LeftOut] = []
    subjects: dict[str, list[Entry]] = {}
    for name, subject, image, label in FINDERS[layout](data_dir, output_dir, left_out):
        try:
            check_lobes(image, label)
        except BadInput as error:
            left_out.append(LeftOut(str(image), innermost_reason(error)))
        else:
            subjects.setdefault(subject, []).append({"image": str(image), "label": str(label)})
            logger.info("%s has lobes, %d left out", name, len(left_out))
    if not subjects:
        reasons = "; ".join(dict.fromkeys(one.reason for one in left_out)) or "there is no CT"
        raise BadInput(f"{data_dir} holds nothing to learn lobes from: {reasons}")
    given = own_splits(data_dir) if layout == "totalsegmentator" else {}
    drawn = split([subject for subject in subjects if subject not in given], seed)
    for subject in subjects:
        if subject in given:
            drawn[given[subject]].append(subject)
    entries = {part: [entry for name in names for entry in subjects[name]] for part, names in drawn.items()}
    write_lists(output_dir, entries, left_out)
    return output_dir / "datalist.json"


def prepare_unlabelled(data_dir: Path, output_dir: Path) -> Path:
    """Write the lists of CTs without labels: each is read, and is for testing; raises BadInput if there is none."""
    entries: list[Entry] = []
    left_out: list[LeftOut] = []
    for scan in find_scans(data_dir):
        image = Path(scan["image"]).absolute()
        try:
            read_ct(image)
        except BadInput as error:
            left_out.append(LeftOut(str(image), innermost_reason(error)))
        else:
            entries.append({"image": str(image)})
    if not entries:
        raise BadInput(f"{data_dir} holds no CT that can be read: {'; '.join(one.reason for one in left_out)}")
    write_lists(output_dir, {"training": [], "validation": [], "test": entries}, left_out)
    logger.info("%d CTs without labels, to run and not to score: pulmozoo run lobes %s OUT", len(entries), data_dir)
    return output_dir / "datalist.json"


def in_folders(data_dir: Path, output_dir: Path, left_out: list[LeftOut]) -> Iterator[LobeScan]:
    """CTs of ``images`` with a label of their name; those without are added to what is left out."""
    for scan in find_scans(data_dir / "images"):
        image = Path(scan["image"]).absolute()
        named = [data_dir.absolute() / "labels" / f"{scan['scan']}{suffix}" for suffix in VOLUME_SUFFIXES]
        yield from labelled(scan["scan"], scan["scan"], image, named, left_out)


def beside(data_dir: Path, output_dir: Path, left_out: list[LeftOut]) -> Iterator[LobeScan]:
    """CTs with ``<scan>_lobes`` beside them, by subject: the first folder; those without are left out."""
    for scan in find_scans(data_dir.absolute()):
        image = Path(scan["image"])
        stem = next((image.name[: -len(end)] for end in VOLUME_SUFFIXES if image.name.endswith(end)), image.name)
        if not stem.endswith(LOBES_BESIDE):
            named = [image.with_name(f"{stem}{LOBES_BESIDE}{suffix}") for suffix in VOLUME_SUFFIXES]
            subject = image.relative_to(data_dir.absolute()).parts[0]
            yield from labelled(scan["scan"], subject, image, named, left_out)


def labelled(
    name: str, subject: str, image: Path, named: Sequence[Path], left_out: list[LeftOut]
) -> Iterator[LobeScan]:
    """The CT with the first of the labels that is there; it is left out where none is."""
    label = next((path for path in named if path.is_file()), None)
    if label is None:
        left_out.append(LeftOut(str(image), f"there is no {named[0]}"))
    else:
        yield LobeScan(name, subject, image, label)


def of_luna16(data_dir: Path, output_dir: Path, left_out: list[LeftOut]) -> Iterator[LobeScan]:
    """LUNA16's CTs with lobes in our numbers; CTs without lobes, and lobes without a CT, are left out."""
    found = sorted(path for path in data_dir.absolute().glob("**/*.mhd") if path.parent.name != LUNG_MASKS)
    images = {path.stem: path for path in found}
    for source in sorted(data_dir.absolute().glob(f"**/*{LOBES_OF_LUNA16}")):
        series = source.name.removesuffix(LOBES_OF_LUNA16)
        image = images.pop(series, None)
        path = output_dir.absolute() / "labels" / f"{series}.nii.gz"
        try:
            if image is None:
                raise BadInput(f"there is no {series}.mhd")
            with whole(path) as unfinished:
                nib.save(renumbered(source), unfinished)
        except BadInput as error:
            left_out.append(LeftOut(str(image or source), innermost_reason(error)))
        else:
            yield LobeScan(series, series, image, path)
    left_out += [LeftOut(str(image), f"there is no {name}{LOBES_OF_LUNA16}") for name, image in images.items()]


def renumbered(path: Path) -> nib.Nifti1Image:
    """Lobes of the Chest Imaging Platform in our numbers; BadInput where a voxel is of another region."""
    labels = read_labels(path)
    regions = labels.as_tensor()[0].round().long() % 256
    strange = sorted(set(regions.unique().tolist()) - set(REGIONS))
    if strange:
        raise BadInput(f"{path} holds region {strange[0]}: expected {', '.join(map(str, REGIONS))}")
    table = torch.zeros(max(REGIONS) + 1, dtype=torch.uint8)
    for region, lobe in REGIONS.items():
        table[region] = lobe
    return nib.Nifti1Image(table[regions].numpy(), labels.affine.numpy())


def of_totalsegmentator(data_dir: Path, output_dir: Path, left_out: list[LeftOut]) -> Iterator[LobeScan]:
    """TotalSegmentator's subjects with a label that is written of their five masks; those without are left out."""
    for image in sorted(data_dir.absolute().glob("*/ct.nii.gz")):
        subject, masks = image.parent.name, image.parent / "segmentations"
        missing = [name for name in STRUCTURES if not (masks / f"{name}.nii.gz").is_file()]
        if missing:
            left_out.append(LeftOut(str(image), f"there is no {masks / missing[0]}.nii.gz"))
            continue
        path = output_dir.absolute() / "labels" / f"{subject}.nii.gz"
        with whole(path) as unfinished:
            nib.save(joined({STRUCTURES[name]: masks / f"{name}.nii.gz" for name in STRUCTURES}), unfinished)
        yield LobeScan(subject, subject, image, path)


FINDERS: Mapping[str, Callable[[Path, Path, list[LeftOut]], Iterator[LobeScan]]] = {
    "folders": in_folders,
    "totalsegmentator": of_totalsegmentator,
    "copdgene": beside,
    "luna16": of_luna16,
}
LAYOUTS = (*FINDERS, "lola11")


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
