"""One picture of emphysema on its CT, as the paper's figure 3: the CT, where it is centrilobular, where paraseptal."""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import numpy as np
from monai.data import MetaTensor
from PIL import Image

from ..transforms.emphysema_grid import WINDOW_HU
from .overlay import PALETTE, PLANES, canonical_pair, fullest_slice, marked, panel_size, sheet, title_of, view, windowed

SHOWN = ("axial", "coronal")
OPACITY = 0.75
CERTAIN = 255


def emphysema_overlay_png(
    ct_hu: MetaTensor,
    labels: MetaTensor,
    densities: MetaTensor,
    path: str | PathLike[str],
    label_names: Mapping[int, str],
) -> None:
    """Write an axial and a coronal slice in a row each: the CT, and on it the density of each subtype in its colour.

    Each slice is the one of its direction that shows most (:func:`.overlay.fullest_slice`).

    Args:
        ct_hu: ``(1, X, Y, Z)`` CT in Hounsfield units, with affine.
        labels: 1 centrilobular, 2 paraseptal; of the same shape and affine.
        densities: uint8 ``(2, X, Y, Z)``, 255 stands for 1.
        path: the picture.
        label_names: what the legend says, by label.
    """
    image, marks, spacing_mm = canonical_pair(ct_hu, labels)
    shares = [
        canonical_pair(ct_hu, MetaTensor(density[None], affine=densities.affine))[1]
        for density in densities.as_tensor()
    ]
    rows = []
    for plane in SHOWN:
        axes = PLANES[plane]
        through = 3 - sum(axes)
        index = fullest_slice(marks, through)
        size = panel_size([image.shape[axis] * spacing_mm[axis] for axis in axes])
        grey = windowed(view(image, through, index), size, WINDOW_HU)
        tinted = [
            glowing(grey, view(share, through, index), PALETTE[label])
            for label, share in enumerate(shares)  # label 1 has the first colour
        ]
        rows.append([marked(picture, plane) for picture in (grey, *tinted)])
    sheet(rows, title_of(ct_hu), label_names).save(Path(path), format="PNG")


def glowing(grey: np.ndarray, density: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """A slice ``(height, width, 3)`` in grey with a density 0 to 255 laid over it, the more the stronger."""
    size = (grey.shape[1], grey.shape[0])
    share = np.asarray(Image.fromarray(density.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)) / CERTAIN
    picture = grey.astype(np.float32)
    picture += OPACITY * share[..., None] * (np.array(colour, dtype=np.float32) - picture)
    return np.rint(picture).astype(np.uint8)
