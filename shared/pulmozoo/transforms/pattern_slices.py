"""Axial slices of the lungs as LungNet takes them, their annotations, and the answer back on the scan's own grid.

Source: Anthimopoulos et al., https://arxiv.org/abs/1803.06167: slices as they are, what lies around a lung is kept.
Ours: the window, which the paper does not give, and the size of pixels in the ``phantom`` preset.
"""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Randomizable, Transform
from monai.utils import convert_to_tensor
from torch.nn import functional as F

from ..bundle.errors import BadInput
from ..datasets.lung_crops import slice_crops, volume_crops
from .emphysema_grid import labels_on_working_grid
from .grid import SLAB, likeliest, resample, rescaled_affine, with_meta
from .lung_box import LUNG_MARGIN
from .lung_files import on_ct
from .lung_slices import placed, slices_shape
from .upright_box import box_of, cropped_affine, cut, lung_box, turned, upright


class PatternSlicesd(Transform):
    """Cut a CT to its lungs with a margin: axial slices ``image`` ``(2, D, H, W)`` with axes S, P, L.

    Takes the CT and the lungs, both ``(1, X, Y, Z)`` on one grid. The first channel is the CT from 0 to 1, the second
    the lungs, left 1 and right 2. Slices stay those of the scan.

    Args:
        window_hu: what becomes 0 and 1.
        pixel_mm: width of a pixel; None keeps those of the scan.
        margin: pixels around the lungs.
        ct_key: CT in HU, a MetaTensor with its affine.
        lungs_key: left 1, right 2.
    """

    def __init__(
        self,
        window_hu: Sequence[float],
        pixel_mm: float | None = None,
        margin: int = LUNG_MARGIN,
        *,
        ct_key: str = "ct_hu",
        lungs_key: str = "lungs",
    ) -> None:
        self.window_hu, self.pixel_mm, self.margin = tuple(window_hu), pixel_mm, margin
        self.ct_key, self.lungs_key = ct_key, lungs_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        ct = data[self.ct_key]
        turn, affine = upright(ct)
        lungs = turned(data[self.lungs_key], turn)
        spacing_mm = affine[:3, :3].norm(dim=0).tolist()
        around = [0, *(round(self.margin * (self.pixel_mm or step) / step) for step in spacing_mm[1:])]
        box = lung_box(lungs, around)
        lungs, hu = cut(lungs, box), cut(turned(ct, turn), box).float()
        shape = slices_shape(hu.shape[1:], spacing_mm, self.pixel_mm, None)
        low, high = self.window_hu
        image = resample(((hu - low) / (high - low)).clamp(0, 1), shape, antialias=True)
        sides = labels_on_working_grid(lungs, shape, released=False)
        affine = rescaled_affine(cropped_affine(affine, box), hu.shape[1:], shape)
        return {**data, "image": with_meta(torch.cat([image, sides.float()]), ct, affine)}


class LabelOnCTd(Transform):
    """Replace the path of a label by its voxels on the grid of the CT, ``(1, X, Y, Z)`` uint8."""

    def __init__(self, key: str = "label", *, ct_key: str = "ct_hu") -> None:
        self.key, self.ct_key = key, ct_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return {**data, self.key: on_ct(Path(data[self.key]), data[self.ct_key])}


class AnnotationSlicesd(Transform):
    """Put a label onto the slices of ``image`` and keep those with an annotation in a lung.

    ``data[key]``, a path, becomes ``(1, n, H, W)`` uint8 and ``data["image"]`` has its ``n`` slices; ``data["crops"]``
    are number and side of all annotated lungs. BadInput where there is none.
    """

    def __init__(self, key: str = "label", *, ct_key: str = "ct_hu") -> None:
        self.key, self.ct_key = key, ct_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        ct, image = data[self.ct_key], data["image"]
        turn, affine = upright(ct)
        label = cut(turned(on_ct(Path(data[self.key]), ct), turn), box_of(image, affine))
        label = labels_on_working_grid(label, image.shape[1:], released=False)
        kept = label[0].flatten(start_dim=1).any(dim=1).nonzero().flatten()
        label, planes = label[:, kept], convert_to_tensor(image)[:, kept]
        crops = [(crop.slice_index, crop.side) for crop in volume_crops(planes[0], label[0], planes[1])]
        if not crops:
            raise BadInput(f"{data[self.key]}: nothing is annotated in the lungs; check the labels and the lungs")
        return {**data, "image": with_meta(planes, image, image.affine), self.key: label, "crops": crops}


class RandLungCropd(Randomizable, Transform):
    """Draw one annotated lung of one slice, with a margin.

    Takes what :class:`AnnotationSlicesd` left. ``image`` becomes ``(1, h, w)``, ``label`` ``(2, h, w)``: annotation
    and lung mask, for :class:`pulmozoo.losses.lungnet.LungNetLoss`.
    """

    def __init__(self, margin: int = LUNG_MARGIN) -> None:
        self.margin = margin

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        index, side = data["crops"][self.R.randint(len(data["crops"]))]
        image, sides = convert_to_tensor(data["image"])[:, index]
        lungs = slice_crops(image, convert_to_tensor(data["label"])[0, index], sides, margin=self.margin)
        crop = next(each for each in lungs if each.side == side)
        return {"image": crop.image[None], "label": torch.stack([crop.label, crop.lung.to(crop.label)])}


class PatternsOnScand(Transform):
    """Turn logits on the slices of ``image`` into a label map on the grid of the scan: the likeliest class, from 1 on.

    ``data[key]`` is ``(C, D, H, W)``; it becomes ``(1, X, Y, Z)`` uint8 with the affine of ``data["ct_hu"]``, 0 outside
    the lungs. Probabilities are linear between pixels.
    """

    def __init__(self, key: str = "pred", *, reference_key: str = "ct_hu", lungs_key: str = "lungs") -> None:
        self.key, self.reference_key, self.lungs_key = key, reference_key, lungs_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        reference: MetaTensor = data[self.reference_key]
        turn, affine = upright(reference)
        box = box_of(data["image"], affine)
        lungs = cut(turned(data[self.lungs_key], turn), box)[0] > 0
        logits = convert_to_tensor(data[self.key]).float().cpu()
        there = convert_to_tensor(data["image"])[1].cpu() > 0
        labels = torch.zeros_like(lungs, dtype=torch.uint8)
        for first in range(0, len(lungs), SLAB):
            slab = slice(first, first + SLAB)
            shares = (logits[:, slab].softmax(dim=0) * there[slab]).movedim(1, 0)
            shares = F.interpolate(shares, tuple(lungs.shape[1:]), mode="bilinear", align_corners=True)
            labels[slab] = (likeliest(shares) + 1) * lungs[slab]
        return {**data, self.key: placed(labels[None], reference, turn, box)}
