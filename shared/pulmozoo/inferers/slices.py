"""2D networks on volumes: axial slices in batches."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from monai.inferers import Inferer
from monai.utils import convert_to_tensor
from torch import Tensor
from torch.nn import functional as F

from ..bundle.errors import BadInput

logger = logging.getLogger(__name__)


def in_batches(slices: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Groups of at most ``size`` slices; the log tells about ten times how far it is."""
    for first in range(0, len(slices), size):
        done = min(first + size, len(slices))
        yield slices[first:done]
        if done * 10 // len(slices) > first * 10 // len(slices):
            logger.info("%d of %d slices", done, len(slices))


def slices_with(mask: Tensor) -> list[int]:
    """Numbers of the slices of ``(1, D, H, W)`` that hold anything but 0; BadInput if there is none."""
    slices = mask.flatten(start_dim=2).any(dim=2).flatten().nonzero().flatten().tolist()
    if not slices:
        raise BadInput("no slice holds lung, so there is nothing to segment; check the lung mask of this scan")
    return slices


def padded_plane(volume: Tensor, multiple: int) -> Tensor:
    """Zeros after the last row and column until both sizes are divisible by ``multiple``; nothing is cut."""
    height, width = volume.shape[-2:]
    return F.pad(volume, [0, -width % multiple, 0, -height % multiple])


class PaddedInferer(Inferer):
    """One forward pass of planes ``(B, C, H, W)`` of any size, float32.

    Args:
        multiple: planes are filled up with zeros until their sizes are divisible by it, and the answer is cut back: 1
            for LungNet and ILD-CNN, 16 for the U-Net, 32 for SegNet.
        amp: bfloat16.
    """

    def __init__(self, multiple: int = 1, *, amp: bool = False) -> None:
        super().__init__()
        self.multiple = multiple
        self.amp = amp

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        planes = convert_to_tensor(inputs)
        height, width = planes.shape[-2:]
        padded = padded_plane(planes, self.multiple).contiguous(memory_format=torch.channels_last)
        with torch.autocast(planes.device.type, dtype=torch.bfloat16, enabled=self.amp):
            return network(padded)[..., :height, :width].float()
