"""2D U-Net with padded convolutions, the comparator of SR-Net and of LungNet.

Source: Ronneberger, Fischer, Brox, "U-Net", MICCAI 2015, https://arxiv.org/abs/1505.04597.
Differs from the paper: convolutions keep the size, no dropout. MONAI's ``BasicUNet`` has a wider last level (31,100,289
parameters with one output), so it is not the network that both papers counted.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..blocks.plane_size import check_plane_size
from ..blocks.slice_by_slice import slice_by_slice

POOLINGS = 4
NORMS = {"batch": nn.BatchNorm2d, "instance": nn.InstanceNorm2d}


def conv_unit(in_channels: int, out_channels: int, norm: Literal["batch", "instance"] | None) -> nn.Sequential:
    """Convolution, norm, ReLU; without a norm the convolution has a bias."""
    if norm is None:
        return nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.ReLU(inplace=True))
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
        NORMS[norm](out_channels, affine=True),
        nn.ReLU(inplace=True),
    )


class UNet2d(nn.Module):
    """``(B, 1, H, W) -> (B, out_channels, H, W)`` logits, or slice by slice ``(B, 1, D, H, W)`` to as many.

    ``H`` and ``W`` must be divisible by 16.

    Args:
        out_channels: classes; 1 for a single lesion.
        norm: statistics of the batch, of each slice by itself, or none.
        base: channels of the finest level; each level below has twice as many.
    """

    def __init__(
        self, out_channels: int = 1, norm: Literal["batch", "instance"] | None = "batch", base: int = 64
    ) -> None:
        super().__init__()
        widths = [base * 2**level for level in range(POOLINGS + 1)]
        ins = [1, *widths]
        self.encoder = nn.ModuleList(two_units(ins[i], widths[i], norm) for i in range(POOLINGS))
        self.bottom = two_units(ins[-2], widths[-1], norm)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(2 * width, width, kernel_size=2, stride=2) for width in widths[-2::-1]
        )
        self.decoder = nn.ModuleList(two_units(2 * width, width, norm) for width in widths[-2::-1])
        self.head = nn.Conv2d(base, out_channels, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        check_plane_size(image.shape[-2:], multiple=2**POOLINGS)
        return slice_by_slice(self.slices, image)

    def slices(self, x: Tensor) -> Tensor:
        """``(B, 1, H, W) -> (B, out_channels, H, W)``."""
        skips: list[Tensor] = []
        for block in self.encoder:
            skips.append(block(x))
            x = F.max_pool2d(skips[-1], kernel_size=2)
        x = self.bottom(x)
        for up, block in zip(self.up, self.decoder, strict=True):
            x = block(torch.cat([up(x), skips.pop()], dim=1))
        return self.head(x)


def two_units(in_channels: int, out_channels: int, norm: Literal["batch", "instance"] | None) -> nn.Sequential:
    return nn.Sequential(conv_unit(in_channels, out_channels, norm), conv_unit(out_channels, out_channels, norm))
