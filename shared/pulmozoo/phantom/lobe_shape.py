"""Where the lobes lie within a lung, as measured, and the segmentation without a network that follows from it.

Source: six published lobe maps of adults (five of Tustison et al. 2016, one CT lobe template); mean and standard
deviation of the fissures as planes ``z = a + b (y - 0.5) + c (x - 0.5)`` in RAS coordinates, each 0 to 1 within the
bounding box of one lung.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

LOBES = {"left upper": 1, "left lower": 2, "right upper": 3, "right lower": 4, "right middle": 5}


@dataclass(frozen=True)
class PlaneStatistics:
    """Mean and standard deviation of the three numbers of a fissure plane."""

    mean: tuple[float, float, float]
    sd: tuple[float, float, float]


LEFT_OBLIQUE = PlaneStatistics((0.415, -0.891, 0.081), (0.039, 0.065, 0.029))
RIGHT_OBLIQUE = PlaneStatistics((0.429, -0.677, -0.042), (0.036, 0.071, 0.032))
HORIZONTAL = PlaneStatistics((0.525, -0.123, 0.001), (0.027, 0.060, 0.032))


def plane_height(plane: tuple[float, float, float], x: Tensor, y: Tensor) -> Tensor:
    """Height of a plane at normalised RAS coordinates."""
    a, b, c = plane
    return a + b * (y - 0.5) + c * (x - 0.5)


def divide_left(above_oblique: Tensor) -> Tensor:
    """Lobe numbers from the side of the oblique fissure (positive above)."""
    return torch.where(above_oblique > 0, LOBES["left upper"], LOBES["left lower"]).to(torch.uint8)


def divide_right(above_oblique: Tensor, above_horizontal: Tensor) -> Tensor:
    """Lobe numbers from the sides of both fissures (positive above)."""
    front = torch.where(above_horizontal > 0, LOBES["right upper"], LOBES["right middle"])
    return torch.where(above_oblique > 0, front, LOBES["right lower"]).to(torch.uint8)


def shape_prior(lungs: Tensor, affine: Tensor) -> Tensor:
    """Cut lung masks into lobes by the mean fissure planes: the segmentation that looks at no image.

    Args:
        lungs: ``(X, Y, Z)``, 1 in the left and 2 in the right lung.
        affine: ``(4, 4)``, voxel index to RAS+ mm; each voxel axis runs along one world axis.

    Returns ``(X, Y, Z)`` uint8 lobe numbers, 0 outside the lungs.
    """
    if lungs.ndim != 3:
        raise ValueError(f"lungs must have shape (X, Y, Z), got {tuple(lungs.shape)}")
    axis_of = _voxel_axes(affine)
    lobes = torch.zeros(lungs.shape, dtype=torch.uint8, device=lungs.device)
    for number in (1, 2):
        voxels = (lungs == number).nonzero()
        if len(voxels) == 0:
            continue
        x, y, z = _within_box(voxels, axis_of, affine)
        if number == 1:
            values = divide_left(z - plane_height(LEFT_OBLIQUE.mean, x, y))
        else:
            oblique = z - plane_height(RIGHT_OBLIQUE.mean, x, y)
            values = divide_right(oblique, z - plane_height(HORIZONTAL.mean, x, y))
        lobes[tuple(voxels.T)] = values
    return lobes


def _voxel_axes(affine: Tensor) -> list[int]:
    """For each of the world axes R, A, S the voxel axis that runs along it."""
    if tuple(affine.shape) != (4, 4):
        raise ValueError(f"affine must have shape (4, 4), got {tuple(affine.shape)}")
    linear = affine[:3, :3].abs()
    largest = linear.argmax(dim=1).tolist()
    rest = linear.sum() - sum(linear[row, column] for row, column in enumerate(largest))
    if sorted(largest) != [0, 1, 2] or rest > 0.05 * linear.sum():
        raise ValueError(f"affine must run each voxel axis along one world axis, got {affine[:3, :3].tolist()}")
    return largest


def _within_box(voxels: Tensor, axis_of: list[int], affine: Tensor) -> list[Tensor]:
    """RAS coordinates of voxels ``(N, 3)``, each 0 to 1 within their bounding box (its outer voxel faces)."""
    coordinates = []
    for world, voxel in enumerate(axis_of):
        index = voxels[:, voxel].float()
        share = (index - index.min() + 0.5) / (index.max() - index.min() + 1)
        coordinates.append(share if affine[world, voxel] > 0 else 1 - share)
    return coordinates
