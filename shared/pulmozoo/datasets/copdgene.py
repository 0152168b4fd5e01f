"""CTs with a table of visual emphysema scores, as COPDGene has them.

Column names: Xie et al., Scientific Reports 2023, https://doi.org/10.1038/s41598-023-40116-6 (the published program).
"""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from ..bundle.errors import BadInput
from ..metrics.emphysema_scores import CLE, PSE, Scale
from .emphysema_list import COLUMNS
from .film_list import LeftOut, read_table, write_lists
from .scans import find_scans

SUBJECT = ("SeriesInstanceUID", "subject")  # whichever column the table has; it is the name of the CT
SCALES: Mapping[str, Scale] = {"cle_score": CLE, "pse_score": PSE}
LAYOUTS = ("copdgene",)
SPLITS = {"validation": 0.1, "test": 0.1}  # the rest is for training

Entry = dict[str, str | int]
T = TypeVar("T")


def prepare_scored(data_dir: Path, output_dir: Path, layout: str = LAYOUTS[0], seed: int = 0) -> Path:
    """Write ``datalist.json`` and ``left_out.csv`` of ``images``, maybe ``lung_masks``, and one table beside them.

    Entries are ``image``, ``cle_score``, ``pse_score`` and, where a mask has the name of the CT, ``lung_mask``; paths
    are absolute. Eight of ten are for training, one validates, one tests.

    Args:
        data_dir: holds the two folders and the table (csv).
        output_dir: made if missing.
        layout: copdgene, the only one there is.
        seed: of the split.

    Returns the path of the datalist; raises BadInput without a table or without a scored CT.
    """
    table = scores_of(data_dir)
    entries: list[Entry] = []
    left_out: list[LeftOut] = []
    masks = masks_in(data_dir / "lung_masks")
    for scan in find_scans(data_dir / "images"):
        name = scan["scan"].split("__")[-1]
        scores = table.pop(name, "it has no row in the table")
        if isinstance(scores, str):
            left_out.append(LeftOut(scan["image"], scores))
        else:
            mask = {"lung_mask": masks[name]} if name in masks else {}
            entries.append({"image": str(Path(scan["image"]).absolute()), **mask, **scores})
    if not entries:
        raise BadInput(f"{data_dir} holds no scored CT: expected images named as the rows of the table")
    left_out += [LeftOut(name, "there is no CT for this row") for name in table]
    write_lists(output_dir, split(entries, seed), left_out)
    return output_dir / "datalist.json"


def scores_of(data_dir: Path) -> dict[str, dict[str, int] | str]:
    """Scores by subject, or why a row has none."""
    tables = sorted(data_dir.glob("*.csv"))
    if len(tables) != 1:
        raise BadInput(f"{data_dir} holds {len(tables)} tables: expected one csv with {', '.join(COLUMNS.values())}")
    rows = read_table(tables[0], list(COLUMNS.values()))
    key = next((name for name in SUBJECT if name in rows[0]), None)
    if key is None:
        raise BadInput(f"{tables[0]} names no CT: expected a column {' or '.join(SUBJECT)}")
    return {row[key]: _scores(row) for row in rows}


def _scores(row: Mapping[str, str]) -> dict[str, int] | str:
    scores = {}
    for key, column in COLUMNS.items():
        most = len(SCALES[key].grades) - 1
        if row[column] not in map(str, range(most + 1)):
            return f"{column} is {row[column]!r}: expected 0 to {most}"
        scores[key] = int(row[column])
    return scores


def masks_in(folder: Path) -> dict[str, str]:
    """Lung masks by the name of their CT; none where there is no such folder."""
    if not folder.is_dir():
        return {}
    return {mask["scan"].split("__")[-1]: str(Path(mask["image"]).absolute()) for mask in find_scans(folder)}


def split(entries: Sequence[T], seed: int) -> dict[str, list[T]]:
    """Entries, or whatever is to stay together, as ``training``, ``validation`` and ``test``, drawn at random."""
    drawn = random.Random(seed).sample(entries, len(entries))
    parts: dict[str, list[T]] = {}
    for name, share in SPLITS.items():
        count = round(share * len(entries))
        parts[name], drawn = drawn[:count], drawn[count:]
    return {"training": drawn, **parts}
