"""CTSU-Net: contextual two-stage U-nets for pulmonary lobes.

Source: Xie, Jacobs, Charbonnier, van Ginneken, "Relational modeling for robust and efficient pulmonary lobe
segmentation in CT scans", IEEE TMI 2020, https://arxiv.org/abs/2004.07443, Table II and section III.
Where the paper is silent, the published program decides (Apache-2.0, DIAGNijmegen/bodyct-pulmonary-lobe-segmentation):
its second stage is narrower (``released_widths``) and its attention is normalised (``slot_norm``).

Channels of every output: six lobe logits (background, LUL, LLL, RUL, RLL, RML), then one border logit. Axes are
``(D, H, W)``: superior, posterior, left.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..blocks.criss_cross import CrissCrossAttention

LOBE_CLASSES = 6
OUT_CHANNELS = LOBE_CLASSES + 1
FIELD_OF_VIEW = 67  # voxels; the published program's value for a bridge voxel of stage 2 (68 would be exact)
MARGIN = 44  # voxels that stage 2 loses on each side

DOWN_1 = ((16, 24), (24, 48), (64, 128), (128, 256))
UP_1 = (128, 48, 24)
DOWN_2 = ((24, 48), (48, 96), (96, 192), (192, 384))
DOWN_2_RELEASED = ((24, 32), *DOWN_2[1:])
UP_2 = (192, 96, 48)

Start = tuple[int, int, int]  # first voxel of a window: z, y, x


def check_patch_shape(shape: Sequence[int]) -> None:
    """Stage 2 takes sizes that are 4 mod 8 and at least 92, so that no pooling drops a voxel; else ValueError."""
    for size in shape:
        if size < 92 or size % 8 != 4:
            smaller = max(92, (size - 4) // 8 * 8 + 4)
            raise ValueError(
                f"stage 2 needs patch sizes 92, 100, 108, ... (4 mod 8), got {tuple(shape)}: "
                f"instead of {size} use {smaller} or {smaller + 8}"
            )


def check_scan_shape(shape: Sequence[int]) -> None:
    """A scan's sizes must be divisible by 16: halved once for stage 1 and three times inside it; else ValueError."""
    if any(size < 16 or size % 16 for size in shape):
        fitting = tuple(max(16, -(-size // 16) * 16) for size in shape)
        raise ValueError(f"scan sizes must be divisible by 16, got {tuple(shape)}: pad to {fitting}")


def as_tensor(size: int, device: torch.device) -> Tensor:
    """A size in float32: ONNX cannot multiply or divide by one that is open."""
    return torch.full((), size, dtype=torch.float32, device=device)


def scan_positions(bridge_shape: Sequence[int], device: torch.device) -> Tensor:
    """Places of stage-1 bridge voxels in the scan, -0.5 to 0.5 on each axis: ``(1, 3, d, h, w)``."""
    axes = [torch.arange(n, device=device) / as_tensor(n - 1, device).clamp(min=1) - 0.5 for n in bridge_shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]


def patch_positions(
    bridge_shape: Sequence[int], patch_shape: Sequence[int], start: Tensor, padded_scan_shape: Sequence[int]
) -> Tensor:
    """Places of stage-2 bridge voxels in the padded scan: ``(B, 3, d, h, w)``; ``start`` is ``(B, 3)`` in voxels."""
    centres = []
    for axis in range(3):
        bridge, patch, scan = (
            as_tensor(shape[axis], start.device) for shape in (bridge_shape, patch_shape, padded_scan_shape)
        )
        growth = (patch - FIELD_OF_VIEW) / (bridge - 1).clamp(min=1)
        index = torch.arange(bridge_shape[axis], device=start.device) * growth + FIELD_OF_VIEW / 2
        centres.append((index + start[:, axis, None]) / (scan - 1) - 0.5)
    z, y, x = centres
    shape = (start.shape[0], *bridge_shape)
    return torch.stack(
        [
            z[:, :, None, None].expand(shape),
            y[:, None, :, None].expand(shape),
            x[:, None, None, :].expand(shape),
        ],
        dim=1,
    )


def scaled(channels: int, width: float) -> int:
    """Channels at a width factor, a multiple of 4 for the group norms."""
    return max(4, round(channels * width / 4) * 4)


class ConvBlock(nn.Sequential):
    """Two 3x3x3 convolutions, each with batch norm and ReLU: ``(B, in, D, H, W) -> (B, out, D', H', W')``."""

    def __init__(self, in_channels: int, mid_channels: int, out_channels: int, padding: int) -> None:
        super().__init__(
            nn.Conv3d(in_channels, mid_channels, kernel_size=3, padding=padding, bias=False),
            nn.BatchNorm3d(mid_channels),
            nn.ReLU(inplace=True),
            nn.Conv3d(mid_channels, out_channels, kernel_size=3, padding=padding, bias=False),
            nn.BatchNorm3d(out_channels),
            nn.ReLU(inplace=True),
        )


def centre_crop(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Middle of the last three axes; an odd difference leaves the extra voxel at the end."""
    starts = [-(-(have - want) // 2) for have, want in zip(x.shape[2:], shape, strict=True)]
    z, y, x_ = (slice(start, start + size) for start, size in zip(starts, shape, strict=True))
    return x[:, :, z, y, x_]


class ContextualUNet(nn.Module):
    """One stage: a U-net of three levels with criss-cross attention on its bridge, ``(B, in, ...) -> (B, 7, ...)``.

    Args:
        in_channels: 1 for the scan, 8 for a patch with the seven maps of stage 1.
        down: (first, second) convolution widths of the three levels and of the bridge.
        up: widths of the three levels on the way up, deepest first.
        valid: no padding: each side of the output is ``MARGIN`` voxels shorter.
        border: the seventh channel, the border's logit.
    """

    def __init__(
        self,
        in_channels: int,
        down: Sequence[tuple[int, int]],
        up: Sequence[int],
        *,
        valid: bool,
        non_local: bool,
        geometry: bool = True,
        slot_norm: bool = False,
        border: bool = True,
    ) -> None:
        super().__init__()
        padding = 0 if valid else 1
        outs = [out for _, out in down]
        ins = [in_channels, *outs]
        blocks = [ConvBlock(ins[i], mid, out, padding) for i, (mid, out) in enumerate(down)]
        self.down = nn.ModuleList(blocks[:-1])
        self.bridge = blocks[-1]
        self.non_local = CrissCrossAttention(outs[-1], geometry=geometry, slot_norm=slot_norm) if non_local else None
        below = [outs[-1], *up]
        self.up = nn.ModuleList(ConvBlock(below[i] + outs[-2 - i], width, width, padding) for i, width in enumerate(up))
        self.lobe_head = nn.Conv3d(up[-1], LOBE_CLASSES, kernel_size=1)
        self.border_head = nn.Conv3d(up[-1], 1, kernel_size=1) if border else None

    def levels(self, x: Tensor) -> list[Tensor]:
        """Features of the three levels on the way down, finest first."""
        found: list[Tensor] = []
        for block in self.down:
            x = block(F.max_pool3d(x, kernel_size=2) if found else x)
            found.append(x)
        return found

    def from_levels(self, levels: Sequence[Tensor], positions: Callable[[Sequence[int]], Tensor]) -> Tensor:
        """Logits from the features of the levels; ``positions`` gives the places of a bridge of some shape.

        The finer levels are cropped as need be, only the coarsest has to be whole.
        """
        bridge = self.bridge(F.max_pool3d(levels[-1], kernel_size=2))
        if self.non_local is not None:
            bridge = self.non_local(bridge, positions(bridge.shape[2:]))
        return self.decode(bridge, levels)

    def decode(self, bridge: Tensor, skips: Sequence[Tensor]) -> Tensor:
        """Logits from the bridge and the skips, finest first."""
        x = bridge
        for block, skip in zip(self.up, reversed(skips), strict=True):
            x = F.interpolate(x, scale_factor=2, mode="trilinear", align_corners=True)
            x = block(torch.cat([x, centre_crop(skip, x.shape[2:])], dim=1))
        lobes: Tensor = self.lobe_head(x)
        return lobes if self.border_head is None else torch.cat([lobes, self.border_head(x)], dim=1)


class CTSUNet(nn.Module):
    """Both stages: ``(B, 1, D, H, W)`` in [0, 1] to ``(B, 7, D, H, W)`` logits, sizes divisible by 16.

    A forward pass labels the whole scan in one stage-2 tile; :class:`pulmozoo.inferers.two_stage.TwoStageInferer` does
    it tile by tile. With a label it is a training step, see :meth:`forward`.

    Args:
        width: factor on all widths; 1 is the paper's network.
        released_widths: 32 instead of 48 channels after the first level of stage 2, as in the authors' checkpoint.
        non_local, geometry: False for the paper's ablations.
        slot_norm: see :class:`CrissCrossAttention`; True for the authors' checkpoint.
    """

    def __init__(
        self,
        width: float = 1.0,
        *,
        released_widths: bool = False,
        non_local: bool = True,
        geometry: bool = True,
        slot_norm: bool = False,
    ) -> None:
        super().__init__()

        def stage(in_channels: int, down: Sequence[tuple[int, int]], up: Sequence[int], valid: bool) -> ContextualUNet:
            return ContextualUNet(
                in_channels,
                [(scaled(mid, width), scaled(out, width)) for mid, out in down],
                [scaled(channels, width) for channels in up],
                valid=valid,
                non_local=non_local,
                geometry=geometry,
                slot_norm=slot_norm,
            )

        self.scan_unet = stage(1, DOWN_1, UP_1, valid=False)
        self.patch_unet = stage(1 + OUT_CHANNELS, DOWN_2_RELEASED if released_widths else DOWN_2, UP_2, valid=True)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.constant_(module.bias, 0.01)

    def stage1(self, half_scan: Tensor) -> Tensor:
        """Scan at half resolution, ``(B, 1, D/2, H/2, W/2)``, to logits ``(B, 7, D/2, H/2, W/2)``."""
        levels = self.scan_unet.levels(half_scan)
        return self.scan_unet.from_levels(levels, partial(scan_positions, device=half_scan.device))

    def stage2(self, patch: Tensor, start: Tensor | Sequence[int], padded_scan_shape: Sequence[int]) -> Tensor:
        """Patches ``(B, 8, D, H, W)`` to logits ``(B, 7, D - 88, H - 88, W - 88)`` of their middle.

        Args:
            patch: scan and the seven maps of stage 1; sizes 4 mod 8, at least 92.
            start: first voxel of each patch in the scan padded by ``MARGIN``, ``(3,)`` or ``(B, 3)``.
            padded_scan_shape: size of that padded scan.
        """
        check_patch_shape(patch.shape[2:])
        return self.stage2_from_levels(self.patch_unet.levels(patch), patch.shape[2:], start, padded_scan_shape)

    def stage2_from_levels(
        self,
        levels: Sequence[Tensor],
        patch_shape: Sequence[int],
        start: Tensor | Sequence[int],
        padded_scan_shape: Sequence[int],
    ) -> Tensor:
        """:meth:`stage2` for patches whose features on the way down are known, see :meth:`ContextualUNet.levels`."""
        starts = torch.as_tensor(start, device=levels[-1].device, dtype=torch.float32).reshape(-1, 3)
        positions = partial(
            patch_positions,
            patch_shape=patch_shape,
            start=starts.expand(levels[-1].shape[0], 3),
            padded_scan_shape=padded_scan_shape,
        )
        return self.patch_unet.from_levels(levels, positions)

    def scan_logits(self, image: Tensor) -> Tensor:
        """Stage 1 on the halved scan, its logits enlarged to the scan's grid: ``(B, 1, ...) -> (B, 7, ...)``."""
        check_scan_shape(image.shape[2:])
        half = F.interpolate(image, [n // 2 for n in image.shape[2:]], mode="trilinear", align_corners=True)
        return F.interpolate(self.stage1(half), image.shape[2:], mode="trilinear", align_corners=True)

    def forward(
        self, image: Tensor, label: Tensor | None = None, patches: int = 2, patch: int = 116, share: float = 1.0
    ) -> Tensor | dict[str, Tensor]:
        """The whole answer, or with ``label`` what the losses of a training step need.

        Args:
            image: ``(B, 1, D, H, W)`` in [0, 1].
            label: ``(B, 1, D, H, W)`` lobes 0 to 5. The result is then a dictionary: ``scan_logits``
                ``(B, 7, D, H, W)``, ``patch_logits`` ``(B * patches, 7, d, h, w)`` with ``d = patch - 88``, and
                ``patch_label`` ``(B * patches, 1, d, h, w)``; the first alone when ``patches`` is 0.
            patches: stage-2 patches a scan.
            patch: their input size, 4 mod 8.
            share: patches are drawn from this share of the scan, in (0, 1], where stage 1 errs most.
        """
        logits = self.scan_logits(image)
        if label is not None and patches == 0:
            return {"scan_logits": logits}
        stack = torch.cat([image, probabilities(logits)], dim=1)
        if label is not None:
            starts = hard_starts(squared_error(logits.detach(), label), patch - 2 * MARGIN, patches, share)
            return {"scan_logits": logits, **self.patch_step(stack, label, starts, patch)}
        extra = 4  # the output of stage 2 is 4 mod 8, the scan 0 mod 8
        padded = F.pad(stack, [MARGIN, MARGIN + extra] * 3)
        whole = self.stage2(padded, (0, 0, 0), [n + 2 * MARGIN for n in image.shape[2:]])
        return whole[:, :, : image.shape[2], : image.shape[3], : image.shape[4]]

    def patch_step(
        self, stack: Tensor, label: Tensor, starts: Sequence[Sequence[Start]], patch: int
    ) -> dict[str, Tensor]:
        """Stage 2 on chosen patches of ``stack`` ``(B, 8, D, H, W)``; ``starts`` holds those of each scan."""
        inputs, labels, padded_scan_shape = cut_patches(stack, label, starts, patch)
        first = torch.tensor([start for chosen in starts for start in chosen], device=stack.device)
        return {"patch_logits": self.stage2(inputs, first, padded_scan_shape), "patch_label": labels}


def probabilities(logits: Tensor) -> Tensor:
    """Softmax over the six lobe channels, sigmoid of the border channel; ``(B, 7, ...)`` both."""
    return torch.cat([logits[:, :LOBE_CLASSES].softmax(dim=1), logits[:, LOBE_CLASSES:].sigmoid()], dim=1)


def squared_error(logits: Tensor, label: Tensor) -> Tensor:
    """Mean over the classes of (softmax - truth) squared: ``(B, D, H, W)`` from ``(B, 7, ...)`` and ``(B, 1, ...)``."""
    guess = logits[:, :LOBE_CLASSES].softmax(dim=1)
    truth = torch.zeros_like(guess).scatter_(1, label.long(), 1.0)
    return (guess - truth).square().mean(dim=1)


def hard_starts(error: Tensor, size: int, count: int, share: float) -> list[list[Start]]:
    """Per scan the starts of ``count`` windows of ``size`` voxels, drawn from the share with the largest error.

    ``error`` is ``(B, D, H, W)``. Windows stand side by side, the last of an axis flush with its end (section III-D).
    """
    grid = [window_starts(n, size) for n in error.shape[1:]]
    candidates = [(z, y, x) for z in grid[0] for y in grid[1] for x in grid[2]]
    chosen = []
    for volume in error:
        sums = torch.stack([window(volume[None], start, size).sum() for start in candidates])
        hardest = sums.argsort(descending=True)[: max(1, round(share * len(candidates)))]
        rounds = -(-count // len(hardest))  # a window comes twice only when there are fewer than asked for
        drawn = hardest[torch.randperm(len(hardest), device=hardest.device).repeat(rounds)[:count]]
        chosen.append([candidates[index] for index in drawn.tolist()])
    return chosen


def cut_patches(
    stack: Tensor, label: Tensor, starts: Sequence[Sequence[Start]], patch: int
) -> tuple[Tensor, Tensor, torch.Size]:
    """Patches ``(N, C, patch, ...)`` of ``stack`` ``(B, C, D, H, W)``, the labels of their middles, the padded shape.

    ``starts`` holds those of each scan, in output voxels; what lies outside the scan is 0.
    """
    out = patch - 2 * MARGIN
    missing = [max(0, out - n) for n in reversed(label.shape[2:])]
    padded = F.pad(stack, [size for extra in missing for size in (MARGIN, MARGIN + extra)])
    padded_label = F.pad(label, [size for extra in missing for size in (0, extra)])
    places = [(index, start) for index, chosen in enumerate(starts) for start in chosen]
    inputs = torch.stack([window(padded[index], start, patch) for index, start in places])
    labels = torch.stack([window(padded_label[index], start, out) for index, start in places])
    return inputs, labels, padded.shape[2:]


def window_starts(length: int, size: int) -> list[int]:
    """Starts of windows that cover an axis: stride is the size, the last one flush with the end."""
    return sorted({min(start, max(0, length - size)) for start in range(0, length, size)})


def window(volume: Tensor, start: Sequence[int], size: int) -> Tensor:
    """The cube of ``size`` voxels at ``start`` of a ``(C, D, H, W)`` volume."""
    z, y, x = start
    return volume[:, z : z + size, y : y + size, x : x + size]
