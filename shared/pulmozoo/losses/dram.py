"""The losses of DRAM: a share of the lungs that fits a visual score, and maps that are low attenuation and exclusive.

Source: Xie et al., Scientific Reports 2023, https://doi.org/10.1038/s41598-023-40116-6, equations 1 to 3. The published
program (MIT, DIAGNijmegen/bodyct-dram-emph-subtype) differs silently; both forms are here.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..metrics.emphysema_scores import CLE, PSE, Scale
from ..metrics.subtype_scores import SUBTYPES
from ..networks.dram import at_map_size, grade_logits, lung_means

LAA_HU = -950.0
SMALLEST_SHARE = 1e-12  # the slope of the power law at 0 is infinite
SCALE, EXPONENT = 0.7338, 0.2578
FACTOR = 10.0
OVERLAP_WEIGHT = 2.0
INSIDE_WEIGHT = 0.85  # of the segmentation loss in the lungs; the paper calls it label smoothing
POSITIVE_WEIGHT = (0.3, 0.7)
PAINTED_WEIGHTS = (1.0, 4.0)  # centrilobular, and paraseptal, which is rarer and would drown
UNPAINTED = 255  # in a painted label map: nobody has looked here


def stretched(share: Tensor) -> Tensor:
    """``0.7338 share ** 0.2578``, which spreads the small shares; without a slope at 0."""
    return torch.where(share > 0, SCALE * share.clamp(min=SMALLEST_SHARE).pow(EXPONENT), 0.0)


def interval_loss(share: Tensor, lower: Tensor, upper: Tensor, *, paper: bool = False) -> Tensor:
    """0 where a share lies in its interval, else the product of its distances to both ends; any shape, elementwise.

    Args:
        share: of the lungs, in [0, 1].
        lower, upper: ends of the interval of the true score.
        paper: equation 1 as printed; the published program stretches all three first and multiplies by 10.
    """
    if paper:
        return F.relu((share - lower) * (share - upper))
    p, low, high = stretched(share), stretched(lower), stretched(upper)
    return FACTOR * F.relu((p - low) * (p - high))


def intervals(scores: Tensor, scale: Scale, *, paper: bool = False) -> tuple[Tensor, Tensor]:
    """Ends of the intervals of scores ``(B,)``; for score 0 the published program wants exactly 0, the paper < 1 %."""
    table = torch.tensor([scale.interval(score) for score in range(len(scale.grades))], device=scores.device)
    if not paper:
        table[0] = 0.0
    lower, upper = table[scores.long()].unbind(dim=1)
    return lower, upper


def overlap_loss(maps: Tensor, lungs: Tensor, eps: float = 1e-7) -> Tensor:
    """Soft Dice of the two maps ``(B, 2, d, h, w)`` in the lungs ``(B, 1, d, h, w)``, over the batch as one."""
    cle, pse = (maps * (lungs > 0)).unbind(dim=1)
    return (2 * (cle * pse).sum() + eps) / (cle.sum() + pse.sum() + eps)


def segmentation_loss(density: Tensor, low: Tensor, lungs: Tensor) -> Tensor:
    """Weighted cross-entropy of an emphysema density with the low attenuation area.

    The weight of positives is meant to balance the classes, but the published program compares their number with the
    batch size and not with the voxels: it is 0.3 as soon as there are a few, and kept so.

    Args:
        density: ``(B, ...)`` in [0, 1].
        low: of the same shape, 1 where the lung is darker than -950 HU.
        lungs: of the same shape, not 0 inside.
    """
    low = low.to(density.dtype)
    right = (density * low + (1 - density) * (1 - low)).clamp(1e-6, 1 - 1e-6)
    positive = (1 - low.sum() / len(low)).clamp(*POSITIVE_WEIGHT)
    weight = positive * low + (1 - positive) * (1 - low)
    inside = torch.where(lungs > 0, INSIDE_WEIGHT, 1.0)
    return -(right.log() * weight * inside).sum() / weight.sum()


def painted_loss(logits: Tensor, painted: Tensor, lungs: Tensor) -> Tensor:
    """Cross-entropy of both densities with the share of each cell that is painted; 0 where nobody painted.

    Ours: paper and program know no painted map. A cell of the maps is the 3 x 3 x 3 voxels around the one that
    :func:`..networks.dram.at_map_size` takes; of them those in painted lungs count. The mean is that over the cells
    whose own voxel is one of these, summed over the subtypes with the weights 1 and 4.

    Args:
        logits: ``(B, 2, d, h, w)``.
        painted: ``(B, 1, D, H, W)``, 1 centrilobular, 2 paraseptal, 255 where nobody painted.
        lungs: of the same shape, not 0 inside.
    """
    known = (lungs > 0) & (painted != UNPAINTED)
    voxels = cell_means(known).clamp(min=SMALLEST_SHARE)
    shares = torch.cat([cell_means(known & (painted == label)) / voxels for label in SUBTYPES.values()], dim=1)
    inside = at_map_size(known, logits)
    costs = F.binary_cross_entropy_with_logits(logits, shares, reduction="none") * inside
    weights = torch.tensor(PAINTED_WEIGHTS, device=logits.device)
    return (costs.sum(dim=(0, 2, 3, 4)) * weights).sum() / inside.sum().clamp(min=1)


def cell_means(mask: Tensor) -> Tensor:
    """Mean of ``(B, 1, D, H, W)`` around every second voxel: ``(B, 1, D/2, H/2, W/2)``, sizes even."""
    return F.avg_pool3d(mask.float(), kernel_size=3, stride=2, padding=1)


def class_weights(counts: Sequence[int]) -> list[float]:
    """Inverse frequencies that sum to 1, cut to [0.2, 0.8]; ``counts`` holds the training scans of each score."""
    inverse = [1 / count for count in counts]
    return [min(max(value / sum(inverse), 0.2), 0.8) for value in inverse]


class DRAMLoss(nn.Module):
    """What DRAM learns from: ``(B, 2, d, h, w)`` logits of its regression, and a dictionary of truth.

    The truth holds ``lung`` ``(B, 1, D, H, W)``, not 0 inside; ``image_hu`` of the same shape, before any window; and
    the visual scores ``cle_score`` and ``pse_score`` ``(B,)``; with ``painted_weight`` also ``painted``.

    Args:
        paper: the paper's plain sum; else the published program's, with the stretched intervals, class weights and the
            overlap counted twice.
        painted_weight: of :func:`painted_loss`; 0 in paper and program, which learn from the scores alone.
        cle_weights, pse_weights: see :func:`class_weights`; of the intervals of the published form.
    """

    def __init__(
        self,
        *,
        paper: bool = False,
        painted_weight: float = 0.0,
        cle_weights: Sequence[float] = (1.0,) * len(CLE.grades),
        pse_weights: Sequence[float] = (1.0,) * len(PSE.grades),
    ) -> None:
        super().__init__()
        self.paper, self.painted_weight = paper, painted_weight
        self.cle_weights, self.pse_weights = list(cle_weights), list(pse_weights)

    def interval_sum(self, shares: Tensor, scores: Tensor, scale: Scale, weights: Sequence[float]) -> Tensor:
        """Sum over the batch; shares and scores are ``(B,)``."""
        losses = interval_loss(shares, *intervals(scores, scale, paper=self.paper), paper=self.paper)
        if self.paper:
            return losses.sum()
        return (losses * torch.tensor(weights, device=shares.device)[scores.long()]).sum()

    def forward(self, logits: Tensor, truth: Mapping[str, Tensor]) -> Tensor:
        maps = logits.float().sigmoid()
        lungs, cle_score, pse_score = truth["lung"] > 0, truth["cle_score"], truth["pse_score"]
        cle_share, pse_share = lung_means(maps, lungs).unbind(dim=1)
        ill = ((cle_score > 0) | (pse_score > 0)).reshape(-1, 1, 1, 1, 1)
        low = at_map_size((truth["image_hu"] < LAA_HU) & lungs & ill, maps)
        lungs = at_map_size(lungs, maps)
        overlap = overlap_loss(maps, lungs)
        loss = (
            self.interval_sum(cle_share, cle_score, CLE, self.cle_weights)
            + self.interval_sum(pse_share, pse_score, PSE, self.pse_weights)
            + (overlap if self.paper else OVERLAP_WEIGHT * overlap)
            + segmentation_loss(maps.sum(dim=1, keepdim=True).clamp(0, 1), low, lungs)
        )
        if self.painted_weight:
            loss = loss + self.painted_weight * painted_loss(logits.float(), truth["painted"], truth["lung"])
        return loss


class GradeLoss(nn.Module):
    """Cross-entropy of both scores for the classification: ``(B, 9, d, h, w)`` logits, truth as in :class:`DRAMLoss`.

    Args:
        cle_weights, pse_weights: of the classes, see :func:`class_weights`.
    """

    cle_weights: Tensor
    pse_weights: Tensor

    def __init__(
        self,
        cle_weights: Sequence[float] = (1.0,) * len(CLE.grades),
        pse_weights: Sequence[float] = (1.0,) * len(PSE.grades),
    ) -> None:
        super().__init__()
        self.register_buffer("cle_weights", torch.tensor(cle_weights))
        self.register_buffer("pse_weights", torch.tensor(pse_weights))

    def forward(self, logits: Tensor, truth: Mapping[str, Tensor]) -> Tensor:
        cle, pse = grade_logits(logits.float())
        return F.cross_entropy(cle, truth["cle_score"].long(), self.cle_weights) + F.cross_entropy(
            pse, truth["pse_score"].long(), self.pse_weights
        )
