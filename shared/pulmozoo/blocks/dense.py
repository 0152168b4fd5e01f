"""Dense block of 3D convolutions: every layer sees the input and all layers before it.

Source: Huang et al., "Densely connected convolutional networks", CVPR 2017, https://arxiv.org/abs/1608.06993.
Differs from it: one convolution a layer, normalised after it and not before, as SR-Net's figure shows.
"""

import torch
from torch import Tensor, nn

Kernel = tuple[int, int, int]


class ConvUnit(nn.Sequential):
    """Convolution that keeps the size, batch norm, ReLU: ``(B, in, D, H, W) -> (B, out, D, H, W)``."""

    def __init__(self, in_channels: int, out_channels: int, kernel: Kernel) -> None:
        super().__init__(
            nn.Conv3d(in_channels, out_channels, kernel, padding="same", bias=False),
            nn.BatchNorm3d(out_channels),
            nn.ReLU(inplace=True),
        )


class DenseBlock(nn.Module):
    """``(B, in, D, H, W) -> (B, in + layers * growth, D, H, W)``: the input, then what each layer found."""

    def __init__(self, in_channels: int, layers: int, growth: int, kernel: Kernel) -> None:
        super().__init__()
        self.units = nn.ModuleList(ConvUnit(in_channels + i * growth, growth, kernel) for i in range(layers))
        self.out_channels = in_channels + layers * growth

    def forward(self, x: Tensor) -> Tensor:
        for unit in self.units:
            x = torch.cat([x, unit(x)], dim=1)
        return x
