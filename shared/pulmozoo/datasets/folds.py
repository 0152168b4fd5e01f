"""Cross-validation folds in which the classes are as evenly mixed as can be.

Source: Anthimopoulos et al., https://arxiv.org/abs/1803.06167: from any split by scan, pairs of scans are swapped
between folds as long as that raises the mean entropy of the folds' class distributions.
"""

from collections.abc import Iterator

import numpy as np

from ..bundle.errors import BadInput

LEAST_GAIN = 1e-12  # rounding must not count as a gain, or the climb might go in a circle


def entropy(pixels: np.ndarray) -> np.ndarray:
    """Entropy (nats) of the distribution along the last axis; 0 where nothing was counted."""
    share = pixels / np.maximum(pixels.sum(axis=-1, keepdims=True), 1)
    return -(share * np.log(np.where(share > 0, share, 1))).sum(axis=-1)


def first_split(scans: int, number: int, rng: np.random.Generator) -> np.ndarray:
    """A fold for each scan at random; all of one size, but the first takes what is left over: 36 + 4 x 34 of 172."""
    size = scans // number
    return rng.permutation(np.repeat(np.arange(number), [scans - size * (number - 1), *[size] * (number - 1)]))


def climb(counts: np.ndarray, folds: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """The folds, then the folds after each swap that raises the mean entropy, until no swap does.

    Pairs are tried in random order, each once a round; the climb ends with a round without a gain.
    """
    folds = folds.copy()
    sums = np.stack([counts[folds == fold].sum(axis=0) for fold in range(folds.max() + 1)])
    yield folds.copy()
    gained = True
    while gained:
        gained = False
        for scan in rng.permutation(len(counts)):
            others = rng.permutation(np.flatnonzero(folds != folds[scan]))
            moved = counts[others] - counts[scan]
            after = entropy(sums[folds[scan]] + moved) + entropy(sums[folds[others]] - moved)
            before = entropy(sums[folds[scan]]) + entropy(sums[folds[others]])
            better = np.flatnonzero(after > before + LEAST_GAIN)
            if len(better):
                other, change = others[better[0]], moved[better[0]]
                sums[folds[scan]] += change
                sums[folds[other]] -= change
                folds[[scan, other]] = folds[[other, scan]]
                gained = True
                yield folds.copy()


def entropy_folds(counts: np.ndarray, number: int = 5, seed: int = 0) -> np.ndarray:
    """A fold, 0 to ``number - 1``, for each scan from its pixels of each class ``(scans, classes)``.

    The same seed gives the same folds. BadInput if there are fewer scans than folds.
    """
    if len(counts) < number:
        raise BadInput(f"{number} folds need at least {number} annotated scans, got {len(counts)}: use fewer folds")
    rng = np.random.default_rng(seed)
    *_, folds = climb(np.asarray(counts, dtype=np.int64), first_split(len(counts), number, rng), rng)
    return folds
