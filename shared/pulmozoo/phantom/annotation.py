"""A sparse annotation of a full label map, as radiologists draw it: a few slices, parts of regions."""

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from .fields import Draws

SLICES_MM = (10.0, 15.0)  # from one annotated slice to the next
SLICE_CHANCE = 0.6  # of a slice to be annotated at all
REGION_CHANCE = 0.7  # of a region of an annotated slice
SMALLEST_MM2 = 80.0  # smaller regions are not drawn
INSET_MM = 1.2  # the line keeps away from the border of a region
CORNERS = 12
RADIUS_MM = (8.0, 40.0)


def draw_annotation(label: Tensor, spacing_mm: tuple[float, float, float], draws: Draws) -> Tensor:
    """Parts of a label map: ``(X, Y, Z)`` uint8, 0 where nobody annotated.

    Slices 10 to 15 mm apart, not all of them; in each, polygons within some of the regions of one label.

    Args:
        label: full map ``(X, Y, Z)``, 0 for what is never annotated.
        spacing_mm: along x, y, z.
    """
    full = label.cpu().numpy()
    annotation = np.zeros_like(full)
    z_mm = draws.uniform(0, SLICES_MM[0])
    while z_mm <= (full.shape[2] - 1) * spacing_mm[2]:
        index = round(z_mm / spacing_mm[2])
        if draws.chance(SLICE_CHANCE):
            annotation[..., index] = annotated_slice(full[..., index], spacing_mm[:2], draws)
        z_mm += max(draws.uniform(*SLICES_MM), spacing_mm[2])
    return torch.from_numpy(annotation)


def annotated_slice(label: np.ndarray, pixel_mm: tuple[float, float], draws: Draws) -> np.ndarray:
    """One slice ``(X, Y)``: a polygon in some of the regions, with the region's label."""
    annotation = np.zeros_like(label)
    for value in np.unique(label[label > 0]).tolist():
        inside = ndimage.distance_transform_edt(label == value, sampling=pixel_mm) > INSET_MM
        regions, count = ndimage.label(inside)
        for number in range(1, count + 1):
            region = regions == number
            if region.sum() * pixel_mm[0] * pixel_mm[1] >= SMALLEST_MM2 and draws.chance(REGION_CHANCE):
                annotation[region & polygon(region, pixel_mm, draws)] = value
    return annotation


def polygon(region: np.ndarray, pixel_mm: tuple[float, float], draws: Draws) -> np.ndarray:
    """A star-shaped polygon around a pixel of the region, ``(X, Y)``."""
    pixels = np.argwhere(region)
    middle = pixels[draws.integer(0, len(pixels) - 1)] * np.asarray(pixel_mm)
    size = draws.uniform(*RADIUS_MM)
    corners = np.array([size * draws.uniform(0.6, 1.2) for _ in range(CORNERS)])
    x, y = (np.arange(count) * step - at for count, step, at in zip(region.shape, pixel_mm, middle, strict=True))
    angle = np.arctan2(y[None, :], x[:, None]) % (2 * np.pi) / (2 * np.pi) * CORNERS
    radius = np.interp(angle, np.arange(CORNERS + 1), np.append(corners, corners[0]))
    return np.hypot(x[:, None], y[None, :]) <= radius
