"""Overlap of two lobe maps on the scan's own grid."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.transforms import Transform
from torch import Tensor


def intersection_over_union(prediction: Tensor, truth: Tensor, labels: int) -> list[float | None]:
    """IoU of labels 1 to ``labels`` of two integer maps of one shape; None where a label is in neither.

    Counted in one pass over the voxels; MONAI's ``compute_iou`` needs all labels one-hot at once.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"both maps must have one shape, got {tuple(prediction.shape)} and {tuple(truth.shape)}")
    size = labels + 1
    pairs = torch.bincount(prediction.flatten().long() * size + truth.flatten().long(), minlength=size * size)
    table = pairs.reshape(size, size)
    union = table.sum(dim=0) + table.sum(dim=1) - table.diagonal()
    return [table[i, i].item() / union[i].item() if union[i] else None for i in range(1, size)]


class LobeIoUd(Transform):
    """Add ``<label name>_iou`` and ``mean_iou`` of ``data[key]`` against ``data[truth_key]`` to ``data["result"]``."""

    def __init__(self, key: str, truth_key: str, label_names: Mapping[str, str]) -> None:
        self.key = key
        self.truth_key = truth_key
        self.names = [label_names[str(index)].replace(" ", "_") for index in range(1, len(label_names))]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        scores = intersection_over_union(
            data[self.key].as_tensor().cpu(), data[self.truth_key].as_tensor().cpu(), len(self.names)
        )
        known = [score for score in scores if score is not None]
        result = {f"{name}_iou": score for name, score in zip(self.names, scores, strict=True)}
        result["mean_iou"] = sum(known) / len(known) if known else None
        return {**data, "result": {**data.get("result", {}), **result}}
