"""Scores of annotated slices and their mean weighted by lesion area.

Source: SR-Net's paper (Bermejo-Peláez et al., ISBI 2019). It prints means with a spread it does not name: standard
deviation and standard error are both given here.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor


class SliceScores(NamedTuple):
    """Of one slice, each 0 to 1."""

    dice: float
    jaccard: float
    mean_accuracy: float


class AreaWeighted(NamedTuple):
    """Of many slices."""

    mean: float
    deviation: float
    standard_error: float


def slice_scores(prediction: Tensor, truth: Tensor, lung: Tensor) -> SliceScores:
    """Dice, Jaccard, and the mean of sensitivity and specificity, of boolean masks of one shape.

    True negatives and false positives of the specificity are counted inside the lung. Where the lesion fills the lung
    there is no specificity: the mean accuracy is the sensitivity then. ValueError if there is no lesion.
    """
    if not prediction.shape == truth.shape == lung.shape:
        shapes = [tuple(mask.shape) for mask in (prediction, truth, lung)]
        raise ValueError(f"prediction, truth and lung must have one shape, got {shapes}")
    if not truth.any():
        raise ValueError("a slice without lesion has no score and no weight: leave it out")
    hit, missed, false = (int(mask.sum()) for mask in (prediction & truth, truth & ~prediction, prediction & ~truth))
    healthy = lung & ~truth
    rates = [hit / (hit + missed)]
    if healthy.any():
        rates.append((healthy & ~prediction).sum().item() / healthy.sum().item())
    return SliceScores(2 * hit / (2 * hit + missed + false), hit / (hit + missed + false), sum(rates) / len(rates))


def area_weighted(scores: Sequence[float], areas: Sequence[float]) -> AreaWeighted:
    """Weighted mean, standard deviation and standard error of slices; the areas (any unit) are the weights.

    The standard error is the deviation divided by the root of the number of slices of equal area that would weigh as
    much, ``sum(a) ** 2 / sum(a ** 2)``. ValueError if the areas have no sum, are negative, or do not match the scores.
    """
    if len(scores) != len(areas) or min(areas, default=0) < 0 or sum(areas) <= 0:
        raise ValueError(
            f"one area a score is needed, none negative, some positive; got {list(areas)} for {len(scores)}"
        )
    values, weights = np.asarray(scores, dtype=float), np.asarray(areas, dtype=float) / sum(areas)
    mean = float(weights @ values)
    deviation = float(np.sqrt(weights @ (values - mean) ** 2))
    return AreaWeighted(mean, deviation, deviation * float(np.sqrt(weights @ weights)))
