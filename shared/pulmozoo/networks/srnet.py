"""SR-Net: paraseptal emphysema in one axial slice, from a stack of eight around it. A reconstruction.

Source: Bermejo-Peláez, Okajima, Washko, Ledesma-Carbayo, San José Estépar, "A SR-Net 3D-to-2D architecture for
paraseptal emphysema segmentation", IEEE ISBI 2019. No code was published. The paper fixes the plan: dense blocks,
down blocks that join pooling and strided convolution, slice recovery on the skips, a flat decoder. It does not give
levels, channels, growth, layers a block, normalisation or the target slice: those are ours, as are PyTorch's defaults
for batch norm (eps 1e-5, momentum 0.1).
"""

import torch
from torch import Tensor, nn

from ..blocks.dense import DenseBlock, Kernel
from ..blocks.plane_size import check_plane_size
from ..blocks.slice_recovery import recover_slices

GROWTH = 16
LAYERS = (2, 3, 4)  # of the dense blocks, finest first, on the way down and up
BOTTOM_LAYERS = 5
DOWN = (16, 32, 64)  # channels of the strided convolutions
UP = (32, 64, 128)  # channels of the transposed convolutions, finest first
FLAT: Kernel = (1, 3, 3)
DEPTHS = (1, 8)


class DownBlock(nn.Module):
    """ENet's: halve by pooling and by convolution, side by side; ``(B, in, ...) -> (B, in + convolved, ...)``.

    Source: Paszke et al., "ENet", https://arxiv.org/abs/1606.02147, the initial block.
    """

    def __init__(self, in_channels: int, convolved: int, kernel: Kernel) -> None:
        super().__init__()
        flat = kernel == FLAT
        stride = (1, 2, 2) if flat else (2, 2, 2)
        self.pool = nn.MaxPool3d(stride)
        self.convolution = nn.Conv3d(in_channels, convolved, kernel, stride, padding=(int(not flat), 1, 1), bias=False)
        self.norm = nn.BatchNorm3d(in_channels + convolved)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(torch.cat([self.pool(x), self.convolution(x)], dim=1)).relu()


class SRNet(nn.Module):
    """``(B, 1, depth, H, W)`` in [0, 1], 0 outside the lung, to ``(B, 1, 1, H, W)`` logits of slice ``depth // 2``.

    ``H`` and ``W`` must be divisible by 8.

    Args:
        depth: 8 is SR-Net; 1 is the paper's 2D-Net, the same plan without context.
        width: of all blocks, 1 is the reconstruction; 0.5 gives 8 channels a layer in place of 16, and so on.
    """

    def __init__(self, depth: int = 8, width: float = 1.0) -> None:
        super().__init__()
        if depth not in DEPTHS:
            raise ValueError(f"depth must be 8 (SR-Net) or 1 (2D-Net), got {depth}")
        self.depth = depth
        kernel = FLAT if depth == 1 else (3, 3, 3)
        growth, narrow_down, narrow_up = (
            round(GROWTH * width),
            [round(c * width) for c in DOWN],
            [round(c * width) for c in UP],
        )
        self.encoder, self.down, self.up, self.decoder = (nn.ModuleList() for _ in range(4))
        channels, skips = 1, []
        for layers, convolved in zip(LAYERS, narrow_down, strict=True):
            block = DenseBlock(channels, layers, growth, kernel)
            self.encoder.append(block)
            self.down.append(DownBlock(block.out_channels, convolved, kernel))
            skips.append(block.out_channels)
            channels = block.out_channels + convolved
        self.bottom = DenseBlock(channels, BOTTOM_LAYERS, growth, kernel)
        channels = self.bottom.out_channels
        for layers, raised, skip in reversed(list(zip(LAYERS, narrow_up, skips, strict=True))):
            self.up.append(nn.ConvTranspose3d(channels, raised, kernel_size=(1, 2, 2), stride=(1, 2, 2)))
            block = DenseBlock(raised + skip, layers, growth, FLAT)
            self.decoder.append(block)
            channels = block.out_channels
        self.head = nn.Conv3d(channels, 1, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        check_stack(image, self.depth, multiple=2 ** len(LAYERS))
        x, levels = image, []
        for block, down in zip(self.encoder, self.down, strict=True):
            levels.append(block(x))
            x = down(levels[-1])
        x = self.bottom(x)
        for up, block, skip in zip(self.up, self.decoder, reversed(recover_slices(levels)), strict=True):
            x = block(torch.cat([up(x), skip], dim=1))
        return self.head(x)


def check_stack(image: Tensor, depth: int, multiple: int) -> None:
    """A stack must be ``(B, 1, depth, H, W)`` with a plane divisible by ``multiple``; else ValueError."""
    if image.ndim != 5 or image.shape[1:3] != (1, depth):
        raise ValueError(f"image must have shape (B, 1, {depth}, H, W), got {tuple(image.shape)}")
    check_plane_size(image.shape[3:], multiple)
