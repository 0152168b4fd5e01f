"""Two evaluations of the same scans side by side: Wilcoxon's signed-rank test and box plots.

Source: Xie et al., https://arxiv.org/abs/2004.07443, section IV: Wilcoxon signed-rank with Bonferroni's correction.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.utils import optional_import
from scipy.stats import wilcoxon

from ..bundle.errors import BadInput
from ..files import whole, write_rows

figure, has_matplotlib = optional_import("matplotlib.figure")

MEAN = "mean"  # the last row of a table of scores
PANEL_INCHES = 3.2

Scores = dict[str, dict[str, float]]  # score: scan: value


def compare_scores(tables: Sequence[Path], names: Sequence[str], out_dir: Path) -> list[dict[str, Any]]:
    """Compare two tables of scores and write ``comparison.csv`` and ``comparison.png``.

    Args:
        tables: two ``scores.csv`` as evaluations write them, a row a scan.
        names: what to call the two.
        out_dir: made if missing.

    Returns a row for each score that both have as numbers: ``score``, ``scans`` (that have it in both), the means,
    ``median_difference`` (second less first), ``p`` (two-sided) and ``p_bonferroni``, ``p`` times the number of scores.
    Raises BadInput where there is nothing to compare, or without matplotlib.
    """
    if not has_matplotlib:
        raise BadInput("box plots need the eval extra: pip install 'pulmozoo[eval]'")
    if names[0] == names[1]:
        raise BadInput(f"both evaluations are called {names[0]!r}: give them two names")
    first, second = (read_scores(path) for path in tables)
    pairs = paired(first, second)
    if not pairs:
        raise BadInput(
            f"{tables[0]} and {tables[1]} have no score of the same scan: expected two evaluations of one set"
        )
    rows = [comparison(score, one, other, names, len(pairs)) for score, (one, other) in pairs.items()]
    out_dir.mkdir(parents=True, exist_ok=True)
    write_rows(out_dir / "comparison.csv", rows, rows[0])
    draw_boxes(pairs, names, out_dir / "comparison.png")
    return rows


def read_scores(path: Path) -> Scores:
    """The numbers of a table of scores; what is no number is left out."""
    if not path.is_file():
        raise BadInput(f"{path} does not exist: expected a scores.csv, as an evaluation writes it")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or "scan" not in rows[0]:
        raise BadInput(f"{path} has no column scan: expected a scores.csv, as an evaluation writes it")
    scores: Scores = {}
    for row in rows:
        for score, text in row.items():
            value = as_number(text)
            if score != "scan" and row["scan"] != MEAN and value is not None:
                scores.setdefault(score, {})[row["scan"]] = value
    return scores


def as_number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def paired(first: Scores, second: Scores) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Values of each score for the scans that both tables have, in one order."""
    pairs = {}
    for score in first:
        scans = [scan for scan in first[score] if scan in second.get(score, {})]
        if scans:
            one, other = (np.array([table[score][scan] for scan in scans]) for table in (first, second))
            pairs[score] = (one, other)
    return pairs


def comparison(score: str, one: np.ndarray, other: np.ndarray, names: Sequence[str], tests: int) -> dict[str, Any]:
    """One row of :func:`compare_scores`."""
    change = other - one
    p = float(wilcoxon(other, one).pvalue) if change.any() else 1.0
    return {
        "score": score,
        "scans": len(one),
        f"{names[0]}_mean": float(one.mean()),
        f"{names[1]}_mean": float(other.mean()),
        "median_difference": float(np.median(change)),
        "p": p,
        "p_bonferroni": min(1.0, p * tests),
    }


def draw_boxes(pairs: Mapping[str, tuple[np.ndarray, np.ndarray]], names: Sequence[str], path: Path) -> None:
    """A panel for each score with a box for each evaluation: quartiles, whiskers to 1.5 times their distance, the rest
    as dots."""
    page = figure.Figure(figsize=(PANEL_INCHES * min(len(pairs), 4), PANEL_INCHES * math.ceil(len(pairs) / 4)))
    panels = page.subplots(math.ceil(len(pairs) / 4), min(len(pairs), 4), squeeze=False).flatten()
    for panel, (score, values) in zip(panels, pairs.items(), strict=False):
        panel.boxplot(values, tick_labels=list(names), widths=0.6)
        panel.set_title(score.replace("_", " "), fontsize=9)
        panel.tick_params(labelsize=8)
    for panel in panels[len(pairs) :]:
        panel.remove()
    page.tight_layout()
    with whole(path) as unfinished:
        page.savefig(unfinished, format="png", dpi=120)
