"""LungNet as it was trained: on the left and the right lung of each slice by itself."""

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer
from monai.utils import convert_to_tensor
from torch import Tensor

from ..transforms.lung_box import LEFT, LUNG_MARGIN, RIGHT, lung_box
from .slices import PaddedInferer, in_batches, slices_with


class LungCropsInferer(Inferer):
    """Logits inside the lungs, ``(B, 2, D, H, W) -> (B, C, D, H, W)`` in float32; 0 elsewhere.

    The two channels are the CT, which alone the network sees, and the lungs: left 1, right 2. They come together
    since MONAI and MONAI Label hand an inferer one image.

    Source: Anthimopoulos et al., https://arxiv.org/abs/1803.06167: crops of one lung with a margin. A network with the
    statistics of its input answers otherwise on whole slices; and crops hold fewer pixels than they do.

    Args:
        margin: pixels around the lung.
        multiple, amp: of each crop, see :class:`.slices.PaddedInferer`.
    """

    def __init__(self, margin: int = LUNG_MARGIN, multiple: int = 1, *, amp: bool = False) -> None:
        super().__init__()
        self.margin = margin
        self.crop_inferer = PaddedInferer(multiple, amp=amp)

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        volumes = convert_to_tensor(inputs)
        if volumes.ndim != 5 or volumes.shape[1] != 2:
            raise ValueError(f"the image must have shape (B, 2, D, H, W), CT and lungs, got {tuple(volumes.shape)}")
        return torch.stack([self.one_volume(volume[:1], volume[1], network) for volume in volumes])

    def one_volume(self, volume: Tensor, sides: Tensor, network: Callable[..., Any]) -> Tensor:
        """``(1, D, H, W)`` and ``(D, H, W)`` to ``(C, D, H, W)``."""
        answer = volume.new_zeros(0)
        for (index,) in in_batches(slices_with(sides[None]), size=1):
            for side in (LEFT, RIGHT):
                lung = sides[index] == side
                if not lung.any():
                    continue
                rows, columns = lung_box(lung, self.margin)
                logits = self.crop_inferer(volume[None, :, index, rows, columns], network)[0]
                if not len(answer):
                    answer = logits.new_zeros(len(logits), *sides.shape)
                answer[:, index, rows, columns] += logits * lung[rows, columns]
        return answer
