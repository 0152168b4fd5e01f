"""A scan turned to axes superior, posterior, left and cut to the box of its lungs."""

from collections.abc import Sequence

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.utils import convert_to_tensor
from scipy import ndimage
from torch import Tensor

from ..bundle.errors import BadInput
from .grid import AXES, turned_view

Box = tuple[slice, slice, slice]


def lung_box(lungs: Tensor, margin: Sequence[int]) -> Box:
    """Smallest box around lungs ``(1, D, H, W)`` with a margin in voxels, cut at the scan; BadInput without a lung."""
    if not lungs.any():
        raise BadInput("the lung mask is empty: expected the lungs of this CT; check the mask or the scan")
    tight = ndimage.find_objects((lungs[0] > 0).cpu().numpy().astype(np.uint8))[0]
    z, y, x = (
        slice(max(part.start - more, 0), min(part.stop + more, size))
        for part, more, size in zip(tight, margin, lungs.shape[1:], strict=True)
    )
    if min(part.stop - part.start for part in (z, y, x)) < 2:
        raise BadInput("the lung mask is a single voxel thick: expected whole lungs; check the mask")
    return z, y, x


def cut(volume: Tensor, box: Box) -> Tensor:
    """The box of a ``(C, D, H, W)`` volume."""
    z, y, x = box
    return volume[:, z, y, x]


def upright(volume: MetaTensor) -> tuple[np.ndarray, Tensor]:
    """nibabel's orientation that turns a volume ``(1, X, Y, Z)`` to axes S, P, L, and its affine then."""
    affine = volume.affine.double().cpu()
    turn = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(affine.numpy()), nib.orientations.axcodes2ornt(AXES)
    )
    return turn, affine @ torch.from_numpy(nib.orientations.inv_ornt_aff(turn, volume.shape[1:]))


def turned(volume: Tensor, turn: np.ndarray) -> Tensor:
    """``(C, X, Y, Z)`` to ``(C, D, H, W)`` by an orientation of :func:`upright`."""
    return torch.from_numpy(np.ascontiguousarray(turned_view(convert_to_tensor(volume).cpu().numpy(), turn)))


def cropped_affine(affine: Tensor, box: Box) -> Tensor:
    """Affine of the voxels of a box."""
    moved = affine.clone()
    moved[:3, 3] += affine[:3, :3] @ torch.tensor([part.start for part in box], dtype=affine.dtype)
    return moved


def box_of(image: MetaTensor, affine: Tensor) -> Box:
    """The box of the scan that a volume on the working grid fills; ``affine`` is that of the upright scan."""
    step = torch.linalg.inv(affine) @ image.affine.double().cpu()
    first = step[:3, 3].round().int().tolist()
    size = [round(float(step[axis, axis]) * (image.shape[1 + axis] - 1)) + 1 for axis in range(3)]
    z, y, x = (slice(start, start + length) for start, length in zip(first, size, strict=True))
    return z, y, x
