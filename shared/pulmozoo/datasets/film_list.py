"""What the preparation of film data sets shares: cases, a balanced split by patient, and the files that are written."""

import csv
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..bundle.errors import BadInput
from ..files import whole, write_json, write_rows


class FilmCase(NamedTuple):
    """One film: where it is, where its mask is (relative to the datalist), whether it shows a pneumothorax, of whom."""

    image: str
    label: str
    pneumothorax: int
    patient: str


class LeftOut(NamedTuple):
    """What was not taken, and why."""

    image: str
    reason: str


def balanced(cases: Sequence[FilmCase], seed: int) -> tuple[list[FilmCase], list[LeftOut]]:
    """As many films without as with a pneumothorax: all of the rarer kind, and as many of the other, drawn at random.

    Source: Viel and Orhan 2020, who drew 2,669 negatives of SIIM-ACR to its 2,669 positives.
    """
    kinds = [[case for case in cases if case.pneumothorax == kind] for kind in (0, 1)]
    count = min(len(kind) for kind in kinds)
    draw = random.Random(seed)
    kept = {case for kind in kinds for case in draw.sample(kind, count)}
    others = [LeftOut(case.image, "not drawn for the balanced set") for case in cases if case not in kept]
    return [case for case in cases if case in kept], others


def halves(cases: Sequence[FilmCase], seed: int) -> dict[str, list[FilmCase]]:
    """Cases as ``training`` and ``validation``: half of those with and half of those without a pneumothorax in each.

    A patient is in one half only; patients with a pneumothorax on any film are dealt first. Source: the two folds of
    Viel and Orhan 2020, who split by image.
    """
    patients: dict[str, list[FilmCase]] = {}
    for case in cases:
        patients.setdefault(case.patient, []).append(case)
    order = sorted(patients)
    random.Random(seed).shuffle(order)
    split: dict[str, list[FilmCase]] = {"training": [], "validation": []}
    counts = {name: Counter[int]() for name in split}
    for kind in (1, 0):
        for patient in [name for name in order if max(case.pneumothorax for case in patients[name]) == kind]:
            *_, half = min((counts[name][kind], counts[name].total(), name) for name in split)
            split[half] += patients[patient]
            counts[half].update(case.pneumothorax for case in patients[patient])
    return split


def write_mask(mask: np.ndarray, path: Path) -> None:
    """Write a mask ``(rows, columns)`` as PNG, 0 and 255; nothing half-written stays."""
    with whole(path) as unfinished:
        Image.fromarray((mask > 0).astype(np.uint8) * 255).save(unfinished, format="PNG")


def write_lists(folder: Path, datalist: Mapping[str, Sequence[Mapping[str, Any]]], left_out: Iterable[LeftOut]) -> None:
    """Write ``left_out.csv`` and, last, ``datalist.json`` in MONAI's form."""
    write_rows(folder / "left_out.csv", [each._asdict() for each in left_out], LeftOut._fields)
    write_json(folder / "datalist.json", datalist)


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a csv file, blanks around names and values removed; raises BadInput if a column is missing."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [
            {name.strip(): (value or "").strip() for name, value in row.items() if name}  # no name: a value too many
            for row in csv.DictReader(file)
        ]
    missing = [name for name in columns if not rows or name not in rows[0]]
    if missing:
        raise BadInput(f"{path} has no rows with {', '.join(missing)}: expected a csv with {', '.join(columns)}")
    return rows
