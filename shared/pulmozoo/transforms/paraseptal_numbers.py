"""What a radiologist reads off an outlined lesion: areas, volume, share of the lungs, parts, distance to the pleura."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from monai.transforms import Transform
from scipy import ndimage
from torch import Tensor

from .upright_box import cut, lung_box, turned, upright

DISTANCE_MM = 1.5  # the distance to the pleura is measured on voxels of about this size
SIDES = {1: "left_lung_", 2: "right_lung_"}
TOUCHING = np.ones((3, 3, 3), dtype=bool)

Numbers = dict[str, Any]


def share_of(lesion: np.ndarray, part: np.ndarray, voxel_ml: float, prefix: str) -> Numbers:
    """Volume of a lesion in a part of the lungs, and percent of that part; None where the part is missing."""
    inside, whole = int(np.count_nonzero(lesion & part)), int(np.count_nonzero(part))
    return {
        f"{prefix}paraseptal_volume_ml": round(inside * voxel_ml, 3),
        f"{prefix}paraseptal_percent": round(100 * inside / whole, 3) if whole else None,
    }


def largest_parts(lesion: np.ndarray, voxel_ml: float) -> Numbers:
    """Number of separate lesions, voxels that touch are one, and the volume of the largest."""
    parts, count = ndimage.label(lesion, TOUCHING)
    largest = int(np.bincount(parts.ravel())[1:].max()) if count else 0
    return {"lesions": int(count), "largest_lesion_ml": round(largest * voxel_ml, 3)}


def pleura_distance_mm(lesion: np.ndarray, lungs: np.ndarray, spacing_mm: tuple[float, ...]) -> float | None:
    """Mean distance of the lesion's voxels to what is not lung; None without a lesion. All are ``(D, H, W)``."""
    steps = [max(1, round(DISTANCE_MM / size)) for size in spacing_mm]
    coarse = tuple(slice(None, None, step) for step in steps)
    inside = np.pad(lungs[coarse], 1)
    sampling = [size * step for size, step in zip(spacing_mm, steps, strict=True)]
    distance = ndimage.distance_transform_edt(inside, sampling=sampling)[1:-1, 1:-1, 1:-1]
    found = distance[lesion[coarse] & lungs[coarse]]
    return round(float(found.mean()), 2) if len(found) else None


def slice_warning(slice_mm: float, limit_mm: float) -> str | None:
    """A sentence where the context of a slice is further away than the network has learnt, else None."""
    if slice_mm <= limit_mm:
        return None
    return (
        f"slices {slice_mm:g} mm apart: the network has seen {limit_mm:g} mm at most, so the context of a slice means "
        "something else here; use a thinner reconstruction"
    )


class ParaseptalNumbersd(Transform):
    """Add to ``data["result"]`` what there is to say of a lesion map, as plain numbers, a list of them, text and None.

    ``areas_cm2`` has the area on each axial slice, in the order in which the scan is stored, and ``lung_slices`` how
    many hold lung. Each lung is told apart where the lungs are labelled 1 and 2, each lobe where there are lobes.

    Args:
        key: the lesion, ``(1, X, Y, Z)`` on the grid of the CT ``data["ct_hu"]``, as lungs and lobes are.
        max_slice_mm: further apart, slices get a warning.
        lobe_names: of the lobe labels, ``{"1": "left upper lobe", ...}``.
    """

    def __init__(
        self,
        key: str = "pred",
        *,
        max_slice_mm: float,
        lobe_names: Mapping[str, str],
        ct_key: str = "ct_hu",
        lungs_key: str = "lungs",
        lobes_key: str = "lobes",
    ) -> None:
        self.key, self.ct_key, self.lungs_key, self.lobes_key = key, ct_key, lungs_key, lobes_key
        self.max_slice_mm = max_slice_mm
        self.lobes = {int(index): f"{name.replace(' ', '_')}_" for index, name in lobe_names.items() if int(index)}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        ct = data[self.ct_key]
        turn, affine = upright(ct)
        box = lung_box(turned(data[self.lungs_key], turn), margin=(0, 0, 0))

        def upright_part(volume: Tensor) -> np.ndarray:
            return cut(turned(volume, turn), box)[0].numpy()

        lesion, lungs = upright_part(data[self.key]) > 0, upright_part(data[self.lungs_key])
        spacing_mm = tuple(affine[:3, :3].norm(dim=0).tolist())
        voxel_ml, pixel_cm2 = float(np.prod(spacing_mm)) / 1000, spacing_mm[1] * spacing_mm[2] / 100
        numbers: Numbers = {"lungs_volume_ml": round(int(np.count_nonzero(lungs)) * voxel_ml, 2)}
        numbers |= share_of(lesion, lungs > 0, voxel_ml, "")
        if (lungs == 2).any():
            for index, prefix in SIDES.items():
                numbers |= share_of(lesion, lungs == index, voxel_ml, prefix)
        if self.lobes_key in data:
            lobes = upright_part(data[self.lobes_key])
            for index, prefix in self.lobes.items():
                numbers |= share_of(lesion, lobes == index, voxel_ml, prefix)
        axial = int(np.flatnonzero(turn[:, 0] == 0)[0])
        areas = np.zeros(ct.shape[1 + axial])
        areas[box[0]] = lesion.sum(axis=(1, 2)) * pixel_cm2
        areas = areas if turn[axial, 1] > 0 else areas[::-1]
        numbers |= {
            "lung_slices": int((lungs > 0).any(axis=(1, 2)).sum()),
            "lesion_slices": int(np.count_nonzero(areas)),
            "largest_area_cm2": round(float(areas.max()), 3),
            "largest_area_slice": int(areas.argmax()) if areas.any() else None,
            **largest_parts(lesion, voxel_ml),
            "pleura_distance_mm": pleura_distance_mm(lesion, lungs > 0, spacing_mm),
            "slice_warning": slice_warning(spacing_mm[0], self.max_slice_mm),
            "areas_cm2": [round(float(area), 3) for area in areas],
        }
        return {**data, "result": {**data.get("result", {}), **numbers}}
