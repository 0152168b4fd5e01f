"""What is told about a film: how likely a pneumothorax is, and how large and on which side its mask."""

import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.data import MetaTensor
from monai.transforms import Transform
from monai.utils import convert_to_tensor
from torch import Tensor

logger = logging.getLogger(__name__)

ONE_SIDE = 0.9  # share of the mask in one half of the film from which on the other half is not named


def film_numbers(
    mask: Tensor, probability: float, spacing_mm: Sequence[float] | None, *, mirrored: bool = False
) -> dict[str, float | int | str | None]:
    """``pneumothorax_probability``, ``mask_area_px``, ``area_cm2`` and ``side`` of a film.

    The area is that of the shadow on the film; unless the spacing is calibrated, it is that at the detector, a fifth
    more than at the patient (see :func:`pulmozoo.datasets.film_dicom.film_spacing`); None where it is unknown. The side
    is the patient's, ``right``, ``left`` or ``both``, None for an empty mask. It takes the middle of the film for the
    middle of the patient and the patient's right to be on the left of the film, as films are shown, unless
    ``mirrored``.

    Args:
        mask: ``(1, X, Y)``, X from left to right.
        probability: of a pneumothorax on this film.
        spacing_mm: step from column to column and from row to row, or None.
    """
    found = mask[0] > 0
    columns, count = found.sum(dim=1), int(found.sum())
    halves = [int(half.sum()) for half in columns.tensor_split((len(columns) // 2,))]
    right, left = reversed(halves) if mirrored else halves
    side = "right" if right >= ONE_SIDE * count else "left" if left >= ONE_SIDE * count else "both"
    area_cm2 = None if spacing_mm is None else round(count * float(spacing_mm[0]) * float(spacing_mm[1]) / 100, 2)
    return {
        "pneumothorax_probability": round(probability, 4),
        "mask_area_px": count,
        "area_cm2": area_cm2,
        "side": side if count else None,
    }


class FilmNumbersd(Transform):
    """Add :func:`film_numbers` and ``warnings``, a list of sentences that are logged too, to ``data["result"]``.

    ``data[key]`` is the mask and ``data[probabilities_key]`` ``(2, X, Y)``, as
    :class:`pulmozoo.transforms.film_grid.OnFilmd` leaves them; the rest comes from the meta of ``data[film_key]`` and
    from ``data["warnings"]`` of :class:`pulmozoo.transforms.film_reading.LoadFilmd`.
    """

    def __init__(self, key: str, film_key: str = "film", probabilities_key: str = "probabilities") -> None:
        self.key, self.film_key, self.probabilities_key = key, film_key, probabilities_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        film: MetaTensor = data[self.film_key]
        numbers = film_numbers(
            convert_to_tensor(data[self.key]),
            float(convert_to_tensor(data[self.probabilities_key])[1].mean()),
            film.meta.get("spacing_mm"),
            mirrored=bool(film.meta.get("mirrored", False)),
        )
        warnings = [line for line in data.get("warnings", "").split("\n") if line]
        for warning in warnings:
            logger.warning("%s: %s", film.meta.get("filename_or_obj", "film"), warning)
        return {**data, "result": {**data.get("result", {}), **numbers, "warnings": warnings}}
