"""The four losses of CTSU-Net: lobes and lobe borders, on the scan and on the patches.

Source: Xie et al., https://arxiv.org/abs/2004.07443, section III-C: a generalised Dice loss on each of the four
outputs, summed with equal weights; for COVID scans (section IV-A) also the cross-entropy of the voxels where it is
largest. Ours adds a cross-entropy on the lobes from the start, which a network trained from nothing needs.
"""

from collections.abc import Mapping

import torch
from monai.losses import GeneralizedDiceLoss
from torch import Tensor, nn
from torch.nn import functional as F

from ..networks.ctsunet import LOBE_CLASSES


def border_map(label: Tensor) -> Tensor:
    """Voxels where the central difference of some label's mask is not zero: ``(B, 1, D, H, W)`` to the same, 0 or 1.

    Two voxels thick; holds the outer surface of the lungs too.
    """
    border = torch.zeros_like(label, dtype=torch.bool)
    for axis in range(2, 5):
        size = label.shape[axis]
        before = label.index_select(axis, torch.arange(size, device=label.device).sub(1).clamp(min=0))
        after = label.index_select(axis, torch.arange(size, device=label.device).add(1).clamp(max=size - 1))
        border |= before != after
    return border.to(torch.float32)


def hardest_cross_entropy(logits: Tensor, label: Tensor, share: float) -> Tensor:
    """Mean cross-entropy of the share of all voxels, 0 to 1, where it is largest; of one voxel at least.

    Logits are ``(B, C, D, H, W)``, labels ``(B, 1, D, H, W)``. The paper's share is 0.3.
    """
    costs = F.cross_entropy(logits, label[:, 0].long(), reduction="none").flatten()
    if share < 1:  # to select them all takes longer than the costs themselves
        costs = costs.topk(max(1, round(share * len(costs))), sorted=False).values
    return costs.mean()


class CTSULoss(nn.Module):
    """Sum of the lobe and border losses of both stages.

    Takes what :meth:`CTSUNet.forward` returns in training and the label ``(B, 1, D, H, W)``; a network with one stage
    or without a border channel (:class:`pulmozoo.networks.patch_unet.PatchUNet`) has fewer terms. A class that is
    absent from the truth takes the largest weight of the others (MONAI's rule), so false voxels of it cost.

    Args:
        smooth: added to numerator and denominator of the Dice terms; the class sums are about 1 / voxels, so 0.1 would
            swamp them on a whole scan.
        cross_entropy: weight of the lobe cross-entropy; 0 is the paper's first training, 1 its second.
        hardest: share of the voxels that the cross-entropy is taken over, those where it is largest; 0.3 in the
            paper's second training.
    """

    def __init__(self, smooth: float = 1e-7, cross_entropy: float = 0.0, hardest: float = 1.0) -> None:
        super().__init__()
        self.cross_entropy = cross_entropy
        self.hardest = hardest
        self.lobes = GeneralizedDiceLoss(softmax=True, to_onehot_y=True, smooth_nr=smooth, smooth_dr=smooth)
        self.border = GeneralizedDiceLoss(sigmoid=True, smooth_nr=smooth, smooth_dr=smooth)

    def one_stage(self, logits: Tensor, label: Tensor) -> Tensor:
        logits = logits.float()
        lobes, border = logits[:, :LOBE_CLASSES], logits[:, LOBE_CLASSES:]
        loss: Tensor = self.lobes(lobes, label)
        if border.shape[1]:
            loss = loss + self.border(border, border_map(label))
        if self.cross_entropy:
            loss = loss + self.cross_entropy * hardest_cross_entropy(lobes, label, self.hardest)
        return loss

    def forward(self, prediction: Mapping[str, Tensor], label: Tensor) -> Tensor:
        stages = []
        if "scan_logits" in prediction:
            stages.append(self.one_stage(prediction["scan_logits"], label))
        if "patch_logits" in prediction:
            stages.append(self.one_stage(prediction["patch_logits"], prediction["patch_label"]))
        return torch.stack(stages).sum()
