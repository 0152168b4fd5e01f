"""FRV-Net, the V-Net with deep supervision and a border head that CTSU-Net was compared with.

Source: Ferreira et al., "End-to-end supervised lung lobe segmentation", IJCNN 2018, rebuilt with 16 filters at the
finest level (14,621,892 parameters; the 15.5 million in Xie et al., https://arxiv.org/abs/2004.07443, are of its
authors' own rebuild).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LOBE_CLASSES = 6
DOWN = ((32, 2), (64, 2), (128, 3), (256, 3))  # filters and convolutions of each level on the way down
UP = (3, 3, 2, 2)  # convolutions of each level on the way up, deepest first
STEM = 16
DROPOUT = 0.5
MULTIPLE = 2 ** len(DOWN)


def unit(conv: nn.Conv3d) -> nn.Sequential:
    """A convolution, PReLU with a slope a channel, batch norm."""
    return nn.Sequential(conv, nn.PReLU(conv.out_channels), nn.BatchNorm3d(conv.out_channels))


class Residual(nn.Sequential):
    """Convolutions of 3x3x3 whose result is added to what came in."""

    def __init__(self, channels: int, convolutions: int) -> None:
        super().__init__(*(unit(nn.Conv3d(channels, channels, 3, padding=1)) for _ in range(convolutions)))

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class Up(nn.Module):
    """Twice the size, half the channels of the level below, beside the skip: ``(B, C, ...)`` to ``(B, 2 S, ...)``."""

    def __init__(self, below: int, skip: int, convolutions: int) -> None:
        super().__init__()
        self.shrink = unit(nn.Conv3d(below, skip, kernel_size=2))
        self.residual = Residual(2 * skip, convolutions)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = F.pad(F.interpolate(x, scale_factor=2, mode="nearest"), (0, 1) * 3)  # as Keras pads an even kernel
        return self.residual(torch.cat([self.shrink(x), skip], dim=1))


class FRVNet(nn.Module):
    """``(B, 1, D, H, W)`` to lobe logits ``(B, 6, D, H, W)``; sizes divisible by 16.

    In training a dictionary: ``lobes`` as above, ``border`` ``(B, 2, D, H, W)``, and ``lobes_half`` and
    ``lobes_quarter``, lobe logits at a half and a quarter of the resolution.

    Args:
        width: factor on all filters; 1 is the comparator.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        filters = [max(2, round(channels * width)) for channels, _ in DOWN]
        stem = max(2, round(STEM * width))
        ins = [stem, *filters]
        self.stem = unit(nn.Conv3d(1, stem, 3, padding=1))
        self.shrink = nn.ModuleList(unit(nn.Conv3d(ins[i], ins[i + 1], 2, stride=2)) for i in range(len(DOWN)))
        self.down = nn.ModuleList(Residual(ins[i + 1], convolutions) for i, (_, convolutions) in enumerate(DOWN))
        self.dropout = nn.Dropout(DROPOUT)
        skips = ins[-2::-1]
        belows = [ins[-1], *(2 * skip for skip in skips)]
        self.up = nn.ModuleList(Up(belows[i], skip, UP[i]) for i, skip in enumerate(skips))
        self.lobes = nn.Conv3d(2 * skips[-1], LOBE_CLASSES, kernel_size=1)
        self.border = nn.Conv3d(2 * skips[-1], 2, kernel_size=1)
        self.lobes_half = nn.Conv3d(2 * skips[-2], LOBE_CLASSES, kernel_size=1)
        self.lobes_quarter = nn.Conv3d(2 * skips[-3], LOBE_CLASSES, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor | dict[str, Tensor]:
        check_size(image.shape[2:])
        x = self.stem(image)
        skips = []
        for shrink, residual in zip(self.shrink, self.down, strict=True):
            skips.append(x)
            x = residual(self.dropout(shrink(x)))
        found = []
        for up in self.up:
            x = up(x, skips.pop())
            found.append(x)
        if not self.training:
            lobes: Tensor = self.lobes(x)
            return lobes
        return {
            "lobes": self.lobes(x),
            "border": self.border(x),
            "lobes_half": self.lobes_half(found[-2]),
            "lobes_quarter": self.lobes_quarter(found[-3]),
        }


def check_size(shape: Sequence[int]) -> None:
    """Sizes must be divisible by 16; else ValueError."""
    if any(size < MULTIPLE or size % MULTIPLE for size in shape):
        fitting = tuple(max(MULTIPLE, -(-size // MULTIPLE) * MULTIPLE) for size in shape)
        raise ValueError(f"FRV-Net needs sizes divisible by {MULTIPLE}, got {tuple(shape)}: pad to {fitting}")
