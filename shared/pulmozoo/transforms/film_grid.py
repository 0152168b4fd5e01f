"""A film on the network's square grid, and the network's answer back on the film.

The film is padded to a square, never stretched, and resized so that the corners of the two squares coincide. Films have
axes (X, Y), column and row; the grid has (H, W), row and column, so that the network sees the film upright.
Source of the size and the normalisation: TheoViel/pneumothorax_segmentation (256, ImageNet).
"""

from collections.abc import Hashable, Mapping
from copy import deepcopy
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Transform
from monai.utils import convert_to_tensor
from skimage.exposure import equalize_adapthist
from torch import Tensor
from torch.nn import functional as F

from .film_mask import film_mask

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_SD = (0.229, 0.224, 0.225)
CLIP_LIMIT = 0.02  # share of a square's pixels that one grey level may hold before it is equalised


def to_grid(film: Tensor, size: int) -> Tensor:
    """``(C, X, Y)`` padded with 0 to a square and resized with antialiasing: float32 ``(C, size, size)``."""
    columns, rows = film.shape[1:]
    left, right, top, bottom = _borders(columns, rows)
    square = F.pad(film.float().mT, (left, right, top, bottom))
    return _resized(square, size)


def on_film(grid: Tensor, columns: int, rows: int) -> Tensor:
    """``(C, size, size)`` on the film it was made from: float32 ``(C, columns, rows)``; inverse of :func:`to_grid`."""
    left, _, top, _ = _borders(columns, rows)
    square = _resized(grid.float().mT.contiguous(), max(columns, rows))  # turned while it is small
    return square[:, left : left + columns, top : top + rows].contiguous()


def grid_affine(affine: Tensor, columns: int, rows: int, size: int) -> Tensor:
    """``(4, 4)`` from row and column of the grid to mm, given that from column and row of the film."""
    left, _, top, _ = _borders(columns, rows)
    step = max(columns, rows) / size
    to_film = torch.eye(4, dtype=torch.float64)
    to_film[:2, :2] = torch.tensor([[0, step], [step, 0]])
    to_film[:2, 3] = torch.tensor([step / 2 - 0.5 - left, step / 2 - 0.5 - top])
    return affine.double().cpu() @ to_film


def normalised(brightness: Tensor) -> Tensor:
    """``(1, H, W)`` brightness 0..1 as the three channels ``(3, H, W)`` that an ImageNet encoder expects."""
    mean, sd = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_SD))
    return (brightness - mean) / sd


def equalised(brightness: Tensor) -> Tensor:
    """``(1, H, W)`` brightness 0..1 with its contrast evened out place by place, 0..1.

    Contrast limited adaptive histogram equalisation over squares of an eighth of the film, so that films of different
    exposure and display look alike.
    """
    within = brightness[0].clamp(0, 1).numpy()  # a resized film may be a rounding error off
    return torch.from_numpy(equalize_adapthist(within, clip_limit=CLIP_LIMIT)).float()[None]


class ToFilmGridd(Transform):
    """``data[key]``, a film ``(1, X, Y)`` with brightness 0..1, becomes the network's input ``(3, size, size)``.

    Args:
        equalised: even out its contrast, see :func:`equalised`.
    """

    def __init__(self, key: str, size: int = 256, *, equalised: bool = False) -> None:
        self.key, self.size, self.equalised = key, size, equalised

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        film: MetaTensor = data[self.key]
        columns, rows = film.shape[1:]
        brightness = to_grid(film.as_tensor(), self.size)
        if self.equalised:
            brightness = equalised(brightness)
        grid = MetaTensor(normalised(brightness), meta=deepcopy(film.meta))
        grid.affine = grid_affine(film.affine, columns, rows, self.size)
        return {**data, self.key: grid}


class MaskToFilmGridd(Transform):
    """``data[key]``, a mask ``(1, X, Y)``, goes the way of its film: float32 0 or 1 of ``(1, size, size)``.

    A pixel of the grid is 1 where at least half of it is covered.
    """

    def __init__(self, key: str, size: int = 256) -> None:
        self.key, self.size = key, size

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        covered = to_grid(convert_to_tensor(data[self.key]) > 0, self.size)
        return {**data, self.key: (covered >= 0.5).float()}


class OnFilmd(Transform):
    """Turn the network's probabilities into a mask on the film's own grid.

    ``data[key]`` is ``(2, H, W)``: the probability of each pixel, and that of the film repeated over the plane. It
    becomes ``(1, X, Y)`` uint8 with the shape and the meta of ``data[reference_key]``.

    Args:
        threshold: a pixel belongs to the mask from this probability on.
        min_area_px: parts of the mask that are not larger go; in pixels of the network's grid, so that the same number
            fits films of any size.
        class_threshold: the mask is empty where the film's probability is below.
        probabilities_key: where to put both probabilities on the film's grid, float32 ``(2, X, Y)``.
    """

    def __init__(
        self,
        key: str,
        reference_key: str,
        threshold: float = 0.5,
        min_area_px: float = 0,
        class_threshold: float = 0,
        probabilities_key: str = "probabilities",
    ) -> None:
        self.key, self.reference_key, self.probabilities_key = key, reference_key, probabilities_key
        self.threshold, self.min_area_px, self.class_threshold = threshold, min_area_px, class_threshold

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        film: MetaTensor = data[self.reference_key]
        columns, rows = film.shape[1:]
        grid = convert_to_tensor(data[self.key]).cpu()
        if grid.ndim != 3 or grid.shape[0] != 2 or grid.shape[1] != grid.shape[2]:
            raise ValueError(f"probabilities must have shape (2, size, size), got {tuple(grid.shape)}")
        probabilities = on_film(grid, columns, rows)
        min_area_px = self.min_area_px * (max(columns, rows) / grid.shape[1]) ** 2
        mask = film_mask(probabilities, self.threshold, min_area_px, self.class_threshold)
        return {
            **data,
            self.key: MetaTensor(mask, meta=deepcopy(film.meta)),
            self.probabilities_key: MetaTensor(probabilities, meta=deepcopy(film.meta)),
        }


def _borders(columns: int, rows: int) -> tuple[int, int, int, int]:
    """Pixels to add left, right, above and below to make a square; right and below get the odd one."""
    side = max(columns, rows)
    left, top = (side - columns) // 2, (side - rows) // 2
    return left, side - columns - left, top, side - rows - top


def _resized(square: Tensor, size: int) -> Tensor:
    """``(C, S, S)`` as ``(C, size, size)``, bilinear; antialiasing acts only where the picture gets smaller."""
    return F.interpolate(square[None], size=(size, size), mode="bilinear", antialias=True)[0]
