"""Axial slices of the lungs as SR-Net takes them, and its answer back on the scan's own grid.

Source: Bermejo-Peláez et al., ISBI 2019 (see ``networks.srnet``): the lungs, all else masked out. Ours: the window, the
size of pixels and slices in the ``phantom`` preset. A scan whose axes are turned is taken along the closest anatomical
ones, so that slices stay slices of the scan.
"""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Transform
from monai.utils import convert_to_tensor
from torch import Tensor
from torch.nn import functional as F

from ..bundle.errors import BadInput
from .grid import resample, rescaled_affine, turned_view, with_meta
from .lung_files import on_ct
from .upright_box import box_of, cropped_affine, cut, lung_box, turned, upright

SQUARE = 1.5  # ratio of the sides of a pixel up to which it counts as square
CERTAIN = 255  # stands for a probability of 1


def slices_shape(
    shape: Sequence[int], spacing_mm: Sequence[float], pixel_mm: float | None, slice_mm: float | None
) -> tuple[int, int, int]:
    """Voxels of the working grid for lungs of ``shape`` (D, H, W).

    Pixels become ``pixel_mm`` wide. Slices that are closer than ``slice_mm`` are joined, others stay. None keeps what
    the scan has; then axial pixels that are not square, as those of a scan taken in coronal slices, are BadInput.
    """
    depth, height, width = shape
    step, row, column = spacing_mm
    if slice_mm is not None and step < slice_mm:
        depth = voxels((depth - 1) * step, slice_mm)
    if pixel_mm is None:
        if max(row, column) > SQUARE * min(row, column):
            raise BadInput(
                f"an axial slice of this scan has pixels of {row:g} x {column:g} mm, since it was taken in sagittal or "
                "coronal slices: expected square ones; give the axial reconstruction, or use the preset phantom"
            )
        return depth, height, width
    return depth, voxels((height - 1) * row, pixel_mm), voxels((width - 1) * column, pixel_mm)


def voxels(extent_mm: float, step_mm: float) -> int:
    """How many of about this size lie between two that stay in place; at least those two."""
    return max(2, round(extent_mm / step_mm) + 1)


class LungSlicesd(Transform):
    """Cut a CT to its lungs: axial slices with axes S, P, L, from 0 to 1, and 0 outside the lungs.

    Takes the CT and the lungs, both ``(1, X, Y, Z)`` on one grid. Adds ``image``, float32 ``(1, D, H, W)``, and
    ``lung``, bool of the same shape.

    Args:
        window_hu: what becomes 0 and 1.
        pixel_mm, slice_mm: see :func:`slices_shape`.
        ct_key: CT in HU, a MetaTensor with its affine.
        lungs_key: not 0 inside.
    """

    def __init__(
        self,
        window_hu: Sequence[float],
        pixel_mm: float | None = None,
        slice_mm: float | None = None,
        *,
        ct_key: str = "ct_hu",
        lungs_key: str = "lungs",
    ) -> None:
        self.window_hu = tuple(window_hu)
        self.pixel_mm, self.slice_mm = pixel_mm, slice_mm
        self.ct_key, self.lungs_key = ct_key, lungs_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        ct = data[self.ct_key]
        turn, affine = upright(ct)
        lungs = turned(data[self.lungs_key], turn)
        box = lung_box(lungs, margin=(0, 0, 0))
        lungs, hu = cut(lungs, box) > 0, cut(turned(ct, turn), box).float()
        shape = slices_shape(hu.shape[1:], affine[:3, :3].norm(dim=0).tolist(), self.pixel_mm, self.slice_mm)
        low, high = self.window_hu
        lung = resample(lungs.float(), shape, antialias=True) >= 0.5
        image = resample(((hu - low) / (high - low)).clamp(0, 1), shape, antialias=True) * lung
        affine = rescaled_affine(cropped_affine(affine, box), hu.shape[1:], shape)
        return {**data, "image": with_meta(image, ct, affine), "lung": with_meta(lung, ct, affine)}


class AnnotatedSlicesd(Transform):
    """Put the annotated slices of a label onto the slices of ``image``.

    ``data[key]``, a path, becomes a bool ``(1, n, H, W)``, one plane for each of the ``n`` annotated slices, and
    ``data["targets"]`` their numbers in ``image``. ``data["slices"]`` counts annotated slices along that axis of the
    scan which is closest to the patient's long one, as it is stored; without it all slices with lung are annotated.
    """

    def __init__(self, key: str = "label", *, ct_key: str = "ct_hu") -> None:
        self.key, self.ct_key = key, ct_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        ct, image = data[self.ct_key], data["image"]
        turn, affine = upright(ct)
        box = box_of(image, affine)
        lesion = cut(turned(on_ct(Path(data[self.key]), ct), turn), box) > 0
        depth = lesion.shape[1]
        if "slices" in data:
            axial = int(np.flatnonzero(turn[:, 0] == 0)[0])
            size = ct.shape[1 + axial]
            inside = [index if turn[axial, 1] > 0 else size - 1 - index for index in data["slices"]]
            numbers = [index - box[0].start for index in inside if 0 <= index - box[0].start < depth]
        else:
            numbers = list(range(depth))
        if not numbers:
            raise BadInput(f"{data[self.key]}: no annotated slice holds lung; check slice_index and the lungs")
        planes = resample(lesion[:, numbers].float(), (len(numbers), *image.shape[2:]), antialias=True) >= 0.5
        targets = [round(index * (image.shape[1] - 1) / max(depth - 1, 1)) for index in numbers]
        return {**data, self.key: planes, "targets": targets}


class LesionOnScand(Transform):
    """Turn logits on the slices of ``image`` into a label map on the grid of the scan: 1 in the lesion.

    ``data[key]`` is ``(1, D, H, W)``; it becomes ``(1, X, Y, Z)`` uint8 with the affine of ``data["ct_hu"]``. The
    lesion is where the probability, linear between pixels, is at least the threshold, inside the lungs.

    Args:
        threshold: 0 to 1.
        probabilities_key: where to put the probability as uint8, 255 stands for 1; it is thrown away where it is None.
    """

    def __init__(
        self,
        key: str = "pred",
        *,
        threshold: float = 0.5,
        probabilities_key: str | None = None,
        reference_key: str = "ct_hu",
        lungs_key: str = "lungs",
    ) -> None:
        self.key, self.threshold, self.probabilities_key = key, threshold, probabilities_key
        self.reference_key, self.lungs_key = reference_key, lungs_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        reference: MetaTensor = data[self.reference_key]
        turn, affine = upright(reference)
        box = box_of(data["image"], affine)
        inside = cut(turned(data[self.lungs_key], turn), box) > 0
        share = convert_to_tensor(data[self.key]).float().cpu().sigmoid()
        size = tuple(inside.shape[1:])
        share = F.interpolate(share[None], size, mode="trilinear", align_corners=True)[0] * inside
        on_scan = {self.key: ((share >= self.threshold) & inside).to(torch.uint8)}
        if self.probabilities_key is not None:
            on_scan[self.probabilities_key] = (share * CERTAIN).round().to(torch.uint8)
        return {**data, **{key: placed(part, reference, turn, box) for key, part in on_scan.items()}}


def placed(part: Tensor, reference: MetaTensor, turn: np.ndarray, box: tuple[slice, slice, slice]) -> MetaTensor:
    """What fills a box of the upright scan, ``(1, D, H, W)``, on the grid of the scan; 0 elsewhere."""
    whole = np.zeros((1, *reference.shape[1:]), dtype=np.uint8)
    turned_view(whole, turn)[:, box[0], box[1], box[2]] = part.numpy()
    return with_meta(torch.from_numpy(whole), reference, reference.affine.clone())
