"""LungNet as it was trained: on the left and the right lung of each slice by itself."""

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer
from monai.utils import convert_to_tensor
from torch import Tensor

from ..transforms.lung_box import LEFT, RIGHT, lung_box
from .slices import in_batches, lungs_like, slices_with


class LungCropsInferer(Inferer):
    """Logits inside the lungs, ``(B, 1, D, H, W) -> (B, C, D, H, W)`` in float32; 0 elsewhere.

    Source: Anthimopoulos et al., https://arxiv.org/abs/1803.06167: crops of one lung with a margin. A network with the
    statistics of its input answers otherwise on whole slices; and crops hold fewer pixels than they do.

    Args:
        margin: pixels around the lung.
        amp: bfloat16. Convolutions alone gain much by it, LungNet's norms do not.
    """

    def __init__(self, margin: int = 32, *, amp: bool = False) -> None:
        super().__init__()
        self.margin = margin
        self.amp = amp

    def __call__(self, inputs: Tensor, network: Callable[..., Any], lungs: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``lungs`` is ``(B, 1, D, H, W)``: left 1, right 2."""
        volumes = convert_to_tensor(inputs)
        pairs = zip(volumes, lungs_like(volumes, lungs), strict=True)
        return torch.stack([self.one_volume(volume, sides[0], network) for volume, sides in pairs])

    def one_volume(self, volume: Tensor, sides: Tensor, network: Callable[..., Any]) -> Tensor:
        """``(1, D, H, W)`` and ``(D, H, W)`` to ``(C, D, H, W)``."""
        answer = volume.new_zeros(0)
        with torch.autocast(volume.device.type, dtype=torch.bfloat16, enabled=self.amp):
            for (index,) in in_batches(slices_with(sides[None]), size=1):
                for side in (LEFT, RIGHT):
                    lung = sides[index] == side
                    if not lung.any():
                        continue
                    rows, columns = lung_box(lung, self.margin)
                    logits = network(volume[None, :, index, rows, columns]).float()[0]
                    if not len(answer):
                        answer = logits.new_zeros(len(logits), *sides.shape)
                    answer[:, index, rows, columns] += logits * lung[rows, columns]
        return answer
