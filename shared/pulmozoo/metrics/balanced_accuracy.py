"""Accuracy over annotated pixels, pooled over all images: balanced over the classes, or weighted.

Source: Anthimopoulos et al., https://arxiv.org/abs/1803.06167. MONAI's ``ConfusionMatrixMetric`` averages over images
and knows no pixel that is not annotated.
"""

from typing import Any

import torch
from monai.metrics import CumulativeIterationMetric
from torch import Tensor


def annotated_confusion(logits: Tensor, label: Tensor) -> Tensor:
    """Pixels by true class (rows) and by predicted class: ``(C, C)``, int64.

    Logits are ``(B, C, *S)``, labels ``(B, 1, *S)`` with 0 where not annotated; channel c is label c + 1.
    """
    expected = (logits.shape[0], 1, *logits.shape[2:])
    if label.shape != expected:
        raise ValueError(f"label must have shape {expected} to match logits, got {tuple(label.shape)}")
    classes = logits.shape[1]
    truth = label.flatten().long()
    guess = logits.argmax(dim=1).flatten()
    pairs = ((truth - 1) * classes + guess)[truth > 0]
    return torch.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def balanced_accuracy(confusion: Tensor) -> float:
    """Mean over the classes with pixels of the share that is right, 0 to 1; ValueError if no class has any.

    It is also the accuracy weighted by the median frequencies of the same pixels, which the published program watches.
    """
    pixels = confusion.sum(dim=1)
    if not pixels.any():
        raise ValueError("no pixel is annotated, so there is no accuracy; check the labels of this set")
    present = pixels > 0
    return float((confusion.diagonal()[present].double() / pixels[present]).mean())


def weighted_accuracy(confusion: Tensor, class_weights: Tensor) -> float:
    """Share of the right among annotated pixels, 0 to 1, each pixel counted with the weight of its class ``(C,)``."""
    right, pixels = (class_weights.double() * counts for counts in (confusion.diagonal(), confusion.sum(dim=1)))
    return float(right.sum() / (pixels.sum() + 1e-8))


class BalancedAccuracy(CumulativeIterationMetric):
    """:func:`balanced_accuracy` over an epoch, for ``IgniteMetricHandler``.

    The handler needs ``save_details=False``, for the details would be confusion matrices.
    """

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Logits and labels of a batch to a confusion matrix for each image: ``(B, C, C)``."""
        if y is None:
            raise ValueError("BalancedAccuracy needs labels")
        return torch.stack([annotated_confusion(y_pred[i : i + 1], y[i : i + 1]) for i in range(len(y_pred))])

    def confusion(self) -> Tensor:
        """Of all images of the epoch: ``(C, C)``."""
        matrices = self.get_buffer()
        if not isinstance(matrices, Tensor):
            raise ValueError("no image was given, so there is no accuracy; check the validation set")
        return matrices.sum(dim=0)

    def aggregate(self) -> float:
        return balanced_accuracy(self.confusion())
