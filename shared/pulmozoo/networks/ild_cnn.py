"""ILD-CNN made fully convolutional: a classifier of 32-pixel patches at every pixel; LungNet's comparator.

Source: Anthimopoulos et al., "Lung pattern classification for interstitial lung diseases using a deep convolutional
neural network", IEEE TMI 2016; its form with pooling of stride 1 in https://arxiv.org/abs/1803.06167. Built from the
papers' facts. The 0.9e5 parameters quoted there are the convolutions alone (95,144); the whole network has 471,278.
"""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from ..blocks.slice_by_slice import slice_by_slice

CLASSES = 6
CHANNELS = (1, 16, 36, 64, 100, 144)
DENSE = (144, 864, 288)
POOL = 27  # what five 2x2 convolutions leave of a patch
PATCH = 32
SLOPE = 0.3
DROPOUT = 0.5


class ILDCNN(nn.Module):
    """Slices ``(B, 1, H, W) -> (B, 6, H, W)`` logits, or volumes ``(B, 1, D, H, W)`` slice by slice; any size.

    A pixel's answer is that for the patch from 16 pixels before it to 15 after it along both axes; the slice is
    continued by its border pixels.
    """

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.Sequential()
        for ins, outs in pairwise(CHANNELS):
            self.convolutions.extend([nn.Conv2d(ins, outs, kernel_size=2), nn.LeakyReLU(SLOPE, inplace=True)])
        self.dense = nn.Sequential()
        for ins, outs in pairwise(DENSE):
            self.dense.extend([nn.Dropout(DROPOUT), nn.Conv2d(ins, outs, kernel_size=1), nn.ReLU(inplace=True)])
        self.dense.extend([nn.Dropout(DROPOUT), nn.Conv2d(DENSE[-1], CLASSES, kernel_size=1)])
        self.apply(start_orthogonal)

    def forward(self, image: Tensor) -> Tensor:
        return slice_by_slice(self.slices, image)

    def slices(self, x: Tensor) -> Tensor:
        """``(B, 1, H, W) -> (B, 6, H, W)``."""
        before = PATCH // 2
        x = F.pad(x, [before, PATCH - 1 - before] * 2, mode="replicate")
        x = self.convolutions(x)
        for window in ((POOL, 1), (1, POOL)):  # a mean over a square, axis by axis
            x = F.avg_pool2d(x, window, stride=1)
        return self.dense(x)


def start_orthogonal(module: nn.Module) -> None:
    """Orthogonal weights and no bias, for each convolution."""
    if isinstance(module, nn.Conv2d) and module.bias is not None:
        nn.init.orthogonal_(module.weight)
        nn.init.zeros_(module.bias)
