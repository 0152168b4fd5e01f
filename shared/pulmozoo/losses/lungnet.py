"""LungNet's semi-supervised loss: cross-entropy where a radiologist drew, entropy in the rest of the lung.

Source: Anthimopoulos et al., https://arxiv.org/abs/1803.06167. Each term is a mean over its own pixels, as in the
published program, which is what the paper's factor for the two areas is for.

Labels are ``(B, 1, *S)``: 0 not annotated, 1 to C the classes. Channel c of the logits ``(B, C, *S)`` is label c + 1.
"""

from collections.abc import Sequence
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPS = 1e-8


def median_frequency_weights(counts: Sequence[float]) -> list[float]:
    """Weights of the classes from their annotated pixels: median count / count; a class without pixels gets 0.

    The median is that of the classes with pixels; ValueError if none has any.
    """
    present = [count for count in counts if count > 0]
    if not present:
        raise ValueError("no class has annotated pixels, so there are no class weights; check the labels of this set")
    return [median(present) / count if count > 0 else 0.0 for count in counts]


def annotated_cross_entropy(logits: Tensor, label: Tensor, class_weights: Sequence[float]) -> Tensor:
    """Cross-entropy weighted by class, mean over the weights of the annotated pixels; 0 where there are none."""
    weights = logits.new_tensor(class_weights)
    truth = label[:, 0].long() - 1
    total = F.cross_entropy(logits, truth, weights, ignore_index=-1, reduction="sum")
    return total / (weights[truth.clamp(min=0)][truth >= 0].sum() + EPS)


def unlabelled_entropy(logits: Tensor, label: Tensor, lung: Tensor) -> Tensor:
    """Mean entropy (nats) of the prediction on lung pixels without annotation; 0 where there are none."""
    unlabelled = (lung > 0) & (label == 0)
    log_prob = logits.log_softmax(dim=1)
    entropy = -(log_prob.exp() * log_prob).sum(dim=1, keepdim=True)
    return (entropy * unlabelled).sum() / (unlabelled.sum() + EPS)


class LungNetLoss(nn.Module):
    """``(1 - w) * annotated_cross_entropy + w * unlabelled_entropy``, both over the whole batch.

    Args:
        class_weights: one for each class, see :func:`median_frequency_weights`.
        unlabelled_weight: ``w``, 0.1 in the paper; 0 is the purely supervised loss.
    """

    def __init__(self, class_weights: Sequence[float], unlabelled_weight: float = 0.1) -> None:
        super().__init__()
        self.class_weights = class_weights
        self.unlabelled_weight = unlabelled_weight

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Logits ``(B, C, *S)``; the target's two channels ``(B, 2, *S)`` are the label and the lung mask."""
        expected = (logits.shape[0], 2, *logits.shape[2:])
        if target.shape != expected:
            raise ValueError(f"target must have shape {expected} to match logits, got {tuple(target.shape)}")
        label, lung = target.split(1, dim=1)
        logits = logits.float()
        supervised = annotated_cross_entropy(logits, label, self.class_weights)
        entropy = unlabelled_entropy(logits, label, lung)
        return torch.lerp(supervised, entropy, self.unlabelled_weight)
