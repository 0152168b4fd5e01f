from itertools import pairwise
from math import log

import numpy as np
import pytest

from pulmozoo.bundle.errors import BadInput
from pulmozoo.datasets.folds import climb, entropy, entropy_folds, first_split


def cohort(scans: int, seed: int = 0) -> np.ndarray:
    """Pixels of six classes in scans that show one to three of them, in unequal numbers."""
    rng = np.random.default_rng(seed)
    counts = np.zeros((scans, 6), dtype=np.int64)
    for row in counts:
        row[rng.choice(6, size=rng.integers(1, 4), replace=False, p=[0.3, 0.25, 0.05, 0.1, 0.2, 0.1])] = 1
    return counts * rng.integers(1_000, 100_000, size=counts.shape)


def mean_entropy(counts: np.ndarray, folds: np.ndarray, number: int) -> float:
    """Mean over the folds of the entropy of their classes, what the swaps are to raise."""
    return float(np.mean([entropy(counts[folds == fold].sum(axis=0)) for fold in range(number)]))


def test_entropy_by_hand():
    assert entropy(np.array([5, 5])) == pytest.approx(log(2))
    assert entropy(np.array([[1, 3, 0], [0, 0, 0]])) == pytest.approx([0.75 * log(4 / 3) + 0.25 * log(4), 0])


def test_swaps_find_the_even_mixture():
    """Two scans of each class: each fold gets one of either."""
    counts = np.array([[4, 0], [4, 0], [0, 4], [0, 4]])
    for seed in range(5):
        folds = entropy_folds(counts, number=2, seed=seed)
        assert sorted(folds[:2]) == sorted(folds[2:]) == [0, 1]


def test_entropy_never_falls_and_no_swap_is_left():
    counts = cohort(40)
    rng = np.random.default_rng(3)
    steps = list(climb(counts, first_split(40, 5, rng), rng))
    means = [mean_entropy(counts, folds, 5) for folds in steps]
    assert len(steps) > 5
    assert all(after > before for before, after in pairwise(means))
    assert means[-1] > means[0] + 0.05
    last = steps[-1]
    for one in range(40):
        for other in range(one):
            swapped = last.copy()
            swapped[[one, other]] = swapped[[other, one]]
            assert mean_entropy(counts, swapped, 5) <= means[-1] + 1e-9


def test_folds_have_the_sizes_of_the_paper_and_come_from_the_seed():
    counts = cohort(172)
    folds = entropy_folds(counts, seed=1)
    assert folds.shape == (172,)  # one fold each, so they are disjoint
    assert np.bincount(folds).tolist() == [36, 34, 34, 34, 34]
    assert np.array_equal(folds, entropy_folds(counts, seed=1))
    assert not np.array_equal(folds, entropy_folds(counts, seed=2))


def test_too_few_scans():
    with pytest.raises(BadInput, match="5 folds need at least 5 annotated scans, got 3: use fewer folds"):
        entropy_folds(cohort(3))
