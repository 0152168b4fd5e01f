"""From the probabilities of a film to its mask."""

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

_SQUARE = np.ones((3, 3), dtype=bool)  # 8 neighbours


def film_mask(
    probabilities: Tensor, threshold: float = 0.5, min_area_px: float = 0, class_threshold: float = 0
) -> Tensor:
    """Where the pneumothorax is: uint8 ``(1, *S)`` of 0 and 1 with ``S`` two axes.

    Args:
        probabilities: ``(2, *S)``, of each pixel and of the film, the latter the same over the plane.
        threshold: a pixel belongs to the mask from this probability on.
        min_area_px: connected parts (8 neighbours) that are not larger go.
        class_threshold: the mask is empty where the film's probability is below.
    """
    mask = probabilities[:1] >= threshold
    if probabilities[1].mean() < class_threshold:
        mask = torch.zeros_like(mask)
    return (without_small_parts(mask, min_area_px) if min_area_px > 0 else mask).to(torch.uint8)


def without_small_parts(mask: Tensor, min_area_px: float) -> Tensor:
    """The connected parts (8 neighbours) of a boolean mask ``(1, *S)`` that are larger than an area."""
    parts, _ = ndimage.label(mask[0].numpy(), _SQUARE)
    large = np.bincount(parts.ravel()) > min_area_px
    large[0] = False
    return torch.from_numpy(large[parts])[None]
