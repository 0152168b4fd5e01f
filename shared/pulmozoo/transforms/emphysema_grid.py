"""The lungs of a CT on the grid that DRAM works on, and its maps back on the scan's own grid.

Source: Xie et al., Scientific Reports 2023, https://doi.org/10.1038/s41598-023-40116-6, and the published program (MIT,
DIAGNijmegen/bodyct-dram-emph-subtype), which prepares a scan in another way; both are here. An oblique scan is taken
along its closest anatomical axes, as both do.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import Transform
from monai.utils import convert_to_tensor
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from ..bundle.errors import BadInput
from ..networks.dram import subtype_densities
from .grid import SLAB, resampling_weights, rescaled_affine, turned_view, with_meta
from .upright_box import box_of, cropped_affine, cut, lung_box, turned, upright

SHAPE = (128, 224, 288)
WINDOW_HU = (-1150.0, -300.0)
BORDER_MM = 5.0  # around the lungs, in the published program
ROUNDING = 1e-3  # voxels; an affine in other axes gives 2.4999999 mm for 2.5 mm
OUTSIDE_HU = -2048.0
DILATION = 5  # voxels wide: twice all 26 neighbours
GATE_HU = -910.0  # the published program counts emphysema in darker voxels only
EMPHYSEMA_FROM = 0.5  # density of both subtypes together


def windowed(ct_hu: Tensor, window_hu: Sequence[float] = WINDOW_HU) -> Tensor:
    """The lower end and darker to 0, the upper end and brighter to 1."""
    low, high = window_hu
    return ((ct_hu - low) / (high - low)).clamp(0, 1)


def paper_input(
    ct_hu: Tensor, lungs: Tensor, shape: Sequence[int], window_hu: Sequence[float] = WINDOW_HU
) -> tuple[Tensor, Tensor]:
    """Network input and CT on the working grid: linear along each axis, window, 0 outside the lungs.

    The lungs are cut out last: else they would have a rim that looks like emphysema.

    Args:
        ct_hu, lungs: ``(1, D, H, W)``, cut to the lungs.
        shape: of the working grid.
        window_hu: darkest and brightest.

    Returns float32 ``(1, *shape)`` twice.
    """
    hu = F.interpolate(ct_hu[None], tuple(shape), mode="trilinear", align_corners=True)[0]
    inside = labels_on_working_grid(lungs, shape, released=False) > 0
    return windowed(hu, window_hu) * inside, hu


def released_input(
    ct_hu: Tensor, lungs: Tensor, shape: Sequence[int], window_hu: Sequence[float] = WINDOW_HU
) -> tuple[Tensor, Tensor]:
    """As :func:`paper_input` in the published way.

    -2048 HU further than two voxels from the lungs, slices picked, linear in plane, window, mean 0 and deviation 1.
    """
    near = torch.from_numpy(ndimage.maximum_filter((lungs > 0).cpu().numpy(), size=(1, DILATION, DILATION, DILATION)))
    hu = torch.where(near.to(ct_hu.device), ct_hu, OUTSIDE_HU)[:, picked(ct_hu.shape[1], shape[0])]
    hu = F.interpolate(hu, tuple(shape[1:]), mode="bilinear", align_corners=True)
    image = windowed(hu, window_hu)
    return (image - image.mean()) / image.std().clamp(min=1e-6), hu


def picked(old: int, new: int) -> Tensor:
    """Slices that the published program picks: ``floor(linspace(0, old - 1, new))``."""
    return torch.arange(new) * (old - 1) // (new - 1)


def labels_on_working_grid(labels: Tensor, shape: Sequence[int], *, released: bool) -> Tensor:
    """Nearest voxel of labels ``(1, D, H, W)`` cut to the lungs: ``(1, *shape)``, same type.

    Between the voxels that stay at the ends, as the image; in the published way slices are picked and in plane
    PyTorch's legacy ``nearest`` starts at the edges of the voxels.
    """
    for axis, (old, new) in enumerate(zip(labels.shape[1:], shape, strict=True), start=1):
        if not released:
            index = (torch.arange(new) * ((old - 1) / (new - 1))).round().long()
        elif axis == 1:
            index = picked(old, new)
        else:
            index = torch.arange(new) * old // new
        labels = labels.index_select(axis, index.to(labels.device))
    return labels


class EmphysemaGridd(Transform):
    """Cut a CT to its lungs and put it on the working grid, axes S, P, L.

    Takes the CT and the lungs, both ``(1, X, Y, Z)`` on one grid, and lobes where there are any. Adds ``output_key``,
    the network's input ``(1, D, H, W)``; ``image_hu``, the CT there; ``lung`` and ``lobe``, the labels there.

    Args:
        released: as the published program, see :func:`released_input`; else as the paper, :func:`paper_input`.
        shape: of the working grid, divisible by 8.
        window_hu: darkest and brightest that the network tells apart.
        ct_key: CT in HU, a MetaTensor with its affine.
        lungs_key: not 0 inside; 1 left, 2 right.
        lobes_key: lobe labels, if the data have them.
    """

    def __init__(
        self,
        *,
        released: bool = False,
        shape: Sequence[int] = SHAPE,
        window_hu: Sequence[float] = WINDOW_HU,
        ct_key: str = "ct_hu",
        lungs_key: str = "lungs",
        lobes_key: str = "lobes",
        output_key: str = "image",
    ) -> None:
        self.released = released
        self.shape = tuple(shape)
        self.window_hu = tuple(window_hu)
        self.ct_key, self.lungs_key, self.lobes_key, self.output_key = ct_key, lungs_key, lobes_key, output_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        ct = data[self.ct_key]
        turn, affine = upright(ct)
        labels = {"lung": data[self.lungs_key]}
        if self.lobes_key in data:
            labels["lobe"] = data[self.lobes_key]
        for key, volume in labels.items():
            if volume.shape != ct.shape:
                raise BadInput(
                    f"the {key} label has {tuple(volume.shape[1:])} voxels, the CT {tuple(ct.shape[1:])}: "
                    "expected one grid; resample the label to the CT"
                )
        volumes = {key: turned(volume, turn) for key, volume in labels.items()}
        hu, lungs = turned(ct, turn).float(), volumes["lung"]
        spacing_mm = affine[:3, :3].norm(dim=0)
        margin = (BORDER_MM / spacing_mm - ROUNDING).ceil().int().tolist() if self.released else [0, 0, 0]
        box = lung_box(lungs, margin)
        hu, lungs = cut(hu, box), cut(lungs, box)
        inside_hu = hu[lungs > 0].mean().item()
        if inside_hu > WINDOW_HU[1]:
            raise BadInput(
                f"the mean inside the lung mask is {inside_hu:.0f} HU: expected lung, below {WINDOW_HU[1]:.0f}; "
                "does the mask belong to this CT?"
            )
        prepare = released_input if self.released else paper_input
        image, image_hu = prepare(hu, lungs, self.shape, self.window_hu)
        affine = rescaled_affine(cropped_affine(affine, box), hu.shape[1:], self.shape)
        added = {self.output_key: image, "image_hu": image_hu}
        for key, volume in volumes.items():
            added[key] = labels_on_working_grid(cut(volume, box), self.shape, released=self.released).to(torch.uint8)
        return {**data, **{key: with_meta(values, ct, affine) for key, values in added.items()}}


def depth_weights(maps: int, working: int, scan: int, *, released: bool) -> Tensor:
    """Weights ``(scan, maps)`` that bring maps of ``maps`` slices to the slices of the cut scan.

    Linear, first and last slice in place. Where slices were picked, a slice of the scan gets the mean of what was
    picked from it, and one that was not, what lies between its neighbours that were.
    """
    if not released:
        return resampling_weights(maps, scan, antialias=False)
    sources, group = picked(scan, working).unique(return_inverse=True)
    means = F.one_hot(group).T.float()
    means = means / means.sum(dim=1, keepdim=True)
    place = np.interp(np.arange(scan), sources, np.arange(len(sources)))
    between = (1 - (torch.from_numpy(place)[:, None] - torch.arange(len(sources))).abs()).clamp(min=0).float()
    return between @ means @ resampling_weights(maps, working, antialias=False)


class SubtypesOnScand(Transform):
    """Turn DRAM's logits into a label map on the grid of the scan, 1 centrilobular and 2 paraseptal.

    ``data[key]`` is ``(2, d, h, w)`` of regression or ``(9, d, h, w)`` of classification; it becomes ``(1, X, Y, Z)``
    uint8 with the affine of ``data[reference_key]``. A voxel is emphysema where the densities of both subtypes add
    up to more than a half, inside the lungs and darker than -910 HU; it is of the subtype with the larger density.

    Args:
        released: how :class:`EmphysemaGridd` prepared the scan.
        reference_key: the CT in HU on the scan's grid.
        lungs_key: the lungs there.
        image_key: the network's input, which tells the box it was cut from.
        probabilities_key: where to put both densities, as uint8 of ``(2, X, Y, Z)``, 255 stands for 1, 0 outside the
            lungs; they are thrown away where it is None.
    """

    def __init__(
        self,
        key: str = "pred",
        *,
        released: bool = False,
        reference_key: str = "ct_hu",
        lungs_key: str = "lungs",
        image_key: str = "image",
        probabilities_key: str | None = None,
    ) -> None:
        self.key = key
        self.released = released
        self.reference_key, self.lungs_key, self.image_key = reference_key, lungs_key, image_key
        self.probabilities_key = probabilities_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        reference, image = data[self.reference_key], data[self.image_key]
        turn, affine = upright(reference)
        box = box_of(image, affine)
        maps = subtype_densities(convert_to_tensor(data[self.key]).float()[None])[0]
        ct_hu = cut(turned(reference, turn), box)[0]
        lungs = cut(turned(data[self.lungs_key], turn), box)[0] > 0
        weights = depth_weights(maps.shape[1], image.shape[1], len(lungs), released=self.released).to(maps.device)
        labels = np.zeros((1, *reference.shape[1:]), dtype=np.uint8)
        shares = np.zeros((2, *reference.shape[1:]), dtype=np.uint8)
        labels_there = turned_view(labels, turn)[:, box[0], box[1], box[2]]
        shares_there = turned_view(shares, turn)[:, box[0], box[1], box[2]]
        for first in range(0, len(lungs), SLAB):
            slab = slice(first, first + SLAB)
            densities = torch.einsum("ij,cjhw->ichw", weights[slab], maps)
            size = tuple(lungs.shape[1:])
            densities = F.interpolate(densities, size, mode="bilinear", align_corners=True).cpu() * lungs[slab, None]
            subtype = torch.where(densities[:, 1] > densities[:, 0], 2, 1)
            present = (densities.sum(dim=1) > EMPHYSEMA_FROM) & (ct_hu[slab] < GATE_HU)
            labels_there[0, slab] = (subtype * present).numpy()
            shares_there[:, slab] = (densities * 255).round().movedim(1, 0).to(torch.uint8).numpy()
        on_scan = {self.key: labels}
        if self.probabilities_key is not None:
            on_scan[self.probabilities_key] = shares
        return {
            **data,
            **{
                key: with_meta(torch.from_numpy(values), reference, reference.affine.clone())
                for key, values in on_scan.items()
            },
        }
