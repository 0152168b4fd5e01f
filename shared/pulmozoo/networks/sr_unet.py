"""SR-UNet: a 3D U-Net's encoder with slice recovery and a flat decoder; SR-Net's comparator. A reconstruction.

Source: Bermejo-Peláez et al., ISBI 2019 (see ``srnet``), after Ronneberger et al., "U-Net", MICCAI 2015,
https://arxiv.org/abs/1505.04597. The paper gives no details; depth is pooled until one slice is left.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..blocks.dense import ConvUnit, Kernel
from ..blocks.slice_recovery import recover_slices
from .srnet import FLAT, check_stack

DEPTH = 8
POOLINGS = 4


class TwoUnits(nn.Sequential):
    """``(B, in, D, H, W) -> (B, out, D, H, W)``."""

    def __init__(self, in_channels: int, out_channels: int, kernel: Kernel) -> None:
        super().__init__(ConvUnit(in_channels, out_channels, kernel), ConvUnit(out_channels, out_channels, kernel))


class SRUNet(nn.Module):
    """``(B, 1, 8, H, W)`` to ``(B, 1, 1, H, W)`` logits of slice 4; ``H`` and ``W`` must be divisible by 16.

    Args:
        base: channels of the finest level; each level below has twice as many.
    """

    def __init__(self, base: int = 64) -> None:
        super().__init__()
        widths = [base * 2**level for level in range(POOLINGS + 1)]
        ins = [1, *widths]
        self.encoder = nn.ModuleList(TwoUnits(ins[i], widths[i], (3, 3, 3)) for i in range(POOLINGS))
        self.bottom = TwoUnits(ins[-2], widths[-1], (3, 3, 3))
        self.up = nn.ModuleList(
            nn.ConvTranspose3d(2 * width, width, kernel_size=(1, 2, 2), stride=(1, 2, 2)) for width in widths[-2::-1]
        )
        self.decoder = nn.ModuleList(TwoUnits(2 * width, width, FLAT) for width in widths[-2::-1])
        self.head = nn.Conv3d(base, 1, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        check_stack(image, DEPTH, multiple=2**POOLINGS)
        x, levels = image, []
        for block in self.encoder:
            levels.append(block(x))
            x = F.max_pool3d(levels[-1], kernel_size=(min(2, levels[-1].shape[2]), 2, 2))
        x = self.bottom(x)
        for up, block, skip in zip(self.up, self.decoder, reversed(recover_slices(levels)), strict=True):
            x = block(torch.cat([up(x), skip], dim=1))
        return self.head(x)
