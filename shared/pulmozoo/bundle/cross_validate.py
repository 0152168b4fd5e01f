"""Train and test a bundle once for each fold of its data, as it is, with its variants, or with values of one setting.

Source of the figures: Anthimopoulos et al., https://arxiv.org/abs/1803.06167, table II and figures 5 and 6.
"""

import csv
import logging
import random
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain, combinations
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from monai.bundle import ConfigParser
from monai.utils import optional_import

from ..datasets.annotated_slices import TABLE, rows_by_subject, write_splits
from ..datasets.datalist import entries_of
from ..files import whole, write_json, write_rows
from ..metrics.compare import draw_boxes, paired, read_scores
from ..metrics.confusion_figure import draw_confusion, row_shares
from .errors import BadInput

figure, has_matplotlib = optional_import("matplotlib.figure")
logger = logging.getLogger(__name__)

OWN = "own"  # the bundle without a variant
ALL = "all"  # every combination of its variants
SPLITS = ("training", "validation", "test")
SCORES = "scores.csv"
CONFUSION = "scores_confusion.csv"
SPREAD = ("_sd", "_se")  # ends of names: of a score's spread over the slices of a fold
INCHES = 5.0

Entry = dict[str, Any]


class Setting(NamedTuple):
    """What is trained: its name, the overlays over train.json, and values of keys of the config."""

    name: str
    overlays: tuple[str, ...] = ()
    options: Mapping[str, Any] = MappingProxyType({})


def cross_validate(
    bundle: Path,
    dataset_dir: Path,
    output_dir: Path,
    settings: Sequence[Setting],
    folds: int,
    seed: int,
    only: Sequence[int] | None = None,
) -> list[dict[str, Any]]:
    """Train and test each setting on each fold; folds that are done already are kept, a training goes on.

    Fold k is tested, fold k + 1 validates, the others train. A folder ``<setting>/fold_<k>`` each holds the datalist,
    the training and the test's ``scores.csv``; ``cross_validation.csv`` the means, ``<setting>/confusion.png`` the
    confusion of all folds together where the bundle has one, ``curve.png`` the first score over a setting's values,
    ``boxes.png`` the scores of all scans or slices, a box for each setting.
    On annotated slices the threshold is the one that is best on the slices that validate.

    Args:
        bundle: the bundle's folder.
        dataset_dir: holds ``slices.csv``, whose subjects are drawn at random, or ``datalist.json``. There the folds are
            the ``fold`` of each entry; where entries have none they are drawn too.
        output_dir: made if missing.
        settings: see :func:`of_variants` and :func:`of_values`.
        folds: how many; of the draw, and of how many there are to be.
        seed: of the draw.
        only: the folds to train and test, if not all.

    Returns the rows of the table: ``setting``, ``parameters``, ``folds``, and of each score its mean over the folds and
    its standard deviation (``_sd``). Raises BadInput for data without as many folds, for a fold in ``only`` that there
    is not, or where a run fails.
    """
    if not has_matplotlib:
        raise BadInput("the figures need the eval extra: pip install 'pulmozoo[eval]'")
    parts = folds_of(dataset_dir, folds, seed)
    chosen = range(folds) if only is None else only
    if not set(chosen) <= set(range(folds)):
        raise BadInput(f"expected folds from 0 to {folds - 1}, got {list(chosen)}")
    rows = []
    for setting in settings:
        for fold in chosen:
            folder = output_dir / setting.name / f"fold_{fold}"
            logger.info("%s, fold %d of %d", setting.name, fold + 1, folds)
            if not (folder / "test" / SCORES).is_file():
                write_data(folder, datalist_of(parts, fold))
                train_and_test(bundle, folder, setting)
        tested = [output_dir / setting.name / f"fold_{fold}" / "test" for fold in chosen]
        rows.append(row_of(setting.name, parameters_of(bundle, setting), tested))
        write_rows(output_dir / "cross_validation.csv", rows, dict.fromkeys(key for row in rows for key in row))
        if all((folder / CONFUSION).is_file() for folder in tested):
            names, shares = confusion_of(tested)
            draw_confusion(names, shares, output_dir / setting.name / "confusion.png")
    tables = [[output_dir / setting.name / f"fold_{fold}" / "test" / SCORES for fold in chosen] for setting in settings]
    if scores := paired([read_scores(*each) for each in tables]):
        draw_boxes(scores, [setting.name for setting in settings], output_dir / "boxes.png")
    return rows


def of_variants(bundle: Path, names: Sequence[str], options: Mapping[str, Any]) -> list[Setting]:
    """A setting for each variant of the bundle, or several joined by ``+``, each with the same options.

    ``own`` is the bundle without a variant, ``all`` stands for it and every combination of its variants. Raises
    BadInput for a variant that the bundle does not have.
    """
    known = {
        path.stem: f"configs/variants/{path.name}" for path in sorted((bundle / "configs/variants").glob("*.json"))
    }
    settings = []
    for name in chain.from_iterable(combined(list(known)) if name == ALL else [name] for name in names):
        parts = () if name == OWN else name.split("+")
        unknown = [part for part in parts if part not in known]
        if unknown:
            raise BadInput(f"there is no variant {unknown[0]!r}: choose from {', '.join((OWN, *known))}, or {ALL}")
        settings.append(Setting(name, tuple(known[part] for part in parts), options))
    return settings


def combined(names: Sequence[str]) -> list[str]:
    """None of the names, each, and all their combinations, fewer names first: ``own``, ``a``, ``b``, ``a+b``."""
    chosen = chain.from_iterable(combinations(names, count) for count in range(1, len(names) + 1))
    return [OWN, *("+".join(each) for each in chosen)]


def of_values(key: str, values: Sequence[Any], options: Mapping[str, Any]) -> list[Setting]:
    """A setting for each value of one key of train.json, else with the same options."""
    return [Setting(f"{key}_{value}", options={**options, key: value}) for value in values]


def folds_of(dataset_dir: Path, number: int, seed: int) -> list[list[Entry]]:
    """Subjects of annotated slices, or entries of all splits of a datalist, by fold, drawn where they have none."""
    path = dataset_dir / TABLE
    if path.is_file():
        entries = rows_by_subject(path)
    else:
        path = dataset_dir / "datalist.json"
        entries = [entry for split in SPLITS for entry in entries_of(dataset_dir, split)]
    if any("fold" not in entry for entry in entries):
        random.Random(seed).shuffle(entries)
        entries = [{**entry, "fold": index % number} for index, entry in enumerate(entries)]
    found = sorted({entry["fold"] for entry in entries})
    if number < 3 or found != list(range(number)):
        raise BadInput(f"expected {max(number, 3)} folds, 0 to {max(number, 3) - 1}, got {found} in {path}")
    return [[entry for entry in entries if entry["fold"] == fold] for fold in range(number)]


def write_data(folder: Path, splits: Mapping[str, Sequence[Entry]]) -> None:
    """What a bundle trains on: a table of annotated slices where the entries have rows of one, else a datalist."""
    if all("rows" in entry for part in splits.values() for entry in part):
        write_splits(folder / TABLE, splits)
    else:
        write_json(folder / "datalist.json", splits)


def datalist_of(parts: Sequence[Sequence[Entry]], fold: int) -> dict[str, list[Entry]]:
    """A MONAI datalist in which a fold is tested and the next one validates."""
    following = (fold + 1) % len(parts)
    training = [entry for at, part in enumerate(parts) if at not in (fold, following) for entry in part]
    return dict(zip(SPLITS, (training, list(parts[following]), list(parts[fold])), strict=True))


def train_and_test(bundle: Path, folder: Path, setting: Setting) -> None:
    """Train on a fold's data, if there is anything to train, then test the best epoch, the last if none was scored."""
    configs = ("configs/train.json", *setting.overlays)
    options = {**setting.options, "dataset_dir": folder}
    if parameters_of(bundle, setting):
        run(bundle, configs, {**options, "output_dir": folder / "train"})
        best, last = (folder / "train" / name for name in ("best.pt", "last.pt"))
        options["checkpoint"] = str(best if best.is_file() else last)
    tests = (configs[0], "configs/evaluate.json", *setting.overlays)
    if (folder / TABLE).is_file():
        run(bundle, tests, {**options, "output_dir": folder / "validation", "split": "validation"})
        options["threshold"] = last_row(folder / "validation" / SCORES)["best_threshold"]
    run(bundle, tests, {**options, "output_dir": folder / "test"})


def run(bundle: Path, configs: Sequence[str], options: Mapping[str, Any]) -> None:
    """Run configs of a bundle in a process of their own; raises BadInput if it fails."""
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(list(configs))]
    for key, value in options.items():
        command += [f"--{key}", str(value)]
    ended = subprocess.run(command, cwd=bundle, check=False)
    if ended.returncode:
        raise BadInput(f"exit code {ended.returncode} of {' '.join(command)} in {bundle}: it has said why above")


def parameters_of(bundle: Path, setting: Setting) -> int:
    """Trainable parameters of a setting's network."""
    parser = ConfigParser()
    parser.read_config([str(bundle / name) for name in ("configs/train.json", *setting.overlays)])
    for key, value in setting.options.items():
        parser[key] = value
    network = parser.get_parsed_content("network_def")
    return sum(each.numel() for each in network.parameters() if each.requires_grad)


def row_of(name: str, parameters: int, tested: Sequence[Path]) -> dict[str, Any]:
    """Mean and standard deviation over the folds of what each fold's table has in its last row."""
    means = [last_row(folder / SCORES) for folder in tested]
    row: dict[str, Any] = {"setting": name, "parameters": parameters, "folds": len(tested)}
    for score in own_scores(means[0]):
        values = [each[score] for each in means if score in each]
        row |= {score: float(np.mean(values)), f"{score}_sd": float(np.std(values))}
    return row


def own_scores(names: Collection[str]) -> list[str]:
    """Names of scores without those of their spread over the slices of a fold."""
    spreads = {f"{name}{end}" for name in names for end in SPREAD}
    return [name for name in names if name not in spreads]


def last_row(path: Path) -> dict[str, float]:
    """The numbers of the last row of a table of scores, which is that of all scans."""
    with path.open(newline="", encoding="utf-8") as file:
        *_, row = csv.DictReader(file)
    return dict(numbers_in(row))


def numbers_in(row: Mapping[str, str]) -> Iterator[tuple[str, float]]:
    for key, value in row.items():
        try:
            yield key, float(value)
        except ValueError:
            continue


def confusion_of(tested: Sequence[Path]) -> tuple[list[str], np.ndarray]:
    """Names of the classes, and the share of each true class that was called so ``(truth, prediction)``, all folds."""
    tables = []
    for folder in tested:
        with (folder / CONFUSION).open(newline="", encoding="utf-8") as file:
            (_, *names), *rows = csv.reader(file)
        tables.append([[int(count) for count in row[1:]] for row in rows])
    counts = np.sum(tables, axis=0)
    return names, row_shares(counts)


def draw_curve(rows: Sequence[Mapping[str, Any]], key: str, values: Sequence[float], path: Path) -> None:
    """The first score of a table over the values of a setting, with its standard deviation over the folds."""
    score = next(name for name in rows[0] if f"{name}_sd" in rows[0])
    page = figure.Figure(figsize=(INCHES, INCHES * 0.7))
    panel = page.subplots()
    panel.errorbar(values, [row[score] for row in rows], [row[f"{score}_sd"] for row in rows], marker="o", capsize=3)
    panel.set_xlabel(key.replace("_", " "))
    panel.set_ylabel(score.replace("_", " "))
    page.tight_layout()
    with whole(path) as unfinished:
        page.savefig(unfinished, format="png", dpi=120)
