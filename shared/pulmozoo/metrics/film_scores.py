"""How well films are marked and told apart: Dice with the empty-mask rule, accuracy, area under the ROC curve.

Source of the rule and the thresholds: Viel and Orhan 2020 (Dice at 0.5, mean over films; accuracy at 0.5).
"""

from collections.abc import Hashable, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import torch
from monai.metrics.rocauc import compute_roc_auc
from monai.transforms import Transform
from monai.utils import convert_to_tensor
from torch import Tensor

from ..transforms.film_mask import film_mask


def film_dice(prediction: Tensor, truth: Tensor) -> float:
    """Dice of two masks of one shape, 0 to 1; 1 where both are empty."""
    if prediction.shape != truth.shape:
        raise ValueError(f"both masks must have one shape, got {tuple(prediction.shape)} and {tuple(truth.shape)}")
    found, wanted = prediction > 0, truth > 0
    size = int(found.sum()) + int(wanted.sum())
    return 2 * int((found & wanted).sum()) / size if size else 1.0


def accuracy(probabilities: Sequence[float], truths: Sequence[int], threshold: float = 0.5) -> float:
    """Share of films on the right side of a threshold; truths are 0 or 1."""
    right = [(p >= threshold) == bool(truth) for p, truth in zip(probabilities, truths, strict=True)]
    return sum(right) / len(right)


def area_under_curve(probabilities: Sequence[float], truths: Sequence[int]) -> float:
    """Area under the ROC curve, ties counted half; raises ValueError unless both kinds of film are there."""
    if set(truths) != {0, 1}:
        raise ValueError(f"AUC needs films with (1) and without (0) a pneumothorax, got {sorted(set(truths))}")
    area: Any = compute_roc_auc(torch.tensor(probabilities), torch.tensor(truths))
    return float(area)


class Postprocessing(NamedTuple):
    """A way from probabilities to masks, and the mean Dice that it reached."""

    threshold: float
    min_area_px: float
    dice: float


def best_postprocessing(
    probabilities: Sequence[Tensor],
    truths: Sequence[Tensor],
    thresholds: Sequence[float] = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
    min_areas_px: Sequence[float] = (0, 50, 100, 200, 400, 800, 1600),
) -> Postprocessing:
    """The threshold and the smallest part with the best mean Dice over validation films; the first of equals.

    Args:
        probabilities: ``(2, H, W)`` of each film on the network's grid, as :func:`film_mask` takes them.
        truths: ``(1, H, W)`` masks.
        min_areas_px: in pixels of that grid.
    """
    tried = []
    for threshold, min_area_px in product(thresholds, min_areas_px):
        masks = (film_mask(p, threshold, min_area_px) for p in probabilities)
        scores = [film_dice(mask, truth) for mask, truth in zip(masks, truths, strict=True)]
        tried.append(Postprocessing(threshold, min_area_px, sum(scores) / len(scores)))
    best = max(one.dice for one in tried)
    return next(one for one in tried if one.dice == best)


class FilmScoresd(Transform):
    """Add to ``data["result"]`` what a film says about the network.

    ``dice`` of the mask ``data[key]`` against ``data[truth_key]`` on one grid (None where the truth is a number: then
    only the class of the film is known), ``probability`` of a pneumothorax and ``truth``, 1 or 0.
    """

    def __init__(self, key: str, truth_key: str, probabilities_key: str = "probabilities") -> None:
        self.key, self.truth_key, self.probabilities_key = key, truth_key, probabilities_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        truth = convert_to_tensor(data[self.truth_key]).cpu()
        scores = {
            "dice": film_dice(convert_to_tensor(data[self.key]).cpu(), truth) if truth.ndim else None,
            "probability": float(convert_to_tensor(data[self.probabilities_key])[1].mean()),
            "truth": int((truth > 0).any()),
        }
        return {**data, "result": {**data.get("result", {}), **scores}}
