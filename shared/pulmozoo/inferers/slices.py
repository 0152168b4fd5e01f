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


def lungs_like(volumes: Tensor, lungs: Tensor) -> Tensor:
    """The lungs as a plain tensor; ValueError if their shape is not that of the volumes."""
    if lungs.shape != volumes.shape:
        raise ValueError(f"lungs must have the shape of the image {tuple(volumes.shape)}, got {tuple(lungs.shape)}")
    return convert_to_tensor(lungs)


class SlicesInferer(Inferer):
    """Logits of volumes from a network of slices: ``(B, 1, D, H, W) -> (B, C, D, H, W)``, any size, float32.

    Args:
        batch: slices a forward pass.
        multiple: slices are filled up with zeros until their sizes are divisible by it, and the answer is cut back:
            1 for LungNet and ILD-CNN, 16 for the U-Net, 32 for SegNet.
        amp: bfloat16. Convolutions alone gain much by it, LungNet's norms do not.
    """

    def __init__(self, batch: int = 4, multiple: int = 1, *, amp: bool = False) -> None:
        super().__init__()
        self.batch = batch
        self.multiple = multiple
        self.amp = amp

    def __call__(
        self, inputs: Tensor, network: Callable[..., Any], lungs: Tensor | None = None, *args: Any, **kwargs: Any
    ) -> Tensor:
        """With ``lungs`` ``(B, 1, D, H, W)`` only slices that hold lung are looked at; elsewhere all logits are 0."""
        volumes = convert_to_tensor(inputs)
        masks = torch.ones_like(volumes) if lungs is None else lungs_like(volumes, lungs)
        pairs = zip(volumes, masks, strict=True)
        return torch.stack([self.one_volume(volume, slices_with(mask), network) for volume, mask in pairs])

    def one_volume(self, volume: Tensor, slices: Sequence[int], network: Callable[..., Any]) -> Tensor:
        """``(1, D, H, W) -> (C, D, H, W)``; 0 on slices that are not named."""
        height, width = volume.shape[2:]
        padded = padded_plane(volume, self.multiple).transpose(0, 1)
        answer = volume.new_zeros(0)
        with torch.autocast(volume.device.type, dtype=torch.bfloat16, enabled=self.amp):
            for group in in_batches(slices, self.batch):
                logits = network(padded[group]).float()
                if not len(answer):
                    answer = logits.new_zeros(logits.shape[1], *volume.shape[1:])
                answer[:, group] = logits[..., :height, :width].transpose(0, 1)
        return answer
