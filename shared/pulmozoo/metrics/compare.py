"""Evaluations of the same scans, or slices, side by side: Wilcoxon's signed-rank test and box plots.

Source: Xie et al., https://arxiv.org/abs/2004.07443, section IV: Wilcoxon signed-rank with Bonferroni's correction.
Means and boxes of annotated slices are weighted by the area of the lesion, as the scores of SR-Net's paper are
(Bermejo-Peláez et al., ISBI 2019); the test is not.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from monai.utils import optional_import
from scipy.stats import wilcoxon

from ..bundle.errors import BadInput
from ..files import whole, write_rows

figure, has_matplotlib = optional_import("matplotlib.figure")

MEAN = "mean"  # the last row of a table of scores
SLICE, AREA = "slice", "area_cm2"  # columns of a table with a row a slice
PANEL_INCHES = 3.2
WHISKER = 1.5  # longest, in distances of the quartiles

Scores = dict[str, dict[str, float]]  # score: scan, or scan and slice: value


class Common(NamedTuple):
    """A score of the scans that all tables have, in one order: ``values`` of each table, ``weights`` of the scans."""

    values: list[np.ndarray]
    weights: np.ndarray


def compare_scores(tables: Sequence[Path], names: Sequence[str], out_dir: Path) -> list[dict[str, Any]]:
    """Compare two tables of scores and write ``comparison.csv`` and ``comparison.png``.

    Args:
        tables: two ``scores.csv`` as evaluations write them, a row a scan or an annotated slice.
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
    pairs = paired([read_scores(path) for path in tables])
    if not pairs:
        raise BadInput(
            f"{tables[0]} and {tables[1]} have no score of the same scan: expected two evaluations of one set"
        )
    rows = [comparison(score, common, names, len(pairs)) for score, common in pairs.items()]
    out_dir.mkdir(parents=True, exist_ok=True)
    write_rows(out_dir / "comparison.csv", rows, rows[0])
    draw_boxes(pairs, names, out_dir / "comparison.png")
    return rows


def read_scores(*paths: Path) -> Scores:
    """The numbers of tables of scores; what is no number is left out, and so is the number of a slice."""
    scores: Scores = {}
    for row in chain.from_iterable(map(rows_of, paths)):
        scan = " ".join([row.pop("scan"), row.pop(SLICE, "")]).strip()
        for score, text in row.items():
            value = as_number(text)
            if scan != MEAN and value is not None:
                scores.setdefault(score, {})[scan] = value
    return scores


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a table of scores."""
    if not path.is_file():
        raise BadInput(f"{path} does not exist: expected a scores.csv, as an evaluation writes it")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or "scan" not in rows[0]:
        raise BadInput(f"{path} has no column scan: expected a scores.csv, as an evaluation writes it")
    return rows


def as_number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def paired(tables: Sequence[Scores]) -> dict[str, Common]:
    """Each score of the scans that have it in all tables; areas, where there are any, are the weights."""
    common = {}
    for score in tables[0]:
        scans = [scan for scan in tables[0][score] if all(scan in table.get(score, {}) for table in tables)]
        if scans and score != AREA:
            areas = tables[0].get(AREA, {})
            weights = np.array([areas.get(scan, 1.0) for scan in scans])
            common[score] = Common([np.array([table[score][scan] for scan in scans]) for table in tables], weights)
    return common


def comparison(score: str, common: Common, names: Sequence[str], tests: int) -> dict[str, Any]:
    """One row of :func:`compare_scores`."""
    one, other = common.values
    change = other - one
    p = float(wilcoxon(other, one).pvalue) if change.any() else 1.0
    return {
        "score": score,
        "scans": len(one),
        f"{names[0]}_mean": float(np.average(one, weights=common.weights)),
        f"{names[1]}_mean": float(np.average(other, weights=common.weights)),
        "median_difference": float(np.median(change)),
        "p": p,
        "p_bonferroni": min(1.0, p * tests),
    }


def draw_boxes(scores: Mapping[str, Common], names: Sequence[str], path: Path) -> None:
    """A panel for each score with a box for each table: quartiles, whiskers to 1.5 times their distance, the rest as
    dots."""
    shape = math.ceil(len(scores) / 4), min(len(scores), 4)
    page = figure.Figure(figsize=(PANEL_INCHES * shape[1], PANEL_INCHES * shape[0]))
    panels = page.subplots(*shape, squeeze=False).flatten()
    for panel, (score, common) in zip(panels, scores.items(), strict=False):
        panel.bxp([box_of(values, common.weights) for values in common.values], widths=0.6)
        panel.set_xticks(range(1, len(names) + 1), list(names), rotation=30 if len(names) > 2 else 0)
        panel.set_title(score.replace("_", " "), fontsize=9)
        panel.tick_params(labelsize=8)
    for panel in panels[len(scores) :]:
        panel.remove()
    page.tight_layout()
    with whole(path) as unfinished:
        page.savefig(unfinished, format="png", dpi=120)


def box_of(values: np.ndarray, weights: np.ndarray) -> dict[str, Any]:
    """What matplotlib's ``bxp`` draws of values ``(N,)`` that count by weights ``(N,)``."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75], weights=weights, method="inverted_cdf")
    near = (values >= low - WHISKER * (high - low)) & (values <= high + WHISKER * (high - low))
    ends = {"whislo": values[near].min(), "whishi": values[near].max(), "fliers": values[~near]}
    return {"q1": low, "med": middle, "q3": high, **ends}
