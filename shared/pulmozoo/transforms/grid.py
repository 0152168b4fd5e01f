"""A scan on the grid that a network works on, and its probabilities back on the scan's own grid.

Both ways are linear along each axis and keep the first and the last voxel centre in place (align_corners), as the
published lobe program does on the way back.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Transform
from monai.utils import convert_to_tensor
from torch import Tensor
from torch.nn import functional as F

from .upright import is_oblique, on_grid, upright_affine, upright_box

AXES = "SPL"  # axis order of every CT network here: superior, posterior, left
SLAB = 8  # slices of the scan that are brought back at once

Grid = Mapping[str, Any]


def working_shape(shape: Sequence[int], spacing_mm: Sequence[float], grid: Grid) -> tuple[int, int, int]:
    """Voxels of the working grid for a scan of ``shape`` (D, H, W) and ``spacing_mm``.

    ``grid`` holds one of ``spacing_mm`` (isotropic spacing), ``in_plane`` (voxels of the longer in-plane side;
    isotropic in all three axes) and ``shape`` (fixed, whatever the spacing).
    """
    if "shape" in grid:
        d, h, w = grid["shape"]
        return d, h, w
    extents = [(n - 1) * step for n, step in zip(shape, spacing_mm, strict=True)]
    step = max(extents[1:]) / (grid["in_plane"] - 1) if "in_plane" in grid else grid["spacing_mm"]
    d, h, w = (max(2, round(extent / step) + 1) for extent in extents)
    return d, h, w


def resampling_weights(old: int, new: int, *, antialias: bool) -> Tensor:
    """Weights ``(new, old)`` of linear resampling along an axis; with ``antialias`` the tent widens when it shrinks."""
    step = (old - 1) / max(new - 1, 1)
    centre = torch.arange(new) * step if new > 1 else torch.tensor([(old - 1) / 2])
    reach = max(1.0, step) if antialias else 1.0
    weights = (1 - (torch.arange(old) - centre[:, None]).abs() / reach).clamp(min=0)
    return weights / weights.sum(dim=1, keepdim=True)


def resample(volume: Tensor, shape: Sequence[int], *, antialias: bool) -> Tensor:
    """``(C, D, H, W)`` float to ``(C, *shape)``."""
    for axis, size in enumerate(shape, start=1):
        if volume.shape[axis] != size:
            weights = resampling_weights(volume.shape[axis], size, antialias=antialias)
            volume = torch.einsum("ij,...j->...i", weights.to(volume.device), volume.movedim(axis, -1)).movedim(
                -1, axis
            )
    return volume.contiguous()


def labels_on_grid(probabilities: Tensor, shape: Sequence[int], kept: np.ndarray | None = None) -> Tensor:
    """Label of largest probability on a finer grid: ``(C, D, H, W)`` to ``(1, *shape)`` uint8.

    Slab by slab, so that no more than a few slices of all channels exist at once.

    Args:
        kept: ``(C - 1, *shape)`` uint8 that is filled with the probabilities but the first, 255 stands for 1.
    """
    on_depth = resampling_weights(probabilities.shape[1], shape[0], antialias=False).to(probabilities.device)
    labels = torch.empty(1, *shape, dtype=torch.uint8, device=probabilities.device)
    for first in range(0, shape[0], SLAB):
        rows = on_depth[first : first + SLAB]
        used = rows.any(dim=0).nonzero()
        begin, end = int(used[0]), int(used[-1]) + 1
        slab = torch.einsum("ij,cjhw->ichw", rows[:, begin:end], probabilities[:, begin:end]).contiguous()
        slab = F.interpolate(slab, tuple(shape[1:]), mode="bilinear", align_corners=True)
        labels[0, first : first + SLAB] = likeliest(slab)
        if kept is not None:
            kept[:, first : first + SLAB] = (slab[:, 1:] * 255).round().to(torch.uint8).movedim(1, 0).cpu().numpy()
    return labels


def likeliest(shares: Tensor) -> Tensor:
    """``argmax`` over axis 1 as uint8, ten times faster on a CPU for a few large channels."""
    best = shares[:, 0]
    labels = torch.zeros_like(best, dtype=torch.uint8)
    for channel in range(1, shares.shape[1]):
        labels.masked_fill_(shares[:, channel] > best, channel)
        best = torch.maximum(best, shares[:, channel])
    return labels


class ToWorkingGridd(Transform):
    """Put ``(C, D, H, W)`` volumes with axes S, P, L on the working grid.

    Args:
        keys: floating-point images.
        grid: see :func:`working_shape`.
        antialias: average what falls between the voxels of a coarser grid.
        label_keys: label maps ``(1, D, H, W)``; each voxel takes the label with the largest share.
    """

    def __init__(
        self, keys: Sequence[str], grid: Grid, *, antialias: bool = False, label_keys: Sequence[str] = ()
    ) -> None:
        self.keys = [keys] if isinstance(keys, str) else list(keys)
        self.label_keys = [label_keys] if isinstance(label_keys, str) else list(label_keys)
        self.grid = grid
        self.antialias = antialias

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        changed = dict(data)
        for key in (*self.keys, *self.label_keys):
            volume = data[key]
            if is_oblique(volume.affine):
                changed[key] = self.turned_upright(volume, is_label=key in self.label_keys)
                continue
            shape = working_shape(volume.shape[1:], volume.pixdim.tolist(), self.grid)
            plain = volume.as_tensor()
            if key in self.keys:
                resampled = resample(plain.float(), shape, antialias=self.antialias)
            else:
                resampled = resample_labels(plain, shape, antialias=self.antialias)
            changed[key] = with_meta(resampled, volume, rescaled_affine(volume.affine, volume.shape[1:], shape))
        return changed

    def turned_upright(self, volume: MetaTensor, *, is_label: bool) -> MetaTensor:
        """An oblique volume on a working grid along the patient's axes that holds all of it."""
        first, extents = upright_box(volume.affine, volume.shape[1:])
        shape = working_shape((2, 2, 2), extents.tolist(), self.grid)
        affine = upright_affine(first, extents, shape)
        if is_label:
            return with_meta(on_grid(volume, affine, shape, mode="nearest").to(volume.dtype), volume, affine)
        if self.antialias:
            own = working_shape(volume.shape[1:], volume.pixdim.tolist(), {"spacing_mm": finest(affine)})
            own_affine = rescaled_affine(volume.affine, volume.shape[1:], own)
            volume = with_meta(resample(volume.as_tensor().float(), own, antialias=True), volume, own_affine)
        return with_meta(on_grid(volume, affine, shape), volume, affine)


def resample_labels(labels: Tensor, shape: Sequence[int], *, antialias: bool) -> Tensor:
    """Label with the largest share: ``(1, D, H, W)`` to ``(1, *shape)``, same integer type."""
    if tuple(labels.shape[1:]) == tuple(shape):
        return labels
    present = labels.unique()
    shares = torch.cat([resample((labels == label).float(), shape, antialias=antialias) for label in present])
    return present[shares.argmax(dim=0)][None]


def rescaled_affine(affine: Tensor, shape: Sequence[int], new_shape: Sequence[int]) -> Tensor:
    """Affine of the same extent with another number of voxels."""
    scale = [(old - 1) / max(new - 1, 1) for old, new in zip(shape, new_shape, strict=True)]
    return affine @ torch.diag(torch.tensor([*scale, 1.0], dtype=affine.dtype))


def finest(affine: Tensor) -> float:
    """Smallest spacing in mm."""
    return float(affine[:3, :3].norm(dim=0).min())


class LabelsOnScand(Transform):
    """Turn working-grid probabilities into labels on the grid of the scan.

    ``data[key]`` is ``(C, D, H, W)`` with axes S, P, L; it becomes ``(1, X, Y, Z)`` uint8 with the shape, the affine
    and the orientation of ``data[reference_key]``.

    Args:
        channels: how many of the first channels compete for the label.
        image_key: the volume on the working grid, which tells how an oblique scan was turned.
        probabilities_key: where to put the probabilities of these channels but the first, as uint8 of
            ``(channels - 1, X, Y, Z)``, 255 stands for 1; they are thrown away where it is None.
    """

    def __init__(
        self,
        key: str,
        reference_key: str,
        channels: int,
        image_key: str = "image",
        probabilities_key: str | None = None,
    ) -> None:
        self.key = key
        self.reference_key = reference_key
        self.channels = channels
        self.image_key = image_key
        self.probabilities_key = probabilities_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        reference = data[self.reference_key]
        there = nib.orientations.ornt_transform(
            nib.orientations.io_orientation(reference.affine.cpu().numpy()), nib.orientations.axcodes2ornt(AXES)
        )
        shape = [0, 0, 0]
        for axis, (target, _) in enumerate(there):
            shape[int(target)] = reference.shape[1 + axis]
        on_scan: dict[Hashable, Tensor] = {}
        kept = None
        if self.probabilities_key is not None:
            shares = np.empty((self.channels - 1, *reference.shape[1:]), dtype=np.uint8)
            on_scan[self.probabilities_key] = torch.from_numpy(shares)
            kept = turned_view(shares, there)
        probabilities = convert_to_tensor(data[self.key])[: self.channels].float()
        if is_oblique(reference.affine):
            turn = torch.from_numpy(nib.orientations.inv_ornt_aff(there, reference.shape[1:]))
            affine = reference.affine.double().cpu() @ turn
            upright = data[self.image_key].affine.cpu()
            own = working_shape(shape, affine[:3, :3].norm(dim=0).tolist(), {"spacing_mm": finest(upright)})
            turned = MetaTensor(probabilities, affine=upright)
            probabilities = on_grid(turned, rescaled_affine(affine, shape, own), own)
        labels = labels_on_grid(probabilities, shape, kept)
        back = nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt(AXES), nib.orientations.io_orientation(reference.affine.cpu().numpy())
        )
        turned = nib.orientations.apply_orientation(labels[0].cpu().numpy(), back)
        on_scan[self.key] = torch.from_numpy(np.ascontiguousarray(turned))[None]
        return {
            **data,
            **{key: with_meta(values, reference, reference.affine.clone()) for key, values in on_scan.items()},
        }


def turned_view(volumes: np.ndarray, orientation: np.ndarray) -> np.ndarray:
    """``(C, X, Y, Z)`` with its axes turned by a nibabel orientation; what is written into it lands in ``volumes``."""
    return np.moveaxis(nib.orientations.apply_orientation(np.moveaxis(volumes, 0, -1), orientation), -1, 0)


def with_meta(values: Tensor, source: MetaTensor, affine: Tensor) -> MetaTensor:
    """Values with the meta of ``source`` and another affine."""
    return MetaTensor(values, meta={**source.meta, "affine": affine})
