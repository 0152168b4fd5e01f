"""Atrous spatial pyramid pooling: one map seen at several scales at once.

Source: Chen, Papandreou, Schroff, Adam, "Rethinking atrous convolution for semantic image segmentation", 2017,
https://arxiv.org/abs/1706.05587, section 3.3, with the dropout of the published program of Viel and Orhan
(TheoViel/pneumothorax_segmentation).
"""

import torch
from torch import Tensor, nn

DILATIONS = (6, 12, 18)
DROPOUT = 0.5


def branch(in_channels: int, out_channels: int, dilation: int = 0) -> nn.Sequential:
    """Convolution, batch norm, ReLU; 3x3 with that dilation, or 1x1 without one."""
    kernel_size = 3 if dilation else 1
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=dilation, dilation=max(dilation, 1), bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class ASPP(nn.Module):
    """Four convolutions of growing reach and the mean of the whole map, joined: ``(B, in, H, W) -> (B, out, H, W)``.

    In training it takes batches of two images or more, since the mean is normalised over the batch; else ValueError.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branch(in_channels, out_channels, dilation) for dilation in (0, *DILATIONS))
        self.whole = branch(in_channels, out_channels)
        self.join = branch((len(self.branches) + 1) * out_channels, out_channels)
        self.dropout = nn.Dropout(DROPOUT)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) == 1:
            raise ValueError("ASPP must have batches of two images or more in training, got one: drop the last batch")
        whole = self.whole(x.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        return self.dropout(self.join(torch.cat([*(reach(x) for reach in self.branches), whole], dim=1)))
