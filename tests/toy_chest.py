"""A chest of a few ellipsoids in the form of ``pulmozoo.phantom.thorax``, made in an instant and known by formula."""

import math

import numpy as np
import torch
from torch import Tensor

LUNG_CENTRE_MM, LUNG_RADII_MM = 70.0, (50.0, 70.0, 100.0)
LUNG_LITRES = 2 * 4 / 3 * math.pi * math.prod(LUNG_RADII_MM) / 1e6
LUNG_HU, TISSUE_HU, NOISE_HU = -850.0, 40.0, 10.0


def toy_chest(seed: int, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> dict[str, Tensor]:
    """Two lungs in an elliptic body; each seed is 5 HU brighter in the lungs than the one before."""
    axes = [(np.arange(count) - (count - 1) / 2) * step for count, step in zip(shape, spacing_mm, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")  # to the patient's left, back and head
    rx, ry, rz = LUNG_RADII_MM
    lungs = ((abs(x) - LUNG_CENTRE_MM) / rx) ** 2 + (y / ry) ** 2 + (z / rz) ** 2 < 1
    body = (x / 160) ** 2 + (y / 110) ** 2 < 1
    hu = np.where(lungs, LUNG_HU + 5 * seed, np.where(body, TISSUE_HU, -1000.0))
    vessels = lungs & (abs(y - spacing_mm[1] / 2) < 2) & (abs(z) < 10)
    hu[vessels] = TISSUE_HU
    lobes = lungs * np.select([x < 0, z > 0], [np.select([z > 40, y > 0], [3, 4], 5), 1], 2)
    noise = np.random.default_rng(seed).normal(0, NOISE_HU, shape)
    steps = np.diag([-spacing_mm[0], -spacing_mm[1], spacing_mm[2], 1.0])
    steps[:3, 3] = -steps[:3, :3] @ (np.array(shape) - 1) / 2
    return {
        "ct_hu": torch.from_numpy(np.rint(hu + noise).astype(np.int16)),
        "lobes": torch.from_numpy(lobes.astype(np.uint8)),
        "airways": torch.from_numpy((body & (abs(x) < 8) & (abs(y) < 8) & (z > 0)).astype(np.uint8)),
        "vessels": torch.from_numpy(vessels.astype(np.uint8)),
        "affine": torch.from_numpy(steps),
    }
