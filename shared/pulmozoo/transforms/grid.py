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


def labels_on_grid(probabilities: Tensor, shape: Sequence[int]) -> Tensor:
    """Label of largest probability on a finer grid: ``(C, D, H, W)`` to ``(1, *shape)`` uint8.

    Slab by slab, so that no more than a few slices of all channels exist at once.
    """
    on_depth = resampling_weights(probabilities.shape[1], shape[0], antialias=False).to(probabilities.device)
    labels = torch.empty(1, *shape, dtype=torch.uint8, device=probabilities.device)
    for first in range(0, shape[0], SLAB):
        rows = on_depth[first : first + SLAB]
        used = rows.any(dim=0).nonzero()
        begin, end = int(used[0]), int(used[-1]) + 1
        slab = torch.einsum("ij,cjhw->cihw", rows[:, begin:end], probabilities[:, begin:end])
        labels[0, first : first + SLAB] = resample(slab, (len(rows), *shape[1:]), antialias=False).argmax(dim=0)
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
            shape = working_shape(volume.shape[1:], volume.pixdim.tolist(), self.grid)
            plain = volume.as_tensor()
            if key in self.keys:
                resampled = resample(plain.float(), shape, antialias=self.antialias)
            else:
                resampled = resample_labels(plain, shape, antialias=self.antialias)
            changed[key] = with_meta(resampled, volume, rescaled_affine(volume, shape))
        return changed


def resample_labels(labels: Tensor, shape: Sequence[int], *, antialias: bool) -> Tensor:
    """Label with the largest share: ``(1, D, H, W)`` to ``(1, *shape)``, same integer type."""
    if tuple(labels.shape[1:]) == tuple(shape):
        return labels
    present = labels.unique()
    shares = torch.cat([resample((labels == label).float(), shape, antialias=antialias) for label in present])
    return present[shares.argmax(dim=0)][None]


def rescaled_affine(volume: MetaTensor, shape: Sequence[int]) -> Tensor:
    """Affine of the same extent with another number of voxels."""
    scale = [(old - 1) / max(new - 1, 1) for old, new in zip(volume.shape[1:], shape, strict=True)]
    return volume.affine @ torch.diag(torch.tensor([*scale, 1.0], dtype=volume.affine.dtype))


class LabelsOnScand(Transform):
    """Turn working-grid probabilities into labels on the grid of the scan.

    ``data[key]`` is ``(C, D, H, W)`` with axes S, P, L; it becomes ``(1, X, Y, Z)`` uint8 with the shape, the affine
    and the orientation of ``data[reference_key]``.

    Args:
        channels: how many of the first channels compete for the label.
    """

    def __init__(self, key: str, reference_key: str, channels: int) -> None:
        self.key = key
        self.reference_key = reference_key
        self.channels = channels

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        reference = data[self.reference_key]
        there = nib.orientations.ornt_transform(
            nib.orientations.io_orientation(reference.affine.cpu().numpy()), nib.orientations.axcodes2ornt(AXES)
        )
        shape = [0, 0, 0]
        for axis, (target, _) in enumerate(there):
            shape[int(target)] = reference.shape[1 + axis]
        labels = labels_on_grid(convert_to_tensor(data[self.key])[: self.channels].float(), shape)
        back = nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt(AXES), nib.orientations.io_orientation(reference.affine.cpu().numpy())
        )
        turned = nib.orientations.apply_orientation(labels[0].cpu().numpy(), back)
        return {
            **data,
            self.key: with_meta(
                torch.from_numpy(np.ascontiguousarray(turned))[None], reference, reference.affine.clone()
            ),
        }


def with_meta(values: Tensor, source: MetaTensor, affine: Tensor) -> MetaTensor:
    """Values with the meta of ``source`` and another affine."""
    return MetaTensor(values, meta={**source.meta, "affine": affine})
