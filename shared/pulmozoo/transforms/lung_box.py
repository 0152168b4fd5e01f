"""The box around one lung in one slice."""

from monai.transforms.utils import generate_spatial_bounding_box
from torch import Tensor

LEFT, RIGHT = 1, 2
LUNG_MARGIN = 32  # pixels; LungNet's paper, https://arxiv.org/abs/1803.06167


def lung_box(lung: Tensor, margin: int = LUNG_MARGIN) -> tuple[slice, slice]:
    """Rows and columns of a mask ``(H, W)`` that is not empty, ``margin`` pixels wider where the slice goes on."""
    (top, left), (bottom, right) = generate_spatial_bounding_box(lung[None], margin=margin, allow_smaller=True)
    return slice(top, bottom), slice(left, right)
