"""How well a map of emphysema and its scores fit the truth."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.transforms import Transform
from monai.utils import convert_to_tensor
from torch import Tensor

SUBTYPES = {"cle": 1, "pse": 2}  # labels


def overlap(found: Tensor, wanted: Tensor) -> float | None:
    """Dice of two masks of one shape; None where both are empty."""
    size = int(found.sum()) + int(wanted.sum())
    return 2 * int((found & wanted).sum()) / size if size else None


def subtype_overlaps(prediction: Tensor, truth: Tensor) -> dict[str, float | None]:
    """Dice of each subtype and of their union, and how much of what both call emphysema has the right subtype.

    Both are label maps of one shape, 1 centrilobular and 2 paraseptal; None where nothing is to be compared.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"both maps must have one shape, got {tuple(prediction.shape)} and {tuple(truth.shape)}")
    both = (prediction > 0) & (truth > 0)
    right = int((prediction[both] == truth[both]).sum())
    return {
        "union_dice": overlap(prediction > 0, truth > 0),
        **{f"{name}_dice": overlap(prediction == label, truth == label) for name, label in SUBTYPES.items()},
        "right_subtype": right / int(both.sum()) if both.any() else None,
    }


class SubtypeScoresd(Transform):
    """Add to ``data["result"]`` the true scores, ``cle_truth`` and ``pse_truth``, and where the truth has a label map
    on the grid of ``data[key]``, :func:`subtype_overlaps`."""

    def __init__(self, key: str = "pred", truth_key: str = "label") -> None:
        self.key, self.truth_key = key, truth_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        scores: dict[str, Any] = {f"{name}_truth": int(data[f"{name}_score"]) for name in SUBTYPES}
        if data.get(self.truth_key) is not None:
            prediction, truth = (convert_to_tensor(data[key]).cpu() for key in (self.key, self.truth_key))
            scores |= subtype_overlaps(prediction, torch.as_tensor(truth))
        return {**data, "result": {**data.get("result", {}), **scores}}
