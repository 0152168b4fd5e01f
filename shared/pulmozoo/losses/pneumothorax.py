"""Loss of the pneumothorax network: one term for the mask, one for the film as a whole.

Source: Viel and Orhan, "Deep Learning for Pneumothorax Segmentation", course report, MVA 2020, and the settings of the
published program (TheoViel/pneumothorax_segmentation).
"""

from typing import Literal

import torch
from torch import Tensor, nn

from ..networks.pneumothorax import split_logits
from .lovasz import SymmetricLovaszHinge

CLASS_WEIGHT = 0.1  # beside the cross-entropy of the mask
CLASS_WEIGHT_LOVASZ = 0.01


class PneumothoraxLoss(nn.Module):
    """Cross-entropy or symmetric Lovász hinge of the mask plus a weighted cross-entropy of the film's class.

    Takes logits ``(B, 2, H, W)`` of :class:`PneumothoraxUNet` and as label either masks ``(B, 1, H, W)``, where
    anything above 0 is pneumothorax and a film with any such pixel is positive, or ``(B,)`` for films of which only the
    class is known: then the class term stands alone. Computed in float32 at least.

    Args:
        lovasz: Lovász hinge instead of cross-entropy for the mask.
        lovasz_stages: ``"both"`` is the paper's claim; ``"first"`` is what its authors ran: cross-entropy in stage 2.

    ``stage`` is 1 or 2 and set by :class:`pulmozoo.handlers.frozen_encoder.FrozenEncoder`.
    """

    def __init__(self, *, lovasz: bool = False, lovasz_stages: Literal["both", "first"] = "both") -> None:
        super().__init__()
        if lovasz_stages not in ("both", "first"):
            raise ValueError(f"lovasz_stages must be 'both' or 'first', got {lovasz_stages!r}")
        self.lovasz = lovasz
        self.lovasz_stages = lovasz_stages
        self.stage = 1
        self.cross_entropy = nn.BCEWithLogitsLoss()
        self.lovasz_hinge = SymmetricLovaszHinge()

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        mask, film = split_logits(logits.to(torch.promote_types(logits.dtype, torch.float32)))
        positive = (label > 0).to(mask.dtype)
        if label.shape == film.shape:
            return self.class_weight * self.cross_entropy(film, positive)
        expected = (len(mask), 1, *mask.shape[1:])
        if label.shape != expected:
            raise ValueError(
                f"labels must have shape {expected} to match logits, or {tuple(film.shape)} for the class alone, "
                f"got {tuple(label.shape)}"
            )
        outlined = (self.lovasz_hinge if self.uses_lovasz else self.cross_entropy)(mask, positive[:, 0])
        return outlined + self.class_weight * self.cross_entropy(film, positive.amax(dim=(1, 2, 3)))

    @property
    def uses_lovasz(self) -> bool:
        return self.lovasz and (self.stage == 1 or self.lovasz_stages == "both")

    @property
    def class_weight(self) -> float:
        return CLASS_WEIGHT_LOVASZ if self.uses_lovasz else CLASS_WEIGHT
