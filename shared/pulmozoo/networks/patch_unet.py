"""The 3D U-Net that CTSU-Net was compared with: patch by patch, without sight of the whole scan.

Source: Xie et al., https://arxiv.org/abs/2004.07443, comparators: 16.32 million parameters, patches of 132 voxels.
Differs from Cicek et al., "3D U-Net", https://arxiv.org/abs/1606.06650: the way up is interpolated, which gives that
count; convolutions have no bias.
"""

import torch
from torch import Tensor, nn

from .ctsunet import MARGIN, ContextualUNet, check_patch_shape, cut_patches, hard_starts, scaled

DOWN = ((32, 64), (64, 128), (128, 256), (256, 512))
UP = (256, 128, 64)


class PatchUNet(nn.Module):
    """Patches ``(B, 1, D, H, W)`` in [0, 1] to lobe logits ``(B, 6, D - 88, H - 88, W - 88)`` of their middle.

    Sizes are 4 mod 8 and at least 92. With a label it is a training step on whole scans, as
    :meth:`pulmozoo.networks.ctsunet.CTSUNet.forward`; its patches are drawn from everywhere.

    Args:
        width: factor on all widths; 1 is the paper's comparator.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        self.unet = ContextualUNet(
            1,
            [(scaled(mid, width), scaled(out, width)) for mid, out in DOWN],
            [scaled(channels, width) for channels in UP],
            valid=True,
            non_local=False,
            border=False,
        )
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight)

    def forward(
        self, image: Tensor, label: Tensor | None = None, patches: int = 2, patch: int = 132, share: float = 1.0
    ) -> Tensor | dict[str, Tensor]:
        """Logits of a patch, or with the ``label`` ``(B, 1, D, H, W)`` of whole scans ``patch_logits`` and
        ``patch_label`` of ``patches`` patches a scan; ``share`` has no meaning here."""
        if label is None:
            check_patch_shape(image.shape[2:])
            return self.logits(image)
        everywhere = torch.zeros_like(label[:, 0])
        starts = hard_starts(everywhere, patch - 2 * MARGIN, patches, 1.0)
        inputs, labels, _ = cut_patches(image, label, starts, patch)
        return {"patch_logits": self.logits(inputs), "patch_label": labels}

    def logits(self, patch: Tensor) -> Tensor:
        levels = self.unet.levels(patch)
        return self.unet.decode(self.unet.bridge(nn.functional.max_pool3d(levels[-1], kernel_size=2)), levels)
