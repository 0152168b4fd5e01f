"""Criss-cross non-local attention with positions: every voxel looks along its three axis lines.

Source: Xie et al., "Relational modeling for robust and efficient pulmonary lobe segmentation in CT scans", IEEE TMI
2020, https://arxiv.org/abs/2004.07443, section III-B; details that the paper leaves open follow the published program
(DIAGNijmegen/bodyct-pulmonary-lobe-segmentation): batch norm and ReLU after the passes, and the slot norm.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EMBEDDING = 32
PASSES = 3


class Lines(NamedTuple):
    """One value per voxel and neighbour on its axis lines: ``(B, D, H, W, n)`` with ``n`` the length of the line.

    The voxel itself lies on all three lines; it counts on the last one only.
    """

    depth: Tensor
    height: Tensor
    width: Tensor


def affinities(query: Tensor, key: Tensor) -> Lines:
    """Dot products of each voxel with its line neighbours; both inputs are ``(B, D, H, W, E)``."""
    return Lines(
        torch.einsum("bdhwe,bkhwe->bdhwk", query, key),
        torch.einsum("bdhwe,bdkwe->bdhwk", query, key),
        torch.einsum("bdhwe,bdhke->bdhwk", query, key),
    )


def neighbour_slots(shape: tuple[int, int, int], device: torch.device) -> Lines:
    """Rank of each line neighbour when a voxel's ``D + H + W - 2`` neighbours are sorted by flat index.

    Returns index tensors ``(D, D)``, ``(D, H, H)``, ``(D, H, W)``: the rank depends on no more than these. A voxel's
    own place on the first two lines holds ``D + H + W - 2``, one past the last rank.
    """
    depth, height, width = shape
    d, h, w = (torch.arange(n, device=device) for n in shape)
    past = depth + height + width - 2
    on_depth = torch.where(d < d[:, None], d, d + height + width - 2).fill_diagonal_(past)
    before = (d[:, None, None] + h).expand(depth, height, height)
    on_height = torch.where(h < h[:, None], before, before + width - 1)
    on_height = on_height.masked_fill(torch.eye(height, dtype=torch.bool, device=device), past)
    on_width = d[:, None, None] + h[:, None] + w
    return Lines(on_depth, on_height, on_width)


def slot_normalised(lines: Lines, eps: float = 1e-6) -> Lines:
    """Divide by the L2 norm over all voxels of a sample that share the neighbour slot, as the published program does.

    A slot is the rank of the neighbour by flat index, so it means another relative position for other voxels: odd, but
    the released weights need it.
    """
    batch, depth, height, width, _ = lines.depth.shape
    slots = neighbour_slots((depth, height, width), lines.depth.device)
    squares = (
        lines.depth.square().sum(dim=(2, 3)),
        lines.height.square().sum(dim=3),
        lines.width.square().sum(dim=3),
    )
    total = lines.depth.new_zeros(batch, depth + height + width - 1)
    for slot, square in zip(slots, squares, strict=True):
        total.index_add_(1, slot.flatten(), square.flatten(start_dim=1))
    norm = total.sqrt() + eps
    return Lines(
        lines.depth / norm[:, slots.depth][:, :, None, None],
        lines.height / norm[:, slots.height][:, :, :, None],
        lines.width / norm[:, slots.width][:, :, :, None],
    )


def attend(lines: Lines, value: Tensor) -> Tensor:
    """Softmax over all line neighbours, then their weighted sum; ``value`` and result are ``(B, D, H, W, E)``."""
    depth, height, width = value.shape[1:4]
    itself = [torch.eye(n, dtype=torch.bool, device=value.device) for n in (depth, height)]
    logits = torch.cat(
        [
            lines.depth.masked_fill(itself[0][:, None, None], -torch.inf),
            lines.height.masked_fill(itself[1][:, None], -torch.inf),
            lines.width,
        ],
        dim=-1,
    )
    on_depth, on_height, on_width = logits.softmax(dim=-1).split([depth, height, width], dim=-1)
    return (
        torch.einsum("bdhwk,bkhwe->bdhwe", on_depth, value)
        + torch.einsum("bdhwk,bdkwe->bdhwe", on_height, value)
        + torch.einsum("bdhwk,bdhke->bdhwe", on_width, value)
    )


class CrissCrossAttention(nn.Module):
    """Three passes of criss-cross attention with shared weights: ``(B, C, D, H, W) -> (B, C, D, H, W)``.

    Time and memory grow with ``D * H * W * (D + H + W)``. Always computed in float32.

    Args:
        channels: ``C``, divisible by 4.
        geometry: add the term of relative positions.
        slot_norm: divide both terms by their norm per neighbour slot; the released weights need it, the paper has none.
    """

    def __init__(self, channels: int, *, geometry: bool = True, slot_norm: bool = False) -> None:
        super().__init__()
        self.slot_norm = slot_norm
        self.theta = nn.Linear(channels, EMBEDDING)
        self.phi = nn.Linear(channels, EMBEDDING)
        self.value = nn.Linear(channels, EMBEDDING)
        self.back = nn.Linear(EMBEDDING, channels)
        self.geometry_theta = nn.Linear(3, EMBEDDING) if geometry else None
        self.geometry_phi = nn.Linear(3, EMBEDDING) if geometry else None
        self.norm = nn.BatchNorm3d(channels)
        # The published network carries these and never applies them; they count among the paper's parameters.
        self.unused_norms = nn.ModuleList(nn.GroupNorm(channels // 4, channels) for _ in range(PASSES))
        self.unused_norms.requires_grad_(False)

    def geometry_term(self, position: Tensor) -> Lines | None:
        """Relation of positions ``(B, 3, D, H, W)``, each about -0.5 to 0.5; the same in every pass."""
        if self.geometry_theta is None or self.geometry_phi is None:
            return None
        place = position.movedim(1, -1)
        lines = affinities(self.geometry_theta(place), self.geometry_phi(place))
        if self.slot_norm:
            lines = slot_normalised(lines)
        return Lines(*(F.relu(line) for line in lines))

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            tokens = x.float().movedim(1, -1)
            geometry = self.geometry_term(position.float())
            for _ in range(PASSES):
                lines = affinities(self.theta(tokens), self.phi(tokens))
                if self.slot_norm:
                    lines = slot_normalised(lines)
                if geometry is not None:
                    lines = Lines(*(a + g for a, g in zip(lines, geometry, strict=True)))
                tokens = tokens + self.back(attend(lines, self.value(tokens)))
            return F.relu(self.norm(tokens.movedim(-1, 1).contiguous())).to(x.dtype)
