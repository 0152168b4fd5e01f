"""One picture of a mask on its chest film: plain beside coloured, with a legend."""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import numpy as np
from monai.data import MetaTensor
from PIL import Image

from .overlay import coloured, enlarged, sheet, title_of

LONGER_SIDE_PX = 720


def film_overlay_png(
    film: MetaTensor, labels: MetaTensor, path: str | PathLike[str], label_names: Mapping[int, str]
) -> None:
    """Write the film as it is shown, and beside it the film with the labels.

    Args:
        film: ``(1, X, Y)`` brightness, 0 to 1.
        labels: small integers of the same shape, 0 is background.
        path: the picture.
        label_names: what the legend says, by label.

    Raises ValueError if the two are not on one grid.
    """
    if film.ndim != 3 or film.shape[0] != 1 or labels.shape != film.shape:
        raise ValueError(
            f"film and labels must have one shape (1, X, Y), got {tuple(film.shape)}, {tuple(labels.shape)}"
        )
    brightness, marks = (image.as_tensor()[0].cpu().numpy().T for image in (film, labels))
    rows, columns = brightness.shape
    scale = LONGER_SIDE_PX / max(rows, columns)
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    scaled = Image.fromarray(np.clip(brightness, 0, 1).astype(np.float32) * 255)
    grey = np.rint(np.asarray(scaled.resize(size, Image.Resampling.BILINEAR))).astype(np.uint8)
    plain = np.repeat(grey[..., None], 3, axis=2)
    panels = [Image.fromarray(plain), Image.fromarray(coloured(plain, enlarged(marks, size)))]
    sheet([panels], title_of(film), label_names).save(Path(path), format="PNG")
