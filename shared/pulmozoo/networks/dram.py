"""DRAM: a 3D ResNet with a reconstruction network whose dense maps grade two subtypes of emphysema.

Source: Xie, Jacobs, Charbonnier, Slebos, van Ginneken, "Emphysema subtyping on thoracic computed tomography scans using
deep neural networks", Scientific Reports 2023, https://doi.org/10.1038/s41598-023-40116-6.
Where the paper is silent, the published program decides (MIT, DIAGNijmegen/bodyct-dram-emph-subtype): dilations,
parameter-free shortcuts, a third block on the way up. Differs from it: gradients pass through the shortcuts that change
the shape, unless ``detached_shortcut``.

Axes are ``(D, H, W)``: superior, posterior, left.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..bundle.errors import BadInput

CLE_GRADES, PSE_GRADES = 6, 3
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}  # of each layer, by depth
STEM = 64
LAYERS = ((64, 1, 1), (128, 2, 1), (256, 1, 2), (512, 1, 4))  # channels, stride, dilation
UP, LAST = 64, 32
STEP = 8  # the stem, the pooling and the second layer halve


def check_scan_shape(shape: Sequence[int]) -> None:
    """Sizes must be divisible by 8; else BadInput that names the next ones."""
    if any(size < STEP or size % STEP for size in shape):
        fitting = tuple(max(STEP, -(-size // STEP) * STEP) for size in shape)
        raise BadInput(f"scan sizes must be divisible by {STEP}, got {tuple(shape)}: resize or pad to {fitting}")


def conv(in_channels: int, out_channels: int, size: int, stride: int = 1, dilation: int = 1) -> nn.Conv3d:
    """Convolution of the encoder: no bias, padded so that a stride of 1 keeps the shape."""
    padding = dilation * (size // 2)
    return nn.Conv3d(in_channels, out_channels, size, stride, padding, dilation, bias=False)


def padded_shortcut(x: Tensor, channels: int, stride: int) -> Tensor:
    """Every ``stride``-th voxel, and zeros in the channels that are new (type A of He et al. 2016)."""
    return F.pad(x[:, :, ::stride, ::stride, ::stride], (0, 0, 0, 0, 0, 0, 0, channels - x.shape[1]))


class ResidualBlock(nn.Module):
    """What both kinds of block share: ``body`` plus shortcut, then ReLU; ``(B, in, D, H, W) -> (B, out, D', H', W')``.

    Args:
        body: the convolutions of the block, batch norm last.
        stride: of the whole block.
        detached_shortcut: no gradient through a shortcut that changes the shape.
    """

    def __init__(
        self, body: nn.Sequential, in_channels: int, out_channels: int, stride: int, detached_shortcut: bool
    ) -> None:
        super().__init__()
        self.body = body
        self.out_channels, self.stride = out_channels, stride
        self.same_shape = stride == 1 and in_channels == out_channels
        self.detached_shortcut = detached_shortcut

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        if not self.same_shape:
            source = x.detach() if self.detached_shortcut else x
            shortcut = padded_shortcut(source, self.out_channels, self.stride)
        return F.relu(self.body(x) + shortcut)


class BasicBlock(ResidualBlock):
    """Two 3x3x3 convolutions, both dilated, the first with the stride."""

    growth = 1

    def __init__(self, in_channels: int, channels: int, stride: int, dilation: int, detached_shortcut: bool) -> None:
        body = nn.Sequential(
            conv(in_channels, channels, 3, stride, dilation),
            nn.BatchNorm3d(channels),
            nn.ReLU(inplace=True),
            conv(channels, channels, 3, dilation=dilation),
            nn.BatchNorm3d(channels),
        )
        super().__init__(body, in_channels, channels, stride, detached_shortcut)


class Bottleneck(ResidualBlock):
    """1x1x1, 3x3x3 with stride and dilation, 1x1x1 to four times the channels."""

    growth = 4

    def __init__(self, in_channels: int, channels: int, stride: int, dilation: int, detached_shortcut: bool) -> None:
        body = nn.Sequential(
            conv(in_channels, channels, 1),
            nn.BatchNorm3d(channels),
            nn.ReLU(inplace=True),
            conv(channels, channels, 3, stride, dilation),
            nn.BatchNorm3d(channels),
            nn.ReLU(inplace=True),
            conv(channels, self.growth * channels, 1),
            nn.BatchNorm3d(self.growth * channels),
        )
        super().__init__(body, in_channels, self.growth * channels, stride, detached_shortcut)


class UpBlock(nn.Sequential):
    """3x3x3 convolutions from width to width, each with batch norm and ReLU: ``(B, in, ...) -> (B, out, ...)``."""

    def __init__(self, *channels: int) -> None:
        layers: list[nn.Module] = []
        for i in range(len(channels) - 1):
            layers.append(nn.Conv3d(channels[i], channels[i + 1], kernel_size=3, padding=1))
            layers += [nn.BatchNorm3d(channels[i + 1]), nn.ReLU(inplace=True)]
        super().__init__(*layers)


class DRAM(nn.Module):
    """Dense maps of centrilobular (CLE) and paraseptal emphysema (PSE) at half the resolution of a scan.

    ``(B, 1, D, H, W)``, zero outside the lungs, sizes divisible by 8, to logits ``(B, 2, D/2, H/2, W/2)``, whose
    sigmoid is the density of CLE and of PSE, or for classification ``(B, 9, D/2, H/2, W/2)``, whose means over the
    crop are the logits of six grades of CLE and three of PSE.

    Args:
        depth: 18, 34 or 50 layers of the encoder.
        regression: False for classification.
        width: factor on all widths; 1 is the paper's network.
        detached_shortcut: True as in the published program: no gradient through shortcuts that change the shape.
    """

    def __init__(
        self, depth: int = 34, *, regression: bool = True, width: float = 1.0, detached_shortcut: bool = False
    ) -> None:
        super().__init__()
        if depth not in BLOCKS:
            raise BadInput(f"depth must be one of {', '.join(map(str, BLOCKS))}, got {depth}")
        kind: type[BasicBlock] | type[Bottleneck] = Bottleneck if depth == 50 else BasicBlock
        stem, up, last = (max(1, round(channels * width)) for channels in (STEM, UP, LAST))
        self.stem = nn.Sequential(conv(1, stem, 7, stride=2), nn.BatchNorm3d(stem), nn.ReLU(inplace=True))
        layers = []
        outs = [stem]
        for blocks, (channels, stride, dilation) in zip(BLOCKS[depth], LAYERS, strict=True):
            channels = max(1, round(channels * width))
            first = kind(outs[-1], channels, stride, dilation, detached_shortcut)
            outs.append(first.out_channels)
            rest = [kind(outs[-1], channels, 1, dilation, detached_shortcut) for _ in range(1, blocks)]
            layers.append(nn.Sequential(first, *rest))
        self.layers = nn.ModuleList(layers)
        self.up1 = UpBlock(outs[-1] + outs[1], up, up)
        self.up2 = UpBlock(up + stem, up, up)
        self.up3 = UpBlock(up, last)
        self.cle_head = nn.Conv3d(last, 1 if regression else CLE_GRADES, kernel_size=1)
        self.pse_head = nn.Conv3d(last, 1 if regression else PSE_GRADES, kernel_size=1)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Tensor) -> Tensor:
        check_scan_shape(image.shape[2:])
        half = self.stem(image)
        quarter = self.layers[0](F.max_pool3d(half, kernel_size=3, stride=2, padding=1))
        x = quarter
        for layer in self.layers[1:]:
            x = layer(x)
        x = self.up1(torch.cat([doubled(x), quarter], dim=1))
        x = self.up2(torch.cat([doubled(x), half], dim=1))
        x = self.up3(x)
        return torch.cat([self.cle_head(x), self.pse_head(x)], dim=1)


def doubled(x: Tensor) -> Tensor:
    """Twice the size along each axis, the corners in place."""
    return F.interpolate(x, scale_factor=2, mode="trilinear", align_corners=True)


def at_map_size(mask: Tensor, maps: Tensor) -> Tensor:
    """Mask or labels ``(B, 1, D, H, W)`` on the grid of maps ``(B, C, d, h, w)``, in the mask's type.

    PyTorch's legacy ``nearest``, as in the published program: voxel ``i`` is voxel ``2 i`` of a mask twice as large.
    """
    return F.interpolate(mask.float(), maps.shape[2:], mode="nearest").to(mask.dtype)


def lung_means(maps: Tensor, lungs: Tensor) -> Tensor:
    """Mean of each map inside the lungs: ``(B, C, d, h, w)`` and ``(B, 1, D, H, W)`` to ``(B, C)``.

    Args:
        maps: of densities in [0, 1], so the means are shares of the lungs.
        lungs: not 0 inside; resized to the maps, see :func:`at_map_size`.

    Raises BadInput where a scan of the batch has no lung.
    """
    inside = at_map_size(lungs > 0, maps)
    voxels = inside.sum(dim=(2, 3, 4))
    if not voxels.all():
        raise BadInput("the lung mask is empty, so no share of the lungs is defined: check the lungs of this scan")
    return (maps * inside).sum(dim=(2, 3, 4)) / voxels


def grade_logits(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Means over the whole crop, ``(B, 9, d, h, w)`` to ``(B, 6)`` for the grades of CLE and ``(B, 3)`` of PSE."""
    cle, pse = logits.mean(dim=(2, 3, 4)).split([CLE_GRADES, PSE_GRADES], dim=1)
    return cle, pse


def subtype_densities(logits: Tensor) -> Tensor:
    """Densities of CLE and PSE in [0, 1], ``(B, 2, d, h, w)``, from the logits of regression or classification.

    Of the regression the sigmoid; of the classification, ours, its class activation maps as the probability of any
    grade above 0.
    """
    if logits.shape[1] == 2:
        return logits.sigmoid()
    grades = logits.split([CLE_GRADES, PSE_GRADES], dim=1)
    return torch.stack([1 - of.softmax(dim=1)[:, 0] for of in grades], dim=1)
