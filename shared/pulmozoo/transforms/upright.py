"""Scans whose axes do not run along the patient's, as with a tilted gantry: turned upright for a network, and back.

Ours: the published programs take every scan as if it were upright.
"""

import math
from collections.abc import Sequence

import torch
from monai.data import MetaTensor
from monai.transforms import SpatialResample
from monai.utils import convert_to_tensor
from torch import Tensor

OBLIQUE_DEGREES = 2.0
UPRIGHT = torch.tensor([[0.0, 0, -1], [0, -1, 0], [1, 0, 0]], dtype=torch.float64)  # columns: S, P, L in RAS


def is_oblique(affine: Tensor) -> bool:
    """Whether some voxel axis is turned away from the patient's axes; ``affine`` is ``(4, 4)``, voxel to mm."""
    directions = affine[:3, :3] / affine[:3, :3].norm(dim=0)
    return bool((directions.abs().amax(dim=0) < math.cos(math.radians(OBLIQUE_DEGREES))).any())


def upright_box(affine: Tensor, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """First corner and extents, in mm along S, P and L, of the upright box around a volume's voxel centres."""
    corners = torch.cartesian_prod(*(torch.tensor([0.0, n - 1], dtype=torch.float64) for n in shape))
    in_mm = corners @ affine[:3, :3].double().T + affine[:3, 3].double()
    along = in_mm @ UPRIGHT
    first = along.amin(dim=0)
    return first, along.amax(dim=0) - first


def upright_affine(first: Tensor, extents: Tensor, shape: Sequence[int]) -> Tensor:
    """Affine of a grid of ``shape`` (D, H, W) that fills an upright box."""
    steps = extents / (torch.tensor(shape) - 1).clamp(min=1)
    affine = torch.eye(4, dtype=torch.float64)
    affine[:3, :3] = UPRIGHT @ torch.diag(steps)
    affine[:3, 3] = UPRIGHT @ first
    return affine


def on_grid(volume: MetaTensor, affine: Tensor, shape: Sequence[int], mode: str = "bilinear") -> Tensor:
    """``(C, D, H, W)`` at the voxels of another grid, 0 outside."""
    resample = SpatialResample(mode=mode, padding_mode="zeros", align_corners=True)
    return convert_to_tensor(resample(volume, dst_affine=affine, spatial_size=list(shape))).float()
