import numpy as np
import pytest
from scipy import ndimage

from pulmozoo.metrics.fissure_sheets import VOXEL_MM, below_pleura, fissure_sheets

SIZE = 40
LUNG_HU, TISSUE_HU, NOISE_HU = -850.0, 30.0, 30.0
THICKNESS_MM = 0.6
NORMALS = {"level": (0.0, 0.0, 1.0), "oblique": (0.0, 0.7, 0.7), "askew": (0.3, -0.6, 0.74)}


def places() -> np.ndarray:
    """Positions in mm from the middle, ``(3, X, Y, Z)``."""
    steps = (np.arange(SIZE) - (SIZE - 1) / 2) * VOXEL_MM
    return np.stack(np.meshgrid(steps, steps, steps, indexing="ij"))


def lung(share: np.ndarray) -> np.ndarray:
    """Lung with noise in which tissue fills a share of each voxel."""
    noise = np.random.default_rng(0).normal(0, NOISE_HU, share.shape)
    return LUNG_HU + share * (TISSUE_HU - LUNG_HU) + noise


def away_from(normal: tuple[float, ...]) -> np.ndarray:
    """Distance in mm from a plane through the middle."""
    direction = np.array(normal) / np.linalg.norm(normal)
    return abs(np.tensordot(direction, places(), axes=1))


def plane(normal: tuple[float, ...], thickness_mm: float) -> np.ndarray:
    """Share of each voxel that a sheet fills; what it holds across is its thickness."""
    return np.clip(1 - away_from(normal) / VOXEL_MM, 0, 1) * thickness_mm / VOXEL_MM


def tube(radius_mm: float) -> np.ndarray:
    """Share of each voxel in a tube along a slanted line."""
    direction = np.array([0.5, 0.5, np.sqrt(0.5)])
    at = places()
    along = np.tensordot(direction, at, axes=1)
    away = np.sqrt((at**2).sum(axis=0) - along**2)
    return np.clip((radius_mm - away) / VOXEL_MM + 0.5, 0, 1)


def sheets(share: np.ndarray) -> np.ndarray:
    inside = np.zeros(share.shape, dtype=bool)
    inside[4:-4, 4:-4, 4:-4] = True
    return fissure_sheets(lung(share), inside, VOXEL_MM)


@pytest.mark.parametrize("normal", NORMALS.values(), ids=list(NORMALS))
def test_a_sheet_is_found_whatever_its_direction(normal):
    found, away = sheets(plane(normal, THICKNESS_MM)), away_from(normal)
    on_plane = away <= VOXEL_MM / 2
    on_plane[[*range(5), *range(-5, 0)]] = False
    on_plane[:, [*range(5), *range(-5, 0)]] = False
    on_plane[:, :, [*range(5), *range(-5, 0)]] = False
    near = ndimage.distance_transform_edt(~found, sampling=VOXEL_MM) <= VOXEL_MM
    assert near[on_plane].mean() > 0.95
    assert away[found].max() <= 3.0


@pytest.mark.parametrize("radius_mm", [1.0, 2.0, 4.0])
def test_a_vessel_is_no_sheet(radius_mm):
    assert sheets(tube(radius_mm)).sum() == 0


def test_noise_is_no_sheet():
    assert sheets(np.zeros((SIZE, SIZE, SIZE))).sum() == 0


def test_a_narrow_ribbon_is_left_out():
    ribbon = plane((0.0, 0.0, 1.0), THICKNESS_MM)
    ribbon[:, abs(places()[1, 0, :, 0]) > 4] = 0
    assert sheets(ribbon).sum() == 0


def test_only_what_lies_below_the_pleura_counts():
    """A lung of 20 x 20 x 20 voxels of 1.5 mm: 3 voxels are 4.5 mm, 4 are 6 mm."""
    lungs = np.zeros((24, 24, 24), dtype=np.uint8)
    lungs[2:22, 2:22, 2:22] = 2
    deep = below_pleura(lungs, VOXEL_MM)
    assert deep.sum() == 14**3
    assert deep[5:19, 5:19, 5:19].all()
