"""Accuracy over annotated pixels, pooled over all images and balanced over the classes.

Source: Anthimopoulos et al., https://arxiv.org/abs/1803.06167. MONAI's ``ConfusionMatrixMetric`` averages over images
and knows no pixel that is not annotated.
"""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.transforms import Transform
from monai.utils import convert_to_tensor
from torch import Tensor


def annotated_confusion(guess: Tensor, label: Tensor, classes: int) -> Tensor:
    """Pixels by true class (rows) and by predicted class: ``(C, C)``, int64.

    Both are integers of one shape, class 1 to ``classes``; pixels with label 0 are not annotated. A guess of 0, which
    is no lung, counts as class 1.
    """
    if guess.shape != label.shape:
        raise ValueError(f"label must have the shape of the guess {tuple(guess.shape)}, got {tuple(label.shape)}")
    known = label > 0
    truth, found = label[known].long() - 1, guess[known].long().clamp(min=1) - 1
    return torch.bincount(truth * classes + found, minlength=classes * classes).reshape(classes, classes)


def balanced_accuracy(confusion: Tensor) -> float:
    """Mean over the classes with pixels of the share that is right, 0 to 1; ValueError if no class has any.

    It is also the accuracy weighted by the median frequencies of the same pixels, which the published program watches.
    """
    pixels = confusion.sum(dim=1)
    if not pixels.any():
        raise ValueError("no pixel is annotated, so there is no accuracy; check the labels of this set")
    present = pixels > 0
    return float((confusion.diagonal()[present].double() / pixels[present]).mean())


class Confusiond(Transform):
    """Add ``data["confusion"]``, the :func:`annotated_confusion` of a guess and a label.

    Args:
        key: a label map ``(1, *S)``, or logits ``(classes, *S)`` whose channel c is class c + 1.
        truth_key: labels ``(1, *S)``.
        classes: without background.
    """

    def __init__(self, key: str, truth_key: str, classes: int) -> None:
        self.key, self.truth_key, self.classes = key, truth_key, classes

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        guess, label = (convert_to_tensor(data[key]).cpu() for key in (self.key, self.truth_key))
        if len(guess) == self.classes:
            guess = guess.argmax(dim=0, keepdim=True) + 1
        return {**data, "confusion": annotated_confusion(guess, label, self.classes)}
