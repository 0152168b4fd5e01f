"""U-Net on a ResNet-34 encoder that finds and outlines a pneumothorax on a chest film.

Source: Viel and Orhan, "Deep Learning for Pneumothorax Segmentation", course report, MVA 2020. Where the report and the
published program (TheoViel/pneumothorax_segmentation) differ, the program decides: batch norm before ReLU in encoder,
centre and decoder, after it in the last layers; a place map of scSE for each channel (``sse_channels``).
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..blocks.aspp import ASPP
from ..blocks.scse import ScSE

STRIDE = 32  # from the film to the deepest map
ENCODER_WIDTHS = (64, 128, 256, 512)
ENCODER_DEPTHS = (3, 4, 6, 3)
ASPP_WIDTH = 256
DECODER_WIDTH = 64
CLASS_HEAD_WIDTH = 32


def scaled(channels: int, width: float) -> int:
    """Channels at a width factor, a multiple of 8."""
    return max(8, round(channels * width / 8) * 8)


def check_film_shape(height: int, width: int) -> None:
    """Sizes must be divisible by 32; else ValueError that names the next ones that are."""
    if height % STRIDE or width % STRIDE:
        fitting = -(-height // STRIDE) * STRIDE, -(-width // STRIDE) * STRIDE
        raise ValueError(f"film sizes must be divisible by {STRIDE}, got {(height, width)}: pad to {fitting}")


def conv_norm(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1
) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """A convolution that keeps the size, but for its stride, and the batch norm that takes its bias over."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False)
    return conv, nn.BatchNorm2d(out_channels)


class ConvBlock(nn.Sequential):
    """Twice a 3x3 convolution, batch norm and ReLU: ``(B, in, H, W) -> (B, out, H, W)``."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            *conv_norm(in_channels, out_channels, kernel_size=3),
            nn.ReLU(inplace=True),
            *conv_norm(out_channels, out_channels, kernel_size=3),
            nn.ReLU(inplace=True),
        )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: ``(B, in, H, W) -> (B, out, H / stride, W / stride)``."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv_norm(in_channels, out_channels, kernel_size=3, stride=stride)
        self.conv2, self.bn2 = conv_norm(out_channels, out_channels, kernel_size=3)
        same = stride == 1 and in_channels == out_channels
        self.downsample = None if same else nn.Sequential(*conv_norm(in_channels, out_channels, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(x)) + shortcut, inplace=True)


class ResNet34(nn.Module):
    """ResNet-34 (He et al., https://arxiv.org/abs/1512.03385) without its classifier, under torchvision's names.

    ``(B, 3, H, W)`` to its maps at 1/2, 1/4, 1/8, 1/16 and 1/32 of the size, with ``channels`` each.
    """

    def __init__(self, width: float) -> None:
        super().__init__()
        first, *rest = (scaled(channels, width) for channels in ENCODER_WIDTHS)
        self.channels = (first, first, *rest)
        self.conv1, self.bn1 = conv_norm(3, first, kernel_size=7, stride=2)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            self.layer(self.channels[i], self.channels[i + 1], depth, stride=1 if i == 0 else 2)
            for i, depth in enumerate(ENCODER_DEPTHS)
        )

    @staticmethod
    def layer(in_channels: int, out_channels: int, depth: int, stride: int) -> nn.Sequential:
        rest = (ResidualBlock(out_channels, out_channels, stride=1) for _ in range(depth - 1))
        return nn.Sequential(ResidualBlock(in_channels, out_channels, stride), *rest)

    def forward(self, film: Tensor) -> list[Tensor]:
        x = F.relu(self.bn1(self.conv1(film)), inplace=True)
        maps = [x]
        x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            maps.append(x)
        return maps


class UpBlock(nn.Module):
    """Double the size, join a map of the encoder and convolve, with an :class:`ScSE` before and after where asked.

    ``(B, below, H, W)`` and ``(B, skip, 2H, 2W)`` to ``(B, out, 2H, 2W)``.
    """

    def __init__(self, below: int, skip: int, out: int, *, scse: bool, sse_channels: Literal["all", 1]) -> None:
        super().__init__()
        joined = below + skip
        self.attend_joined: nn.Module = nn.Identity()
        self.attend_out: nn.Module = nn.Identity()
        if scse:
            self.attend_joined = ScSE(joined, joined if sse_channels == "all" else sse_channels)
            self.attend_out = ScSE(out, out if sse_channels == "all" else sse_channels)
        self.convs = ConvBlock(joined, out)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        joined = torch.cat([F.interpolate(x, scale_factor=2, mode="nearest"), skip], dim=1)
        return self.attend_out(self.convs(self.attend_joined(joined)))


class PneumothoraxUNet(nn.Module):
    """Logits of a chest film: ``(B, 3, H, W)`` to ``(B, 2, H, W)``, both sizes divisible by 32.

    Channel 0 is the mask of the pneumothorax, channel 1 says of the whole film whether there is one: the same logit at
    every pixel, see :func:`split_logits`. The film is grey, repeated three times and scaled as for ImageNet.

    Args:
        aspp: atrous spatial pyramid pooling in place of the centre's two convolutions.
        hypercolumns: the mask is drawn from all four levels of the decoder instead of the finest.
        scse: squeeze and excitation before and after the convolutions of each decoder level.
        sse_channels: channels of the map of places in scSE, ``"all"`` as in the published program or 1 as in the paper.
        width: factor on all widths; 1 is the paper's network.
    """

    def __init__(
        self,
        *,
        aspp: bool = False,
        hypercolumns: bool = False,
        scse: bool = False,
        sse_channels: Literal["all", 1] = "all",
        width: float = 1.0,
    ) -> None:
        super().__init__()
        if sse_channels not in ("all", 1):
            raise ValueError(f"sse_channels must be 'all' or 1, got {sse_channels!r}")
        self.hypercolumns = hypercolumns
        self.encoder = ResNet34(width)
        *skips, deepest = self.encoder.channels
        centre, out = scaled(ASPP_WIDTH, width) if aspp else deepest, scaled(DECODER_WIDTH, width)
        below = (centre, *[out] * (len(skips) - 1))
        levels = zip(below, reversed(skips), strict=True)
        self.decoder = nn.ModuleList(
            UpBlock(wide, skip, out, scse=scse, sse_channels=sse_channels) for wide, skip in levels
        )
        self.last = nn.Sequential(
            nn.Conv2d(out * len(skips) if hypercolumns else out, out, kernel_size=1),
            nn.ReLU(inplace=True),
            nn.BatchNorm2d(out),
            nn.Conv2d(out, out, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.BatchNorm2d(out),
        )
        self.mask_head = nn.Conv2d(out, 1, kernel_size=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        # Made after the others have got their first weights: these two keep their own.
        self.centre = ASPP(deepest, centre) if aspp else ConvBlock(deepest, deepest)
        hidden = scaled(CLASS_HEAD_WIDTH, width)
        self.class_head = nn.Sequential(
            nn.Conv2d(2 * centre, hidden, kernel_size=1), nn.Conv2d(hidden, 1, kernel_size=1)
        )

    def forward(self, film: Tensor) -> Tensor:
        check_film_shape(*film.shape[2:])
        *skips, deepest = self.encoder(film)
        centre = self.centre(deepest)
        mask, there = self.mask_logits(centre, skips), self.class_logit(centre)
        return torch.cat([mask, there.expand_as(mask)], dim=1)

    def mask_logits(self, centre: Tensor, skips: list[Tensor]) -> Tensor:
        """From the centre and the encoder's maps, finest first: ``(B, 1, H, W)``."""
        maps, x = [], centre
        for block, skip in zip(self.decoder, reversed(skips), strict=True):
            x = block(x, skip)
            maps.append(x)
        if self.hypercolumns:
            x = torch.cat([*(enlarged(level, x.shape[2:]) for level in maps[:-1]), x], dim=1)
        x = self.last(x)
        return self.mask_head(enlarged(x, [2 * size for size in x.shape[2:]]))

    def class_logit(self, centre: Tensor) -> Tensor:
        """From the mean and the maximum of the centre: ``(B, 1, 1, 1)``."""
        pooled = [centre.mean(dim=(2, 3), keepdim=True), centre.amax(dim=(2, 3), keepdim=True)]
        return self.class_head(torch.cat(pooled, dim=1))


def enlarged(x: Tensor, shape: torch.Size | list[int]) -> Tensor:
    """Bilinear, the corners stay where they are: ``(B, C, h, w) -> (B, C, *shape)``."""
    return F.interpolate(x, shape, mode="bilinear", align_corners=True)


def split_logits(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The mask logits ``(B, H, W)`` and the class logit ``(B,)`` of the network's answer ``(B, 2, H, W)``."""
    return logits[:, 0], logits[:, 1, 0, 0]
