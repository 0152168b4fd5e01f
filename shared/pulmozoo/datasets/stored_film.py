"""What a film file holds, whatever its format, and the limits that are checked before its pixels are decoded."""

from typing import NamedTuple

import numpy as np

from ..bundle.errors import BadInput

MIN_SIDE, MAX_SIDE = 64, 8192  # the largest plates are 43 cm long: 5,000 pixels at 0.086 mm
STRETCH_PERCENTILES = (0.5, 99.5)
UNKNOWN_SPACING = "the pixel spacing is unknown, so areas are given in pixels only"


class StoredFilm(NamedTuple):
    """A film as it is displayed.

    ``brightness`` is ``(rows, columns)`` float32 in 0..1, lungs dark; ``spacing_mm`` the step from column to column
    and from row to row; ``view`` PA, AP, LATERAL or unknown; ``mirrored`` whether the patient's left is on the left;
    ``warnings`` what the file says that the user should know, a sentence each.
    """

    brightness: np.ndarray
    spacing_mm: tuple[float, float] | None = None
    view: str = "unknown"
    modality: str = "unknown"
    mirrored: bool = False
    warnings: tuple[str, ...] = ()


def check_film_size(columns: int, rows: int) -> None:
    """Raise BadInput for a film that is too small to show lungs, or too large to be one."""
    if min(columns, rows) < MIN_SIDE:
        raise BadInput(f"it has {columns} x {rows} pixels: expected at least {MIN_SIDE} a side; give the film itself")
    if max(columns, rows) > MAX_SIDE:
        raise BadInput(f"it has {columns} x {rows} pixels: expected at most {MAX_SIDE} a side; make it smaller first")


def stretched(values: np.ndarray) -> np.ndarray:
    """Brightness 0..1 of values without a known window: from their 0.5th to their 99.5th percentile."""
    low, high = np.percentile(values, STRETCH_PERCENTILES)
    if low == high:  # almost all of it is one value
        low, high = values.min(), values.max()
    return np.clip((values - low) / max(high - low, np.finfo(np.float32).tiny), 0, 1).astype(np.float32)
