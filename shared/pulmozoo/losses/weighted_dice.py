"""Dice loss of one lesion with weights on lesion and background.

Source: SR-Net's paper (Bermejo-Peláez et al., ISBI 2019) names a class-weighted Dice loss and gives no formula; this
one is ours.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def inverse_frequency_weights(counts: Sequence[float]) -> list[float]:
    """Weights of the classes from their pixels in the training set: 1 / frequency, scaled to the sum 1.

    A class without pixels raises ValueError.
    """
    if min(counts) <= 0:
        raise ValueError(f"each class needs pixels in the training set, got {list(counts)}: leave the empty class out")
    inverse = [1 / count for count in counts]
    return [weight / sum(inverse) for weight in inverse]


def weighted_dice_loss(logits: Tensor, label: Tensor, class_weights: Sequence[float], smooth: float = 1.0) -> Tensor:
    """``1 - sum_c w_c (2 sum p_c g_c + smooth) / sum_c w_c (sum p_c + sum g_c + smooth)``, over the whole batch.

    Logits are ``(B, 1, *S)``, labels 0 or 1 of the same shape; the weights are those of background and lesion. With a
    background of weight 0 it is the plain soft Dice loss.
    """
    if logits.shape != label.shape or logits.shape[1] != 1:
        raise ValueError(f"logits and label must both be (B, 1, ...), got {tuple(logits.shape)}, {tuple(label.shape)}")
    lesion = logits.to(torch.promote_types(logits.dtype, torch.float32)).sigmoid().flatten()
    truth = label.to(lesion).flatten()
    prob, known = torch.stack([1 - lesion, lesion]), torch.stack([1 - truth, truth])
    weights = prob.new_tensor(class_weights)
    overlap, size = (prob * known).sum(dim=1), (prob + known).sum(dim=1)
    return 1 - (weights * (2 * overlap + smooth)).sum() / (weights * (size + smooth)).sum()


class WeightedDiceLoss(nn.Module):
    """:func:`weighted_dice_loss` with fixed weights of background and lesion.

    Args:
        cross_entropy: share of the mean binary cross-entropy that is added (ours). On few scans Dice alone may fall to
            an empty answer or take long to find the lesion.
    """

    def __init__(self, class_weights: Sequence[float], smooth: float = 1.0, cross_entropy: float = 0.0) -> None:
        super().__init__()
        self.class_weights = class_weights
        self.smooth = smooth
        self.cross_entropy = cross_entropy

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        dice = weighted_dice_loss(logits, label, self.class_weights, self.smooth)
        return dice + self.cross_entropy * F.binary_cross_entropy_with_logits(logits.float(), label.float())
