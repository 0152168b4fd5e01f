"""Scores of annotated slices at every threshold at once, from histograms of the probability.

Source: SR-Net's paper (Bermejo-Peláez et al., ISBI 2019) for the scores (see ``area_weighted``) and for the threshold,
which is chosen on the validation slices and kept.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from monai.transforms import Transform
from monai.utils import convert_to_tensor
from torch import Tensor

BINS = 100


def slice_histogram(probability: Tensor, truth: Tensor, lung: Tensor) -> Tensor:
    """Pixels by probability: ``(2, 100)``, lesion first, then the rest of the lung; all of one shape.

    What lies outside the lung is never found: lesion there counts as probability 0, all else there not at all. Bin
    ``k`` holds ``[k / 100, (k + 1) / 100)``.
    """
    bins = (probability * lung * BINS).long().clamp(max=BINS - 1)
    return torch.stack([torch.bincount(bins[mask], minlength=BINS) for mask in (truth, lung & ~truth)])


class ThresholdScores(NamedTuple):
    """Of slices with a lesion, ``(slices, 101)`` each: at the thresholds 0, 0.01, ... 1. NaN without a lesion."""

    dice: Tensor
    jaccard: Tensor
    mean_accuracy: Tensor


def scores_at_thresholds(histograms: Tensor) -> ThresholdScores:
    """Scores of each slice if probabilities from the threshold on are lesion; ``histograms`` is ``(slices, 2, 100)``.

    As ``area_weighted.slice_scores``; where the lesion fills the lung the mean accuracy is the sensitivity.
    """
    found = torch.cat([histograms.flip(-1).cumsum(-1).flip(-1), histograms.new_zeros(*histograms.shape[:2], 1)], dim=-1)
    hit, false = found.double().unbind(dim=1)
    lesion, healthy = histograms.sum(dim=-1, keepdim=True).double().unbind(dim=1)
    sensitivity = hit / lesion
    specificity = torch.where(healthy > 0, 1 - false / healthy, sensitivity)
    return ThresholdScores(2 * hit / (lesion + hit + false), hit / (lesion + false), (sensitivity + specificity) / 2)


def best_threshold(histograms: Tensor) -> tuple[float, float]:
    """Threshold with the best area-weighted Dice over slices ``(slices, 2, 100)``, and that Dice.

    Areas are counted in pixels, so they must be of one size. Slices without lesion weigh nothing.
    """
    areas = histograms[:, 0].sum(dim=-1).double()
    dice = (areas @ scores_at_thresholds(histograms).dice.nan_to_num()) / areas.sum()
    best = int(dice[1:].argmax()) + 1
    return best / BINS, dice[best].item()


def soft_dice_loss(histograms: Tensor, class_weights: Sequence[float]) -> float:
    """About what ``weighted_dice_loss`` gives for all slices together, inside the lungs and without its ``smooth``."""
    lesion, healthy = histograms.sum(dim=0).double()
    probability = (torch.arange(BINS) + 0.5) / BINS
    overlap = torch.stack([(healthy * (1 - probability)).sum(), (lesion * probability).sum()])
    predicted = torch.stack([((lesion + healthy) * share).sum() for share in (1 - probability, probability)])
    weights = torch.tensor(class_weights, dtype=torch.float64)
    size = predicted + torch.stack([healthy.sum(), lesion.sum()])
    return 1 - ((weights * 2 * overlap).sum() / (weights * size).sum()).item()


class SliceHistogramd(Transform):
    """Put :func:`slice_histogram` of logits ``data[key]`` into ``data["histogram"]``; three masks of one shape."""

    def __init__(self, key: str = "pred", truth_key: str = "label", lung_key: str = "lung") -> None:
        self.key, self.truth_key, self.lung_key = key, truth_key, lung_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        probability, truth, lung = (
            convert_to_tensor(data[key]).cpu() for key in (self.key, self.truth_key, self.lung_key)
        )
        return {**data, "histogram": slice_histogram(probability.sigmoid(), truth > 0, lung > 0)}
