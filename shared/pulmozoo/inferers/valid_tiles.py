"""A network without padding on a whole scan, tile by tile."""

import logging
from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from monai.inferers import Inferer
from monai.utils import convert_to_tensor
from torch import Tensor
from torch.nn import functional as F

from ..networks.ctsunet import MARGIN, window, window_starts

logger = logging.getLogger(__name__)


class ValidTileInferer(Inferer):
    """Lobe probabilities of a whole scan, ``(B, 1, D, H, W)`` to ``(B, 6, D, H, W)``; any size.

    Tiles stand side by side, the last of an axis flush with its end; where two overlap the later one holds. Outside
    the scan the network sees 0.

    Args:
        tile: input size, 4 mod 8 and at least 92; the output is 88 voxels shorter.
        amp: bfloat16 where it is safe.
    """

    def __init__(self, tile: int = 132, *, amp: bool = False) -> None:
        super().__init__()
        self.tile = tile
        self.amp = amp

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        return torch.stack([self.one_scan(image, network) for image in convert_to_tensor(inputs)])

    def one_scan(self, image: Tensor, network: Callable[..., Any]) -> Tensor:
        """``(1, D, H, W) -> (6, D, H, W)``."""
        shape, out = image.shape[1:], self.tile - 2 * MARGIN
        longer = [max(n, out) for n in shape]
        frame = [size for n, m in zip(shape[::-1], longer[::-1], strict=True) for size in (MARGIN, MARGIN + m - n)]
        padded = F.pad(image, frame)
        starts = list(product(*(window_starts(n, out) for n in longer)))
        whole = torch.empty(0)
        for number, (z, y, x) in enumerate(starts, start=1):
            with torch.autocast(image.device.type, dtype=torch.bfloat16, enabled=self.amp):
                logits = network(window(padded, (z, y, x), self.tile)[None])
            if not whole.numel():
                whole = logits.new_zeros(logits.shape[1], *longer, dtype=torch.float32)
            whole[:, z : z + out, y : y + out, x : x + out] = logits[0].float().softmax(dim=0)
            logger.info("tile %d of %d", number, len(starts))
        d, h, w = shape
        return whole[:, :d, :h, :w]
