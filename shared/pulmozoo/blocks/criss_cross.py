"""Criss-cross non-local attention with positions: every voxel looks along its three axis lines.

Source: Xie et al., "Relational modeling for robust and efficient pulmonary lobe segmentation in CT scans", IEEE TMI
2020, https://arxiv.org/abs/2004.07443, section III-B; details that the paper leaves open follow the published program
(DIAGNijmegen/bodyct-pulmonary-lobe-segmentation): batch norm and ReLU after the passes, and the slot norm.

Voxels are numbered by flat index, ``N = D * H * W``. Each has ``K = D + H + W - 2`` neighbours, itself once among them.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EMBEDDING = 32
PASSES = 3


def line_neighbours(shape: tuple[int, int, int], device: torch.device | None = None) -> Tensor:
    """Flat indices of each voxel's neighbours on its axis lines, ascending: ``(N, K)``."""
    depth, height, width = shape
    index = torch.arange(depth * height * width, device=device).reshape(shape)
    voxel = torch.stack(torch.meshgrid(*(torch.arange(n, device=device) for n in shape), indexing="ij"))
    d, h, w = voxel.flatten(start_dim=1)
    on_depth, on_height, on_width = index[:, h, w].T, index[d, :, w], index[d, h]
    # The voxel lies on all three lines: it is dropped from the first two.
    others_depth, others_height = on_depth.gather(1, all_but(d, depth)), on_height.gather(1, all_but(h, height))
    return torch.cat([others_depth, others_height, on_width], dim=1).sort(dim=1).values


def all_but(own: Tensor, size: int) -> Tensor:
    """The numbers 0 to ``size - 1`` without each voxel's own: ``(N,)`` to ``(N, size - 1)``."""
    steps = torch.arange(size - 1, device=own.device)
    return steps + (steps >= own[:, None])


def at_neighbours(features: Tensor, neighbours: Tensor) -> Tensor:
    """Features of each voxel's neighbours: ``(B, N, E)`` to ``(B, N, K, E)``."""
    # index_select, since the gradient of plain indexing is several times slower on a CPU
    chosen = features.index_select(1, neighbours.flatten())
    return chosen.reshape(features.shape[0], *neighbours.shape, features.shape[2])


def relation(query: Tensor, key: Tensor, neighbours: Tensor) -> Tensor:
    """Dot product of each voxel with each neighbour: ``(B, N, E)`` both to ``(B, N, K)``.

    Summed channel by channel: then the last bit, too, is that of the published program.
    """
    return sum_in_order(query[:, :, None] * at_neighbours(key, neighbours))


def sum_in_order(terms: Tensor) -> Tensor:
    """Sum over the last axis from first to last, where ``sum`` would take another order."""
    total, *rest = terms.unbind(dim=-1)
    for term in rest:
        total = total + term
    return total


def slot_normalised(related: Tensor, eps: float = 1e-6) -> Tensor:
    """Divide ``(B, N, K)`` by the L2 norm over all voxels of a sample that share the neighbour slot ``K``.

    A slot is the rank of the neighbour by flat index, so it means another relative position for other voxels: odd, but
    the published program does so and its weights need it.
    """
    return related / (related.norm(dim=1, keepdim=True) + eps)


class CrissCrossAttention(nn.Module):
    """Three passes of criss-cross attention with shared weights: ``(B, C, D, H, W) -> (B, C, D, H, W)``.

    Time and memory grow with ``D * H * W * (D + H + W)``. Always computed in float32.

    Args:
        channels: ``C``, divisible by 4.
        geometry: add the term of relative positions.
        slot_norm: :func:`slot_normalised` on both terms; the released weights need it, the paper has none.
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

    def related(self, query: Tensor, key: Tensor, neighbours: Tensor) -> Tensor:
        """:func:`relation`, slot by slot normalised where the weights need it."""
        related = relation(query, key, neighbours)
        return slot_normalised(related) if self.slot_norm else related

    def geometry_term(self, position: Tensor, neighbours: Tensor) -> Tensor | float:
        """Relation of positions ``(B, N, 3)``, each about -0.5 to 0.5: ``(B, N, K)``, the same in every pass."""
        if self.geometry_theta is None or self.geometry_phi is None:
            return 0.0
        return F.relu(self.related(self.geometry_theta(position), self.geometry_phi(position), neighbours))

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        depth, height, width = x.shape[2:]
        neighbours = line_neighbours((depth, height, width), x.device)
        with torch.autocast(x.device.type, enabled=False):
            voxels = x.float().flatten(start_dim=2).transpose(1, 2).contiguous()
            place = position.float().flatten(start_dim=2).transpose(1, 2).contiguous()
            geometry = self.geometry_term(place, neighbours)
            for _ in range(PASSES):
                weights = (self.related(self.theta(voxels), self.phi(voxels), neighbours) + geometry).softmax(dim=2)
                seen = (weights[:, :, None] @ at_neighbours(self.value(voxels), neighbours))[:, :, 0]
                voxels = voxels + self.back(seen)
            return F.relu(self.norm(voxels.transpose(1, 2).contiguous().reshape(x.shape))).to(x.dtype)
