"""Squeeze and excitation by channel and by place (scSE).

Source: Roy, Navab, Wachinger, "Concurrent spatial and channel squeeze and excitation in fully convolutional networks",
MICCAI 2018, https://arxiv.org/abs/1803.02579. There the map of places has one channel; the published program of Viel
and Orhan (TheoViel/pneumothorax_segmentation) gives each channel a map of its own.
"""

from torch import Tensor, nn
from torch.nn import functional as F

REDUCTION = 16
FEWEST = 4  # squeezed channels; a single one would easily stay below 0, and learn no more


class ScSE(nn.Module):
    """``x`` times a weight for each channel, plus ``x`` times a weight for each place: ``(B, C, H, W)`` to the same.

    Args:
        channels: ``C``.
        sse_channels: channels of the map of places, ``C`` or 1.
    """

    def __init__(self, channels: int, sse_channels: int) -> None:
        super().__init__()
        squeezed = max(FEWEST, channels // REDUCTION)
        self.squeeze = nn.Conv2d(channels, squeezed, kernel_size=1)
        self.excite = nn.Conv2d(squeezed, channels, kernel_size=1)
        self.place = nn.Conv2d(channels, sse_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        by_channel = self.excite(F.relu(self.squeeze(x.mean(dim=(2, 3), keepdim=True)))).sigmoid()
        return x * by_channel + x * self.place(x).sigmoid()
