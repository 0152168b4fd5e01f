"""The baseline without a network: logistic regression on the mean and the spread of the density around each pixel.

Ours, to see how much of a task needs more than that; trained by the same loss as the networks.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..blocks.slice_by_slice import slice_by_slice

CLASSES = 6
WINDOWS = (3, 7, 15)  # pixels


class LocalStatistics(nn.Module):
    """Slices ``(B, 1, H, W) -> (B, 6, H, W)`` logits, or volumes ``(B, 1, D, H, W)`` slice by slice; any size.

    Features are mean and standard deviation, in tenths of the window's width, in squares of three sizes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(2 * len(WINDOWS), CLASSES, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        return slice_by_slice(self.slices, image)

    def slices(self, x: Tensor) -> Tensor:
        """``(B, 1, H, W) -> (B, 6, H, W)``."""
        features = []
        for width in WINDOWS:
            mean, square = (local_mean(values, width) for values in (x, x.square()))
            features += [mean, (square - mean.square()).clamp(min=0).sqrt()]
        return self.head(10 * torch.cat(features, dim=1))


def local_mean(x: Tensor, width: int) -> Tensor:
    """Mean over a square of odd ``width`` around each pixel, of those that the slice has."""
    return F.avg_pool2d(x, width, stride=1, padding=width // 2, count_include_pad=False)
