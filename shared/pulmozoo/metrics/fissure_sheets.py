"""Sheets in the lung that look like fissures, found without any knowledge of lobes.

Source of the idea, a plate measure from the eigenvalues of the Hessian: Wiemker et al., "Unsupervised extraction of the
pulmonary interlobar fissures from high resolution thoracic CT data", CARS 2005. Ours: every number below, tuned by eye
on thin phantoms, and which pieces are kept. Thick slices smear vessels into ribbons, which pass for sheets: see
docs/yardstick.md.
"""

import numpy as np
from scipy import ndimage
from skimage.feature import hessian_matrix, hessian_matrix_eigvals

VOXEL_MM = 1.5  # of the cubic voxels on which scans are compared
SIGMA_MM = 1.5  # thicker than a fissure (below 1 mm), so that noise is averaged
CONTRAST_HU = 12.0  # least bend across the sheet: second derivative times sigma squared
FLATNESS = 0.35  # largest bend along the sheet, as a share of the bend across it; a vessel has about 1
BRIGHTEST_HU = -550.0  # of the smoothed CT; brighter is a vessel or its wall
PLEURA_MM = 5.0  # the pleura is a sheet as well
LEAST_WIDTH_MM = 12.0  # narrower pieces are ribbons: vessels, stretched by thick slices
SMALLEST_MM3 = 100.0

_CUBE = np.ones((3, 3, 3), dtype=bool)


def fissure_sheets(ct_hu: np.ndarray, deep: np.ndarray, voxel_mm: float) -> np.ndarray:
    """Voxels of bright, thin, flat sheets.

    A sheet bends the smoothed CT in one direction only: the Hessian has one strongly negative eigenvalue and two small
    ones. Small and narrow pieces are left out.

    Args:
        ct_hu: ``(X, Y, Z)`` in HU, with cubic voxels.
        deep: where to look, bool ``(X, Y, Z)``: the lungs without their skin (:func:`below_pleura`).
        voxel_mm: size of a voxel.

    Returns a bool array of the same shape.
    """
    sigma = SIGMA_MM / voxel_mm
    ct_hu = ct_hu.astype(np.float32)
    bends = hessian_matrix(ct_hu, sigma=sigma, order="rc", use_gaussian_derivatives=False)
    eigenvalues = hessian_matrix_eigvals([part[deep][:, None, None] for part in bends])  # wants three axes
    high, middle, low = eigenvalues[..., 0, 0] * sigma**2
    smooth = ndimage.gaussian_filter(ct_hu, sigma)[deep]
    flat = np.maximum(np.abs(middle), np.abs(high)) < FLATNESS * np.abs(low)
    sheets = np.zeros(ct_hu.shape, dtype=bool)
    sheets[deep] = (low < -CONTRAST_HU) & flat & (smooth < BRIGHTEST_HU)
    return _wide(sheets, voxel_mm)


def below_pleura(lungs: np.ndarray, voxel_mm: float) -> np.ndarray:
    """The lungs (``> 0``) without their outer 5 mm."""
    return ndimage.distance_transform_edt(lungs > 0, sampling=voxel_mm) > PLEURA_MM


def _wide(mask: np.ndarray, voxel_mm: float) -> np.ndarray:
    """The connected pieces whose second axis of inertia is as wide as a sheet's."""
    parts, count = ndimage.label(mask, _CUBE)
    keep = np.zeros(count + 1, dtype=bool)
    for number, box in enumerate(ndimage.find_objects(parts), start=1):
        at = np.argwhere(parts[box] == number) * voxel_mm
        if len(at) * voxel_mm**3 >= SMALLEST_MM3:
            width = np.sqrt(12 * np.linalg.eigvalsh(np.cov(at.T))[1])  # of a uniform bar with this variance
            keep[number] = width >= LEAST_WIDTH_MM
    return keep[parts]
