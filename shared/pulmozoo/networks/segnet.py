"""SegNet: VGG-16's convolutions down, their mirror image up, unpooling where the maxima were; LungNet's comparator.

Source: Badrinarayanan, Kendall, Cipolla, "SegNet", IEEE TPAMI 2017, https://arxiv.org/abs/1511.00561. LungNet's paper
quotes 335e5 parameters, which no form of it that we know has; this is the standard one. Norms use the statistics of
each slice, as that paper's batches of one did.
"""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from ..blocks.plane_size import check_plane_size
from ..blocks.slice_by_slice import slice_by_slice

CLASSES = 6
STAGES = ((1, 64, 64), (64, 128, 128), (128, 256, 256, 256), (256, 512, 512, 512), (512, 512, 512, 512))


def stage(widths: tuple[int, ...]) -> nn.Sequential:
    """Convolution, norm, ReLU from each width to the next."""
    layers = nn.Sequential()
    for ins, outs in pairwise(widths):
        convolution = nn.Conv2d(ins, outs, kernel_size=3, padding=1)
        layers.extend([convolution, nn.InstanceNorm2d(outs, affine=True), nn.ReLU(inplace=True)])
    return layers


class SegNet(nn.Module):
    """Slices ``(B, 1, H, W) -> (B, 6, H, W)`` logits, or volumes ``(B, 1, D, H, W)`` slice by slice.

    ``H`` and ``W`` must be divisible by 32.
    """

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(map(stage, STAGES))
        self.up = nn.ModuleList(stage(widths[::-1]) for widths in STAGES[:0:-1])
        self.up.append(stage(STAGES[0][:0:-1]))
        self.head = nn.Conv2d(STAGES[0][1], CLASSES, kernel_size=3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        check_plane_size(image.shape[-2:], multiple=2 ** len(STAGES))
        return slice_by_slice(self.slices, image)

    def slices(self, x: Tensor) -> Tensor:
        """``(B, 1, H, W) -> (B, 6, H, W)``."""
        places: list[Tensor] = []
        for block in self.down:
            x, place = F.max_pool2d(block(x), kernel_size=2, return_indices=True)
            places.append(place)
        for block in self.up:
            x = block(F.max_unpool2d(x, places.pop(), kernel_size=(2, 2)))
        return self.head(x)
