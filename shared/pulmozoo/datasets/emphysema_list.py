"""Scans with visual scores of emphysema: what a training reads of its datalist, and how it balances the scores."""

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import RandomSampler, Sampler, WeightedRandomSampler

from ..bundle.errors import BadInput
from ..losses.dram import class_weights

TABLE = "emphysema.csv"  # beside the datalist of a synthetic cohort
COLUMNS = {"cle_score": "CT_Visual_Emph_Severity_P1", "pse_score": "CT_Visual_Emph_Paraseptal_P1"}  # COPDGene's
SUBTYPES = ("centrilobular", "paraseptal")
PATHS = ("image", "label", "lung_mask", "lobes", *SUBTYPES)
ALL = "all"


def emphysema_entries(dataset_dir: str | Path, split: str) -> list[dict[str, Any]]:
    """Entries of a split of ``datalist.json``, paths absolute, with ``cle_score`` and ``pse_score`` where known.

    An entry holds ``image``; where they are known ``lung_mask`` or ``lobes``; and as truth the scores, ``label`` (1
    centrilobular, 2 paraseptal), or both. An entry of a synthetic cohort has a mask of each subtype, lobes under
    ``label``, and its scores in ``emphysema.csv``.

    Args:
        dataset_dir: holds the datalist; without one there are no entries (MONAI Label fills its own in).
        split: training, validation, test, or all for all of them.

    Raises BadInput where there is no datalist or no such split.
    """
    if not dataset_dir:
        return []
    folder = Path(dataset_dir)
    path = folder / "datalist.json"
    if not path.is_file():
        raise BadInput(f"{path} does not exist: expected a MONAI datalist, see pulmozoo phantom and pulmozoo prepare")
    datalist: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    splits = {name: entries for name, entries in datalist.items() if isinstance(entries, list)}
    if split != ALL and split not in splits:
        raise BadInput(f"{path} has no split {split!r}: choose one of {', '.join((*splits, ALL))}")
    chosen = splits[split] if split != ALL else [entry for entries in splits.values() for entry in entries]
    scores = scores_in(folder / TABLE)
    return [_entry(entry, folder, scores) for entry in chosen]


def scores_in(table: Path) -> dict[str, dict[str, int]]:
    """Scores by subject; none where there is no table."""
    if not table.is_file():
        return {}
    with table.open(newline="", encoding="utf-8") as file:
        return {
            row["subject"]: {key: int(row[column]) for key, column in COLUMNS.items()} for row in csv.DictReader(file)
        }


def _entry(entry: Mapping[str, Any], folder: Path, scores: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    subject = Path(entry["image"]).name.removesuffix(".nii.gz")
    made = {**scores.get(subject, {}), **entry}
    if all(subtype in made for subtype in SUBTYPES):
        made["lobes"] = made.pop("label")
    return {key: str(folder / value) if key in PATHS else value for key, value in made.items()}


def score_counts(entries: Sequence[Mapping[str, Any]], key: str, grades: int) -> list[int]:
    """How many entries have each score; an entry without counts nowhere."""
    counts = Counter(int(entry[key]) for entry in entries if key in entry)
    return [counts[score] for score in range(grades)]


def score_weights(entries: Sequence[Mapping[str, Any]], key: str, grades: int) -> list[float]:
    """:func:`.losses.dram.class_weights` of a training; a score that no entry has counts as if one had.

    Without entries every score has the weight 1.
    """
    if not entries:
        return [1.0] * grades
    return class_weights([max(count, 1) for count in score_counts(entries, key, grades)])


def balanced_sampler(entries: Sequence[Mapping[str, Any]], key: str = "cle_score") -> Sampler[int]:
    """Draw a score, then a scan that has it, as often as there are scans; each scan once where scores are not known.

    Args:
        entries: of the training, in the order of its data set.
        key: of the score.
    """
    known = all(key in entry for entry in entries)
    if not known:
        return RandomSampler(entries)
    often = Counter(entry[key] for entry in entries)
    weights = [1 / often[entry[key]] for entry in entries]
    return WeightedRandomSampler(torch.tensor(weights).tolist(), len(entries))
