"""What the caller has of the lungs in files: a mask, or the label maps that the lobe bundle left."""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import ITKReader, MetaTensor, NibabelReader
from monai.transforms import Transform
from torch import Tensor

from ..bundle.errors import BadInput
from ..datasets.scans import VOLUME_SUFFIXES
from .grid import turned_view, with_meta
from .reading import check_itk_header, check_nifti_header, load_volume, readable

OFF_VOXELS = 0.5  # a corner of the mask may lie that far from the corner of the CT


class LungFilesd(Transform):
    """Read the lungs or the lobes of a CT, where there are any, to ``(1, X, Y, Z)`` uint8 on its grid.

    ``data[mask_key]`` and ``data[lobes_key]`` may be paths already; else the files are looked for in the two folders,
    by the id of the scan: ``<scan>.nii.gz`` or, as the lobe bundle leaves it, ``<scan>/<scan>_seg.nii.gz``. Axes may be
    stored in another order than the CT's.

    Args:
        lung_masks: a file, or a folder with one for each scan; None where there are none.
        lobe_labels: the same with lobes (1, 2 left; 3, 4, 5 right), such as the output folder of the lobe bundle.
        ct_key: a MetaTensor with its affine.

    Raises BadInput where a file is missing or on another grid.
    """

    def __init__(
        self,
        lung_masks: str | Path | None = None,
        lobe_labels: str | Path | None = None,
        ct_key: str = "ct_hu",
        mask_key: str = "lung_mask",
        lobes_key: str = "lobes",
    ) -> None:
        self.sources = {mask_key: lung_masks, lobes_key: lobe_labels}
        self.ct_key = ct_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        found: dict[Hashable, Any] = {}
        for key, source in self.sources.items():
            if key in data:
                found[key] = on_ct(Path(data[key]), data[self.ct_key])
            elif source is not None:
                found[key] = on_ct(file_of(Path(source).expanduser(), data["scan"]), data[self.ct_key])
        return {**data, **found}


def file_of(source: Path, scan: str) -> Path:
    """The file itself, or that of a scan in a folder; BadInput where there is none."""
    if source.is_file():
        return source
    named = [source / place for end in VOLUME_SUFFIXES for place in (f"{scan}{end}", f"{scan}/{scan}_seg{end}")]
    for path in named:
        if path.is_file():
            return path
    raise BadInput(f"{source} has no mask of {scan}: expected a file, or a folder with {named[0].name} or {named[1]}")


def on_ct(path: Path, ct: MetaTensor) -> MetaTensor:
    """Labels of a file with the axes of the CT ``(1, X, Y, Z)``, uint8; BadInput unless they lie on its voxels."""
    labels = read_labels(path)
    turn = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(labels.affine.numpy()), nib.orientations.io_orientation(ct.affine.numpy())
    )
    affine = labels.affine.numpy() @ nib.orientations.inv_ornt_aff(turn, labels.shape[1:])
    turned = np.ascontiguousarray(turned_view(labels.numpy(), turn))
    if turned.shape != tuple(ct.shape) or corners_apart(affine, ct.affine.numpy(), ct.shape[1:]) > OFF_VOXELS:
        voxels = [" x ".join(map(str, shape[1:])) for shape in (turned.shape, ct.shape)]
        raise BadInput(
            f"{path} ({voxels[0]} voxels) lies on another grid than the CT ({voxels[1]}): expected one grid; "
            "resample the mask to the CT"
        )
    values: Tensor = torch.from_numpy(turned).round().to(torch.uint8)
    return with_meta(values, ct, ct.affine.clone())


def read_labels(path: Path) -> MetaTensor:
    """A label volume ``(1, X, Y, Z)`` with its affine."""
    with readable(path):
        nifti = path.name.lower().endswith((".nii", ".nii.gz"))
        if nifti:
            check_nifti_header(path)
        else:
            check_itk_header(path)
        return load_volume(path, NibabelReader() if nifti else ITKReader())


def corners_apart(one: np.ndarray, other: np.ndarray, shape: tuple[int, ...] | torch.Size) -> float:
    """How far, in voxels, the corners of a volume lie apart under two affines."""
    corners = np.array([[*np.where(at, np.array(shape) - 1, 0), 1] for at in np.ndindex(2, 2, 2)])
    return float(np.abs(corners @ (np.linalg.inv(other) @ one).T - corners).max())
