"""LungNet: six tissue patterns of interstitial lung disease, by dilated convolutions at full resolution.

Source: Anthimopoulos et al., "Semantic segmentation of pathological lung tissue with dilated fully convolutional
networks", IEEE JBHI 2018, https://arxiv.org/abs/1803.06167. Built from the paper's facts; the published program (GPL)
settled only what the paper leaves open: no norm after the last convolution, eps 1e-3, a bias in every convolution.

Classes of the output, in this order: healthy, ground glass, micronodules, consolidation, reticulation, honeycombing.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..blocks.slice_by_slice import slice_by_slice

CLASSES = 6
DILATIONS = (1, 1, 2, 3, 5, 8, 13, 21, 34, 55)
HEAD = (128, 32)
EPS = 1e-3
WORD = 32  # bits of a random number

Normalisation = Literal["skip", "plain"] | None


class SliceNorm(nn.InstanceNorm2d):
    """Instance norm with affine parameters; a single slice goes through the kernel of the batch norm.

    The numbers are the same, but that kernel keeps channels last: 0.7 ms instead of 2.7 for a crop in bfloat16.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=EPS, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 1:
            return super().forward(x)
        return F.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps)


class SkipNorm(nn.Module):
    """The input plus its instance norm, ``x + IN(x)``: ``(B, C, H, W) -> (B, C, H, W)``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = SliceNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm(x)


def normaliser(kind: Normalisation, channels: int) -> nn.Module:
    """A layer with the statistics of each slice by itself; the identity without a kind."""
    match kind:
        case "skip":
            return SkipNorm(channels)
        case "plain":
            return SliceNorm(channels)
        case None:
            return nn.Identity()
    raise ValueError(f"normalisation must be 'skip', 'plain' or None, got {kind!r}")


class HalfDropout(nn.Module):
    """Dropout of a half from random bits: on a CPU PyTorch's own took a sixth of a training step."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        words = torch.empty(x.numel() // WORD + 1, dtype=torch.int32, device=x.device).random_(-(2**31), 2**31)
        bits = (words.view(torch.uint8)[:, None] >> torch.arange(8, dtype=torch.uint8, device=x.device)) & 1
        return x * bits.flatten().as_strided(x.shape, x.stride()).to(x.dtype).mul_(2)


class LungNet(nn.Module):
    """Slices ``(B, 1, H, W) -> (B, 6, H, W)`` logits, or volumes ``(B, 1, D, H, W) -> (B, 6, D, H, W)``; any size.

    A slice's answer does not depend on the others of its batch.

    Args:
        kernels: channels of each dilated convolution.
        dilations: one convolution each; the receptive field is 1 + twice their sum.
        concatenate: the head sees the input and all dilated convolutions, else the last one alone.
        normalisation: ``skip`` is ``x + IN(x)``, ``plain`` is ``IN(x)``; of the input too.
    """

    def __init__(
        self,
        kernels: int = 32,
        dilations: Sequence[int] = DILATIONS,
        concatenate: bool = True,
        normalisation: Normalisation = "skip",
    ) -> None:
        super().__init__()
        self.concatenate = concatenate
        self.stem = normaliser(normalisation, 1)
        ins = [1] + [kernels] * (len(dilations) - 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, kernels, kernel_size=3, padding=dilation, dilation=dilation),
                normaliser(normalisation, kernels),
                nn.ReLU(inplace=True),
            )
            for channels, dilation in zip(ins, dilations, strict=True)
        )
        self.dropout = HalfDropout()
        widths = [1 + kernels * len(dilations) if concatenate else kernels, *HEAD]
        hidden = [
            nn.Sequential(nn.Conv2d(fine, wide, kernel_size=1), normaliser(normalisation, wide), nn.ReLU(inplace=True))
            for fine, wide in pairwise(widths)
        ]
        self.head = nn.Sequential(*hidden, nn.Conv2d(HEAD[-1], CLASSES, kernel_size=1))
        self.apply(start_he_normal)

    def forward(self, image: Tensor) -> Tensor:
        return slice_by_slice(self.slices, image)

    def slices(self, x: Tensor) -> Tensor:
        """``(B, 1, H, W) -> (B, 6, H, W)``."""
        maps = [self.stem(x)]
        for block in self.blocks:
            maps.append(block(maps[-1]))
        # A single channel is float32 even under autocast, and of no layout: concatenated, all would become so.
        maps[0] = maps[0].to(maps[-1].dtype).clone(memory_format=torch.channels_last)
        return self.head(self.dropout(torch.cat(maps, dim=1) if self.concatenate else maps[-1]))


def start_he_normal(module: nn.Module) -> None:
    """He's normal law by fan-in and no bias, for each convolution."""
    if isinstance(module, nn.Conv2d) and module.bias is not None:
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        nn.init.zeros_(module.bias)
