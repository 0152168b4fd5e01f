import json

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from pulmozoo.bundle.errors import BadInput
from pulmozoo.metrics import agreement as module
from pulmozoo.metrics.agreement import agreement, linear_kappa

# The paper's confusion matrices (Tables 3 and 4), rows predicted, columns visual score.
TABLES = {
    "R34 classification CLE": """1621 530 259 21 0 0 / 625 451 322 50 0 0 / 230 294 664 288 4 0 / 22 42 142 514 141 7 /
        0 3 15 153 322 42 / 1 2 7 23 189 159""",
    "R34 classification PSE": "2508 740 181 / 1144 942 467 / 205 183 773",
    "R34 regression CLE": """1734 536 206 17 0 0 / 696 635 682 142 2 0 / 56 121 393 319 21 0 / 11 26 117 453 192 8 /
        2 3 10 112 334 83 / 0 1 1 5 107 117""",
    "R34 regression PSE": "2976 839 104 / 784 778 455 / 97 248 862",
    "Humphries CLE": """637 126 35 2 0 0 / 1495 751 380 23 1 0 / 324 377 678 166 4 0 / 41 66 296 643 154 8 /
        2 2 20 211 428 108 / 0 0 0 4 69 92""",
}
# Accuracy, macro F1 and kappa of these matrices (fact sheet, section 6).
SCORES = {
    "R34 classification CLE": (0.5223, 0.5100, 0.6430),
    "R34 classification PSE": (0.5912, 0.5712, 0.4203),
    "R34 regression CLE": (0.5133, 0.4961, 0.6426),
    "R34 regression PSE": (0.6462, 0.6074, 0.5207),
    "Humphries CLE": (0.4521, 0.4809, 0.5973),
}
# 95 % intervals of kappa as printed, in percent; some of them are cut and not rounded. The printed matrix of the CLE
# regression lacks one scan, so that its interval is only near.
INTERVALS = {
    "R34 classification CLE": (63.16, 65.42, 0.01),
    "R34 classification PSE": (40.21, 43.85, 0.01),
    "R34 regression CLE": (63.14, 65.35, 0.02),
    "R34 regression PSE": (50.40, 53.73, 0.01),
}


def table_of(name: str) -> np.ndarray:
    return np.array([[int(cell) for cell in row.split()] for row in TABLES[name].split("/")])


def pairs_of(table: np.ndarray) -> tuple[list[int], list[int]]:
    """True and predicted scores that give a table."""
    predicted, truth = np.indices(table.shape)
    return np.repeat(truth, table.ravel()).tolist(), np.repeat(predicted, table.ravel()).tolist()


@pytest.mark.parametrize("name", TABLES)
def test_printed_matrices_give_the_printed_scores(name):
    table = table_of(name)
    found = agreement(*pairs_of(table), grades=len(table))
    assert (found["accuracy"], found["macro_f1"], found["kappa"]) == pytest.approx(SCORES[name], abs=5e-5)
    assert found["confusion"] == table.tolist()
    if name in INTERVALS:
        low, high, tolerance = INTERVALS[name]
        assert [100 * end for end in found["kappa_ci"]] == pytest.approx([low, high], abs=tolerance)
    assert json.loads(json.dumps(found)) == found


def test_printed_precision_and_recall():
    """Trace of the classification: 31.15 and 34.11 %; mild paraseptal of the regression: 38.57 and 41.72 %."""
    found = agreement(*pairs_of(table_of("R34 classification CLE")), grades=6)
    assert (found["precision"][1], found["recall"][1]) == pytest.approx((0.3115, 0.3411), abs=5e-5)
    found = agreement(*pairs_of(table_of("R34 regression PSE")), grades=3)
    assert (found["precision"][1], found["recall"][1]) == pytest.approx((0.3857, 0.4172), abs=5e-5)


def test_kappa_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 60)
    predicted = np.clip(truth + rng.integers(-1, 2, 60), 0, 3)
    found = agreement(truth.tolist(), predicted.tolist(), grades=4)
    assert found["kappa"] == pytest.approx(cohen_kappa_score(truth, predicted, weights="linear"))


def test_kappa_by_hand():
    """Two scores: 40 of 50 agree, and by chance 25: (0.8 - 0.5) / 0.5. The error is sqrt(0.8 * 0.2 / 50) / 0.5 then."""
    kappa, error = linear_kappa(np.array([[20, 5], [5, 20]]))
    assert kappa == pytest.approx(0.6)
    assert error == pytest.approx(np.sqrt(0.8 * 0.2 / 50) / 0.5)


def test_standard_error_is_the_spread_of_repeated_studies():
    rng = np.random.default_rng(0)
    table = table_of("R34 classification PSE")
    drawn = rng.multinomial(table.sum(), table.ravel() / table.sum(), size=2000).reshape(-1, 3, 3)
    spread = np.std([linear_kappa(one)[0] for one in drawn])
    assert linear_kappa(table)[1] == pytest.approx(spread, rel=0.05)


def test_exchanging_the_readers_changes_precision_to_recall_alone():
    truth, predicted = pairs_of(table_of("Humphries CLE"))
    one, other = agreement(truth, predicted, 6), agreement(predicted, truth, 6)
    assert one["recall"] == other["precision"]
    assert one["kappa_ci"] == pytest.approx(other["kappa_ci"])


def test_score_that_never_occurs_is_not_defined_and_not_counted():
    found = agreement([0, 0, 1, 1], [0, 1, 1, 1], grades=3)
    assert found["precision"] == [1.0, pytest.approx(2 / 3), None]
    assert found["recall"] == [0.5, 1.0, None]
    assert found["macro_f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert found["confusion"] == [[1, 0, 0], [1, 2, 0], [0, 0, 0]]


def test_kappa_of_a_single_score_is_not_defined():
    found = agreement([1, 1], [1, 1], grades=3)
    assert found["accuracy"] == 1.0
    assert found["kappa"] is None
    assert found["kappa_ci"] == [None, None]


def test_scores_that_cannot_be():
    with pytest.raises(BadInput, match="same scans scored twice, got 2 true and 1 other scores"):
        agreement([0, 1], [0], grades=3)
    with pytest.raises(BadInput, match="same scans scored twice, got 0 true and 0 other scores"):
        agreement([], [], grades=3)
    with pytest.raises(BadInput, match="scores must lie in 0 to 2, got -1: check the table of scores"):
        agreement([0, 1], [0, -1], grades=3)


def test_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr(module, "has_metrics", False)
    with pytest.raises(BadInput, match=r"needs the eval extra: pip install 'pulmozoo\[eval\]'"):
        agreement([0], [0], grades=3)
