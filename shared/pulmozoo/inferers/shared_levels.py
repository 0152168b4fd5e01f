"""Stage 2 of CTSU-Net with the features of overlapping tiles computed once.

Ours; the published program computes each tile by itself. The answer is the same, for convolutions without padding see
nothing beyond the tile. Starts of tiles are multiples of 4, so the first two poolings pair the same voxels in every
tile. They need not be multiples of 8: the third pooling, and what lies below it, is each tile's own.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..networks.ctsunet import CTSUNet

SHRINK = 4  # voxels that two 3x3x3 convolutions without padding take off an axis
CROPS = (40, 16)  # features at each side of a tile that the way up does not use, in the two finest levels
SLAB = 32  # slices of the finest level that are in memory at once

Start = tuple[int, ...]


def pooled_and_skip(block: nn.Module, x: Tensor, crop: int) -> tuple[Tensor, Tensor]:
    """A level slab by slab: its features pooled by 2, and those that skips use, ``crop`` fewer at each side."""
    depth, height, width = (size - SHRINK for size in x.shape[2:])
    pooled = skip = torch.empty(0)
    for first in range(0, depth, SLAB):
        last = min(first + SLAB, depth)
        slab = block(x[:, :, first : last + SHRINK])
        if first == 0:
            batch, channels = slab.shape[:2]
            pooled = empty_like(slab, (batch, channels, depth // 2, height // 2, width // 2))
            skip = empty_like(slab, (batch, channels, depth - 2 * crop, height - 2 * crop, width - 2 * crop))
        pooled[:, :, first // 2 : last // 2] = F.max_pool3d(slab, kernel_size=2)
        begin, end = max(first, crop), min(last, depth - crop)
        if begin < end:
            inner = slab[:, :, begin - first : end - first, crop : height - crop, crop : width - crop]
            skip[:, :, begin - crop : end - crop] = inner
    return pooled, skip


def empty_like(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Uninitialised, with the type, device and memory format of ``x``."""
    dense = x.is_contiguous()
    return torch.empty(
        shape,
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.contiguous_format if dense else torch.channels_last_3d,
    )


class SharedLevels:
    """What stage 2 needs of the way down for any tile of a region.

    Args:
        network: its second stage is used.
        padded: scan and stage-1 maps in the padded frame, ``(1, 8, D, H, W)``.
        starts: first voxels of the tiles, multiples of 4.
        tile: their size.
    """

    def __init__(self, network: CTSUNet, padded: Tensor, starts: Sequence[Start], tile: int) -> None:
        self.network = network
        self.tile = tile
        self.padded_shape = padded.shape[2:]
        self.first = [min(axis) for axis in zip(*starts, strict=True)]
        ends = [max(axis) + tile for axis in zip(*starts, strict=True)]
        z, y, x = (slice(begin, end) for begin, end in zip(self.first, ends, strict=True))
        down = network.patch_unet.down
        pooled, finest = pooled_and_skip(down[0], padded[:, :, z, y, x], CROPS[0])
        pooled, middle = pooled_and_skip(down[1], pooled, CROPS[1])
        self.levels = [finest, middle, down[2](pooled)]

    def __call__(self, starts: Sequence[Start]) -> Tensor:
        """Logits of tiles, ``(B, 7, tile - 88, ...)``."""
        levels = []
        size = self.tile
        for index, level in enumerate(self.levels):
            size = (size if index == 0 else size // 2) - SHRINK
            wanted = size - 2 * CROPS[index] if index < len(CROPS) else size
            levels.append(torch.cat([self.part(level, start, 2**index, wanted) for start in starts]))
        places = torch.tensor(starts, device=self.levels[0].device)
        return self.network.stage2_from_levels(levels, [self.tile] * 3, places, self.padded_shape)

    def part(self, level: Tensor, start: Start, stride: int, size: int) -> Tensor:
        """A tile's part of a level."""
        z, y, x = ((at - first) // stride for at, first in zip(start, self.first, strict=True))
        return level[:, :, z : z + size, y : y + size, x : x + size]
