"""How well two readers agree on an ordered score: what the paper of DRAM reports, from pairs of scores.

Source of the interval of kappa: Fleiss, Cohen, Everitt, "Large sample standard errors of kappa and weighted kappa",
Psychological Bulletin 1969;72:323-327, https://doi.org/10.1037/h0028106, equation for any kappa. The rest is
scikit-learn's.
"""

from collections.abc import Sequence
from math import isnan, sqrt
from typing import Any

import numpy as np
from monai.utils import optional_import

from ..bundle.errors import BadInput

metrics, has_metrics = optional_import("sklearn.metrics")

Z_95 = 1.959964  # of the standard normal distribution


def agreement(truth: Sequence[int], predicted: Sequence[int], grades: int) -> dict[str, Any]:
    """Agreement of scores 0 to ``grades - 1`` of the same scans, as plain numbers; None for what is not defined.

    ``accuracy``, ``macro_f1`` (over the scores that occur), ``precision`` and ``recall`` (one number a score),
    ``kappa`` (linear weights) with ``kappa_ci`` (95 %), and ``confusion``, whose rows are the predicted scores.

    Raises BadInput for other scores or numbers of scans, or without scikit-learn.
    """
    if not has_metrics:
        raise BadInput("agreement needs the eval extra: pip install 'pulmozoo[eval]'")
    if len(truth) != len(predicted) or not len(truth):
        raise BadInput(f"expected the same scans scored twice, got {len(truth)} true and {len(predicted)} other scores")
    strange = sorted({*truth, *predicted} - set(range(grades)))
    if strange:
        raise BadInput(f"scores must lie in 0 to {grades - 1}, got {strange[0]}: check the table of scores")
    scores = list(range(grades))
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        truth, predicted, labels=scores, zero_division=np.nan
    )
    confusion = confusion_table(predicted, truth, grades)
    kappa, error = linear_kappa(confusion)
    return {
        "accuracy": float(metrics.accuracy_score(truth, predicted)),
        "macro_f1": float(np.nanmean(f1)),
        "precision": [_known(value) for value in precision],
        "recall": [_known(value) for value in recall],
        "kappa": _known(kappa),
        "kappa_ci": [_known(kappa - Z_95 * error), _known(kappa + Z_95 * error)],
        "confusion": confusion.tolist(),
    }


def confusion_table(rows: Sequence[int], columns: Sequence[int], grades: int) -> np.ndarray:
    """How often each pair of scores occurs, ``(grades, grades)`` counts."""
    table = np.zeros((grades, grades), dtype=int)
    np.add.at(table, (list(rows), list(columns)), 1)
    return table


def linear_kappa(confusion: np.ndarray) -> tuple[float, float]:
    """Linear-weighted kappa of a square table of counts and its large-sample standard error.

    Both are NaN where one score is all there is. Rows and columns may be exchanged.
    """
    shares = confusion / confusion.sum()
    rows, columns = shares.sum(axis=1), shares.sum(axis=0)
    place = np.arange(len(shares))
    weights = 1 - np.abs(place[:, None] - place) / (len(shares) - 1)
    observed, expected = (weights * shares).sum(), rows @ weights @ columns
    if expected == 1:
        return float("nan"), float("nan")
    means = (weights @ columns)[:, None] + rows @ weights
    spread = (shares * (weights * (1 - expected) - means * (1 - observed)) ** 2).sum()
    variance = spread - (observed * expected - 2 * expected + observed) ** 2
    error = sqrt(max(variance, 0.0) / confusion.sum()) / (1 - expected) ** 2
    return float((observed - expected) / (1 - expected)), error


def _known(value: float) -> float | None:
    return None if isnan(value) else float(value)
