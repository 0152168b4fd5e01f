"""The loss of FRV-Net: Dice of lobes and borders, and of the lobes at coarser levels.

Source: Ferreira et al., "End-to-end supervised lung lobe segmentation", IJCNN 2018: Dice per class weighted by the
inverse of its volume. Ours: equal weights of the four terms, which are not published.
"""

from collections.abc import Mapping

from monai.losses import GeneralizedDiceLoss
from torch import Tensor, nn
from torch.nn import functional as F

from .ctsunet import border_map


class FRVLoss(nn.Module):
    """Takes what :class:`pulmozoo.networks.frvnet.FRVNet` gives in training and the label ``(B, 1, D, H, W)``."""

    def __init__(self) -> None:
        super().__init__()
        self.dice = GeneralizedDiceLoss(softmax=True, to_onehot_y=True, w_type="simple", smooth_nr=1e-7, smooth_dr=1e-7)

    def forward(self, prediction: Mapping[str, Tensor], label: Tensor) -> Tensor:
        loss: Tensor = self.dice(prediction["border"].float(), border_map(label))
        for name in ("lobes", "lobes_half", "lobes_quarter"):
            logits = prediction[name].float()
            loss = loss + self.dice(logits, F.interpolate(label.float(), logits.shape[2:], mode="nearest"))
        return loss
