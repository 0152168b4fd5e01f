"""LungNet's training images: one lung of an annotated slice, with a margin.

Source: Anthimopoulos et al., https://arxiv.org/abs/1803.06167.
"""

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from ..transforms.lung_box import LEFT, LUNG_MARGIN, RIGHT, lung_box


class LungCrop(NamedTuple):
    """One lung in one slice; all of one shape ``(h, w)``.

    ``image`` is not masked, what lies around a lung is context. ``label`` is 0 in the other lung, ``lung`` holds this
    lung alone.
    """

    image: Tensor
    label: Tensor
    lung: Tensor
    slice_index: int
    side: int


def slice_crops(
    image: Tensor, label: Tensor, lungs: Tensor, slice_index: int = 0, margin: int = LUNG_MARGIN
) -> Iterator[LungCrop]:
    """Left and right lung of a slice ``(H, W)``, those with an annotation.

    Args:
        image: of any kind.
        label: 0 not annotated, 1 to 6 the classes.
        lungs: left 1, right 2.
        slice_index: travels along.
        margin: pixels around the lung, as far as the slice goes.
    """
    if not image.shape == label.shape == lungs.shape or image.ndim != 2:
        shapes = [tuple(given.shape) for given in (image, label, lungs)]
        raise ValueError(f"image, label and lungs must have one shape (H, W), got {shapes}")
    for side, other in ((LEFT, RIGHT), (RIGHT, LEFT)):
        lung = lungs == side
        if lung.any():
            box = lung_box(lung, margin)
            own = label[box] * (lungs[box] != other)
            if own.any():
                yield LungCrop(image[box], own, lung[box], slice_index, side)


def volume_crops(image: Tensor, label: Tensor, lungs: Tensor, margin: int = LUNG_MARGIN) -> Iterator[LungCrop]:
    """:func:`slice_crops` of each slice of a volume ``(D, H, W)``."""
    for index, planes in enumerate(zip(image, label, lungs, strict=True)):
        yield from slice_crops(*planes, slice_index=index, margin=margin)
