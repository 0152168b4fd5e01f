"""CTSU-Net on a whole scan: stage 1 on the halved scan, stage 2 tile by tile.

Source: Xie et al., https://arxiv.org/abs/2004.07443, section III; tiling as in the published program: tiles side by
side, the last of an axis flush with its end, overlaps averaged, nothing outside the box of the stage-1 lobes.
"""

import logging
import time
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import torch
from monai.inferers import Inferer
from monai.utils import convert_to_tensor
from torch import Tensor
from torch.nn import functional as F

from ..networks.ctsunet import LOBE_CLASSES, MARGIN, OUT_CHANNELS, CTSUNet, probabilities, window_starts
from .shared_levels import SharedLevels, Start

logger = logging.getLogger(__name__)

BOX_MARGIN = 2  # voxels around the stage-1 lobes, as published

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


def box_around(foreground: Tensor, margin: int = BOX_MARGIN) -> Box | None:
    """Half-open box around all voxels of a mask ``(D, H, W)``, ``margin`` wider; None where there is none."""
    if not foreground.any():
        return None
    ends = []
    for axis in range(3):
        inside = foreground.any(dim=[other for other in range(3) if other != axis]).nonzero()
        first, last = int(inside[0]), int(inside[-1])
        ends.append((max(0, first - margin), min(foreground.shape[axis], last + margin + 1)))
    return ends[0], ends[1], ends[2]


def tiles_in_box(shape: Sequence[int], size: int, box: Box) -> list[Start]:
    """Starts of the output tiles that cover a scan and touch the box."""
    axes = [
        [start for start in window_starts(length, size) if start < end and start + size > begin]
        for length, (begin, end) in zip(shape, box, strict=True)
    ]
    return list(product(*axes))


def near_lobes(starts: Sequence[Start], size: int, foreground: Tensor, dilation: int) -> list[Start]:
    """Those tiles that hold a voxel of the foreground ``(D, H, W)``, dilated by a cube."""
    return [
        start
        for start in starts
        if foreground[tuple(slice(max(0, at - dilation), at + size + dilation) for at in start)].any()
    ]


class TwoStageInferer(Inferer):
    """Probabilities of a whole scan, ``(B, 1, D, H, W)`` in [0, 1] to ``(B, 7, D, H, W)``; any size.

    Six lobe probabilities, then the border's. Outside the box of the stage-1 lobes all are 0: argmax is background.

    Args:
        tile: input size of a stage-2 tile, 4 mod 8 and at least 92; 88 voxels of each axis are context only.
        batch: tiles a batch.
        amp: bfloat16 where it is safe; on a CPU with bfloat16 instructions several times faster.
        share_levels: compute features that tiles have in common once (ours); the answer is the same.
        refine: False leaves out stage 2 (ours): the answer of stage 1, which sees half the resolution.
        dilation: leave out tiles without stage-1 lobes, dilated by so many voxels (ours); None: none is left out.
    """

    def __init__(
        self,
        tile: int = 132,
        batch: int = 1,
        *,
        amp: bool = False,
        share_levels: bool = True,
        refine: bool = True,
        dilation: int | None = None,
    ) -> None:
        super().__init__()
        self.tile = tile
        self.batch = batch
        self.amp = amp
        self.share_levels = share_levels
        self.refine = refine
        self.dilation = dilation
        self.seconds: dict[str, float] = {}  # of the last scan: stage_1, stage_2

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        bare = getattr(network, "module", network)
        if not isinstance(bare, CTSUNet):
            raise TypeError(f"TwoStageInferer needs a CTSUNet, got {type(bare).__name__}")
        bare.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # several times faster in bfloat16
        return torch.stack([self.one_scan(image[None], bare) for image in convert_to_tensor(inputs)])

    def one_scan(self, image: Tensor, network: CTSUNet) -> Tensor:
        """``(1, 1, D, H, W) -> (7, D, H, W)``."""
        front = [-n % 16 for n in image.shape[2:]]  # the published program pads at the front
        image = F.pad(image, [size for pad in reversed(front) for size in (pad, 0)])
        shape = tuple(image.shape[2:])
        started = time.monotonic()
        with self.precision(image):
            logits = network.scan_logits(channels_last(image)).float()
        foreground = logits[0, :LOBE_CLASSES].argmax(dim=0) > 0
        box = box_around(foreground)  # waits for a GPU to finish
        between = time.monotonic()
        if box is None:
            logger.warning("stage 1 found no lobes")
            total = torch.zeros(OUT_CHANNELS, *shape, device=image.device)
        else:
            logger.info("stage 1: lobes inside %s of %s voxels", box, shape)
            maps = probabilities(logits)
            del logits
            if self.refine:
                starts = tiles_in_box(shape, self.tile - 2 * MARGIN, box)
                if self.dilation is not None:
                    starts = near_lobes(starts, self.tile - 2 * MARGIN, foreground, self.dilation)
                total = self.mean_of_tiles(torch.cat([image, maps], dim=1), starts, network)
            else:
                total = maps[0]
            outside = torch.ones(shape, dtype=torch.bool, device=image.device)
            outside[tuple(slice(begin, end) for begin, end in box)] = False
            total.masked_fill_(outside, 0)
        if total.is_cuda:
            torch.cuda.synchronize(total.device)
        self.seconds = {"stage_1": between - started, "stage_2": time.monotonic() - between}
        z, y, x = front
        return total[:, z:, y:, x:]

    def precision(self, x: Tensor) -> torch.autocast:
        return torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=self.amp)

    def mean_of_tiles(self, stack: Tensor, starts: Sequence[Start], network: CTSUNet) -> Tensor:
        """Stage 2 on the given tiles of ``stack`` ``(1, 8, D, H, W)``: ``(7, D, H, W)``, 0 where there is no tile."""
        shape = tuple(stack.shape[2:])
        out = self.tile - 2 * MARGIN
        # An axis shorter than a tile is filled up at its end.
        frame = [size for n in reversed(shape) for size in (MARGIN, MARGIN + max(0, out - n))]
        padded = channels_last(F.pad(stack.bfloat16() if self.amp else stack, frame))
        total, count = stack.new_zeros(OUT_CHANNELS, *shape), stack.new_zeros(shape)
        with self.precision(stack):
            tiles = (
                SharedLevels(network, padded, starts, self.tile)
                if self.share_levels
                else Tiles(network, padded, self.tile)
            )
            for first in range(0, len(starts), self.batch):
                group = starts[first : first + self.batch]
                for tile, (z, y, x) in zip(probabilities(tiles(group).float()), group, strict=True):
                    d, h, w = (min(out, n - at) for n, at in zip(shape, (z, y, x), strict=True))
                    total[:, z : z + d, y : y + h, x : x + w] += tile[:, :d, :h, :w]
                    count[z : z + d, y : y + h, x : x + w] += 1
                logger.info("stage 2: %d of %d tiles", first + len(group), len(starts))
        return total.div_(count.clamp_(min=1))


class Tiles:
    """Stage 2 on each tile by itself, as published; called with the starts of tiles, answers ``(B, 7, ...)`` logits."""

    def __init__(self, network: CTSUNet, padded: Tensor, tile: int) -> None:
        self.network = network
        self.padded = padded
        self.tile = tile

    def __call__(self, starts: Sequence[Start]) -> Tensor:
        size = self.tile
        patches = [self.padded[:, :, z : z + size, y : y + size, x : x + size] for z, y, x in starts]
        places = torch.tensor(starts, device=self.padded.device)
        return self.network.stage2(channels_last(torch.cat(patches)), places, self.padded.shape[2:])


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last_3d)
