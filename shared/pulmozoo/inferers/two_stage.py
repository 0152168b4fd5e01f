"""CTSU-Net on a whole scan: stage 1 on the halved scan, stage 2 tile by tile.

Source: Xie et al., https://arxiv.org/abs/2004.07443, section III; tiling as in the published program: tiles side by
side, the last of an axis flush with its end, overlaps averaged, nothing outside the box of the stage-1 lobes.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import torch
from monai.inferers import Inferer
from monai.utils import convert_to_tensor
from torch import Tensor
from torch.nn import functional as F

from ..networks.ctsunet import LOBE_CLASSES, MARGIN, OUT_CHANNELS, CTSUNet, probabilities, window_starts

logger = logging.getLogger(__name__)

BOX_MARGIN = 2  # voxels around the stage-1 lobes, as published

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


def foreground_box(lobe_logits: Tensor, margin: int = BOX_MARGIN) -> Box | None:
    """Half-open box around all voxels whose largest logit is a lobe; ``(6, D, H, W)``; None where there is none."""
    foreground = lobe_logits.argmax(dim=0) > 0
    if not foreground.any():
        return None
    ends = []
    for axis in range(3):
        inside = foreground.any(dim=[other for other in range(3) if other != axis]).nonzero()
        first, last = int(inside[0]), int(inside[-1])
        ends.append((max(0, first - margin), min(foreground.shape[axis], last + margin + 1)))
    return ends[0], ends[1], ends[2]


def tiles_in_box(shape: Sequence[int], size: int, box: Box) -> list[tuple[int, ...]]:
    """Starts of the output tiles that cover a scan and touch the box."""
    axes = [
        [start for start in window_starts(length, size) if start < end and start + size > begin]
        for length, (begin, end) in zip(shape, box, strict=True)
    ]
    return list(product(*axes))


def batched(items: Sequence[tuple[int, ...]], size: int) -> Iterator[Sequence[tuple[int, ...]]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]


class TwoStageInferer(Inferer):
    """Probabilities of a whole scan, ``(B, 1, D, H, W)`` in [0, 1] to ``(B, 7, D, H, W)``; any size.

    Six lobe probabilities, then the border's. Outside the box of the stage-1 lobes all are 0: argmax is background.

    Args:
        tile: input size of a stage-2 tile, 4 mod 8 and at least 92; 88 voxels of each axis are context only.
        batch: tiles a batch.
        amp: bfloat16 where it is safe; on a CPU with bfloat16 instructions several times faster.
    """

    def __init__(self, tile: int = 132, batch: int = 1, *, amp: bool = False) -> None:
        super().__init__()
        self.tile = tile
        self.batch = batch
        self.amp = amp

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        bare = getattr(network, "module", network)
        if not isinstance(bare, CTSUNet):
            raise TypeError(f"TwoStageInferer needs a CTSUNet, got {type(bare).__name__}")
        return torch.stack([self.one_scan(image[None], bare) for image in convert_to_tensor(inputs)])

    def one_scan(self, image: Tensor, network: CTSUNet) -> Tensor:
        """``(1, 1, D, H, W) -> (7, D, H, W)``."""
        front = [-n % 16 for n in image.shape[2:]]  # the published program pads at the front
        image = F.pad(image, [size for pad in reversed(front) for size in (pad, 0)])
        shape = tuple(image.shape[2:])
        with torch.autocast(image.device.type, dtype=torch.bfloat16, enabled=self.amp):
            logits = network.scan_logits(like_weights(image, network)).float()
        box = foreground_box(logits[0, :LOBE_CLASSES])
        total = torch.zeros(OUT_CHANNELS, *shape, device=image.device)
        if box is None:
            logger.warning("stage 1 found no lobes")
        else:
            logger.info("stage 1: lobes inside %s of %s voxels", box, shape)
            stack = torch.cat([image, probabilities(logits)], dim=1)
            del logits
            self.add_tiles(stack, box, network, total)
        z, y, x = front
        return total[:, z:, y:, x:]

    def add_tiles(self, stack: Tensor, box: Box, network: CTSUNet, total: Tensor) -> None:
        """Write the mean of the stage-2 tiles of ``stack`` ``(1, 8, D, H, W)`` into ``total``, inside the box only."""
        shape = tuple(stack.shape[2:])
        out = self.tile - 2 * MARGIN
        # An axis shorter than a tile is filled up at its end.
        padded = F.pad(stack, [size for n in reversed(shape) for size in (MARGIN, MARGIN + max(0, out - n))])
        starts = tiles_in_box(shape, out, box)
        count = torch.zeros(shape, device=stack.device)
        done = 0
        for group in batched(starts, self.batch):
            patches = torch.cat(
                [padded[:, :, z : z + self.tile, y : y + self.tile, x : x + self.tile] for z, y, x in group]
            )
            first = torch.tensor(group, device=stack.device)
            with torch.autocast(stack.device.type, dtype=torch.bfloat16, enabled=self.amp):
                tiles = network.stage2(like_weights(patches, network), first, padded.shape[2:]).float()
            for tile, (z, y, x) in zip(probabilities(tiles), group, strict=True):
                d, h, w = (min(out, n - at) for n, at in zip(shape, (z, y, x), strict=True))
                total[:, z : z + d, y : y + h, x : x + w] += tile[:, :d, :h, :w]
                count[z : z + d, y : y + h, x : x + w] += 1
            done += len(group)
            logger.info("stage 2: %d of %d tiles", done, len(starts))
        outside = torch.ones(shape, dtype=torch.bool, device=stack.device)
        outside[tuple(slice(begin, end) for begin, end in box)] = False
        total /= count.clamp_(min=1)
        total.masked_fill_(outside, 0)


def like_weights(x: Tensor, network: CTSUNet) -> Tensor:
    """In the memory format of the network's weights; convolutions are fastest when both agree."""
    weight = next(network.patch_unet.bridge.parameters())
    if weight.is_contiguous(memory_format=torch.channels_last_3d) and not weight.is_contiguous():
        return x.contiguous(memory_format=torch.channels_last_3d)
    return x.contiguous()
