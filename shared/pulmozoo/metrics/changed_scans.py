"""The same chest once more, as another scan would show it: a method should give it the same labels."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import nibabel as nib
import torch
from monai.data import MetaTensor

from ..bundle.errors import BadInput, innermost_reason
from ..datasets.scans import find_scans
from ..files import whole
from ..transforms.grid import resample, rescaled_affine, with_meta, working_shape
from ..transforms.reading import AIR_HU, read_ct

AS_IS = "as_is"
NOISE_HU = 40.0  # sd of what is added to each voxel; the sharp kernel of a thin slice has about twice that
SPACING_MM = 2.0

logger = logging.getLogger(__name__)


def noisy(ct_hu: MetaTensor) -> MetaTensor:
    """White noise of 40 HU on ``(1, X, Y, Z)`` int16, the same in each call."""
    noise = torch.randn(ct_hu.shape, generator=torch.Generator().manual_seed(0)) * NOISE_HU
    changed = (ct_hu.as_tensor() + noise).round().clamp(min=AIR_HU).to(torch.int16)
    return with_meta(changed, ct_hu, ct_hu.affine.clone())


def resampled(ct_hu: MetaTensor) -> MetaTensor:
    """``(1, X, Y, Z)`` on cubic voxels of 2 mm, linear, averaged where that is coarser."""
    shape = working_shape(ct_hu.shape[1:], ct_hu.pixdim.tolist(), {"spacing_mm": SPACING_MM})
    changed = resample(ct_hu.as_tensor().float(), shape, antialias=True).round().to(torch.int16)
    return with_meta(changed, ct_hu, rescaled_affine(ct_hu.affine, ct_hu.shape[1:], shape))


def flipped(ct_hu: MetaTensor) -> MetaTensor:
    """``(1, X, Y, Z)`` stored from the other end of each axis; the affine says so, no voxel moves in the patient."""
    turn = torch.diag(torch.tensor([-1.0, -1, -1, 1], dtype=ct_hu.affine.dtype))
    turn[:3, 3] = torch.tensor(ct_hu.shape[1:], dtype=ct_hu.affine.dtype) - 1
    return with_meta(ct_hu.as_tensor().flip(1, 2, 3), ct_hu, ct_hu.affine @ turn)


CHANGES: Mapping[str, Callable[[MetaTensor], MetaTensor]] = {
    "noise": noisy,
    "resampled": resampled,
    "flipped": flipped,
}


def write_changed(scans: Path, folder: Path) -> dict[str, Path]:
    """Write each CT at or below a path as ``folder/<change>/<scan>.nii.gz``, where it is not there yet.

    One that cannot be read is left out with a line that says why. Returns the folder of each change.
    """
    for item in find_scans(scans):
        places = {name: folder / name / f"{item['scan']}.nii.gz" for name in CHANGES}
        missing = [name for name, place in places.items() if not place.exists()]
        if not missing:
            continue
        try:
            ct_hu = read_ct(item["image"])
        except BadInput as error:
            logger.warning("%s is left out: %s", item["scan"], innermost_reason(error))
            continue
        for name in missing:
            write_ct(places[name], CHANGES[name](ct_hu))
    return {name: folder / name for name in CHANGES}


def write_ct(path: Path, ct_hu: MetaTensor) -> None:
    """A CT ``(1, X, Y, Z)`` as NIfTI, replaced as a whole."""
    image = nib.Nifti1Image(ct_hu.as_tensor()[0].numpy(), ct_hu.affine.numpy())
    with whole(path) as unfinished:
        nib.save(image, unfinished)
