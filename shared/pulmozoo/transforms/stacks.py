"""Annotated slices with their context: what SR-Net learns from and is measured on."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Randomizable, Transform
from monai.utils import convert_to_tensor
from torch import Tensor
from torch.nn import functional as F

from ..inferers.context_slices import stack_indices
from ..inferers.slices import padded_plane


class RandStacksd(Randomizable, Transform):
    """Draw square patches of annotated slices of a scan, each with its context, as samples with channels first.

    Takes ``image`` ``(1, D, H, W)``, ``lung`` and what :class:`~.lung_slices.AnnotatedSlicesd` made of the label. Gives
    a list of ``{"image": (depth, patch, patch), "label": (1, patch, patch)}``, float32, so that 2D augmentation treats
    all slices alike; :class:`AsStackd` ends it. Slices smaller than a patch are filled up with zeros.

    Args:
        depth: slices of a stack, the target among them.
        patch_px: rows and columns.
        count: samples of a scan.
        steps: the context is every slice, every second one and so on, drawn for each sample.
        on_lesion: share of the patches around a pixel of the lesion, where the slice has one; others lie on lung.
    """

    def __init__(
        self, depth: int, patch_px: int, count: int, steps: Sequence[int] = (1,), on_lesion: float = 0.67
    ) -> None:
        self.depth, self.patch_px, self.count, self.steps = depth, patch_px, count, list(steps)
        self.on_lesion = on_lesion

    def __call__(self, data: Mapping[Hashable, Any]) -> list[dict[Hashable, Any]]:
        drawn = self.R.choice(len(data["targets"]), self.count, replace=len(data["targets"]) < self.count)
        return [self.sample(data, int(number)) for number in drawn]

    def sample(self, data: Mapping[Hashable, Any], number: int) -> dict[Hashable, Any]:
        """A patch of one annotated slice with its context."""
        image, label = convert_to_tensor(data["image"]), convert_to_tensor(data["label"])[:, number]
        target = data["targets"][number]
        (stack,) = stack_indices([target], self.depth, image.shape[1], int(self.R.choice(self.steps)))
        inside = (
            label[0] if label.any() and self.R.random() < self.on_lesion else convert_to_tensor(data["lung"])[0, target]
        )
        rows, columns = self.window(inside if inside.any() else torch.ones_like(inside))
        return {"image": self.patch(image[0, stack], rows, columns), "label": self.patch(label, rows, columns)}

    def window(self, inside: Tensor) -> tuple[slice, slice]:
        """Rows and columns of a patch around one of the pixels of a mask ``(H, W)``, which is rarely its centre."""
        pixels = inside.nonzero()
        centre = pixels[self.R.randint(len(pixels))].tolist()
        reach = self.patch_px // 4
        starts = [
            int(np.clip(at - self.patch_px // 2 + self.R.randint(-reach, reach + 1), 0, max(size - self.patch_px, 0)))
            for at, size in zip(centre, inside.shape, strict=True)
        ]
        rows, columns = (slice(start, start + self.patch_px) for start in starts)
        return rows, columns

    def patch(self, planes: Tensor, rows: slice, columns: slice) -> Tensor:
        """What a window shows of ``(C, H, W)``, filled up to the size of a patch."""
        shown = planes[:, rows, columns].float()
        return F.pad(shown, [0, self.patch_px - shown.shape[2], 0, self.patch_px - shown.shape[1]])


class AsStackd(Transform):
    """``image`` ``(depth, H, W)`` to ``(1, depth, H, W)`` and ``label`` to ``(1, 1, H, W)``, plain tensors."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Tensor]:
        return {key: convert_to_tensor(data[key])[None] for key in ("image", "label")}


class AllStacksd(Transform):
    """Every annotated slice of a scan with its context, planes filled up with zeros until their sizes are divisible.

    Takes what :class:`RandStacksd` takes, and ``lung``. Gives a list of ``image`` ``(1, depth, H, W)``, ``label`` and
    ``lung`` ``(1, 1, H, W)``, and ``pixel_cm2``, the area of a pixel.

    Args:
        depth: slices of a stack.
        multiple: what the sizes of the plane must be divisible by.
    """

    def __init__(self, depth: int = 8, multiple: int = 8) -> None:
        self.depth, self.multiple = depth, multiple

    def __call__(self, data: Mapping[Hashable, Any]) -> list[dict[Hashable, Any]]:
        scan: MetaTensor = data["image"]
        row_mm, column_mm = scan.affine[:3, 1:3].norm(dim=0).tolist()
        image, lung = (padded_plane(convert_to_tensor(data[key]), self.multiple) for key in ("image", "lung"))
        label = padded_plane(convert_to_tensor(data["label"]), self.multiple)
        stacks = stack_indices(data["targets"], self.depth, image.shape[1])
        return [
            {
                "image": MetaTensor(image[:, stack], meta={"filename_or_obj": scan.meta["filename_or_obj"]}),
                "label": label[:, number : number + 1],
                "lung": lung[:, target : target + 1],
                "slice": target,
                "pixel_cm2": row_mm * column_mm / 100,
            }
            for number, (target, stack) in enumerate(zip(data["targets"], stacks, strict=True))
        ]
