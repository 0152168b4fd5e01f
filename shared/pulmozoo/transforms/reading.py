"""Read a CT in Hounsfield units from NIfTI, MHA, NRRD or DICOM, or say in one sentence why it is none.

MONAI's readers do the reading; added here are DICOM series, the look into the header before the voxels are loaded
(nibabel and ITK repair bad spacings silently), and the checks that stop what is not a chest CT in Hounsfield units.
"""

import gzip
import logging
import time
import zlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from math import isfinite
from os import PathLike
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import ImageReader, ITKReader, MetaTensor, NibabelReader
from monai.transforms import Transform
from monai.transforms.io.array import switch_endianness
from monai.utils import ImageMetaKey, MetaKeys, SpaceKeys, optional_import
from nibabel.filebasedimages import ImageFileError
from nibabel.openers import ImageOpener
from nibabel.spatialimages import HeaderDataError
from torch import Tensor

from ..bundle.errors import BadInput
from ..datasets.dicom_series import read_series
from ..datasets.scans import is_dicom

itk, has_itk = optional_import("itk")

AIR_HU = -1024
PADDING_HU = -1200  # scanners fill the corners outside the field of view with -2000, -3024 or -32768
LUNG_MAX_HU = -200  # every scan with air or lung in it has voxels below
SPACING_MM = (0.05, 20.0)
MIN_SLICES = 8
READING_SECONDS = "reading_seconds"  # in the meta of a scan: how long it took to read

logger = logging.getLogger(__name__)


def read_ct(path: str | Path, series: str | None = None) -> MetaTensor:
    """Read one CT as int16 Hounsfield units ``(1, X, Y, Z)`` on its own grid, with the meta of MONAI's ``LoadImage``.

    Fractions are rounded; values below -1024 (padding outside the field of view, overshoot) become -1024.

    Args:
        path: a NIfTI, MHA, MHD or NRRD file, a DICOM folder or an enhanced multi-frame DICOM file.
        series: SeriesInstanceUID to take from a DICOM folder with several series.

    Raises BadInput with what was expected, what came and what to do.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise BadInput(f"{path} does not exist: expected a CT file or a DICOM folder")
    with readable(path):
        if path.is_dir() or is_dicom(path):
            image = _load_dicom(path, series)
        elif path.name.lower().endswith((".nii", ".nii.gz")):
            check_nifti_header(path)
            check_gzip(path)
            image = load_volume(path, NibabelReader())
        else:
            check_itk_header(path)
            image = load_volume(path, ITKReader())
    with _named(path):
        return to_hu(image)


def to_hu(image: MetaTensor) -> MetaTensor:
    """A checked copy as int16 of ``(1, X, Y, Z)``; padding becomes -1024. Raises BadInput as :func:`check_ct`."""
    check_ct(image, image.affine)
    values = image.as_tensor()
    rounded = values.round() if values.is_floating_point() else values
    ct_hu = rounded.clamp(AIR_HU, torch.iinfo(torch.int16).max).to(torch.int16)
    return _with_meta_of(image, ct_hu)


def check_ct(ct_hu: np.ndarray | Tensor, affine: np.ndarray | Tensor) -> None:
    """Raise BadInput unless this is a CT in Hounsfield units, at least 8 voxels along each axis, spacing in mm.

    Args:
        ct_hu: ``(1, X, Y, Z)``, of any number type.
        affine: ``(4, 4)`` from voxel index to mm.
    """
    values = torch.as_tensor(ct_hu)
    values = values.as_tensor() if isinstance(values, MetaTensor) else values
    if values.ndim != 4 or values.shape[0] != 1:
        raise BadInput(f"the image has shape {tuple(values.shape)}: expected one channel (1, X, Y, Z) of a 3D CT")
    check_shape(values.shape[1:])
    matrix = np.asarray(affine, dtype=float)
    check_spacing(np.linalg.norm(matrix[:3, :3], axis=0))
    if abs(np.linalg.det(matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0))) < 1e-3:
        raise BadInput("the affine is singular, so axes coincide: expected three directions; convert the scan again")
    check_values(values)


def check_shape(shape: Sequence[int]) -> None:
    """Raise BadInput unless the stored shape is that of one 3D volume; further axes of length 1 are fine."""
    named = " x ".join(str(size) for size in shape)
    if 0 in shape:
        raise BadInput(f"the image is empty ({named} voxels): expected a 3D CT; export it again")
    if len(shape) < 3 or max(shape[3:], default=1) > 1:
        raise BadInput(f"the image has {len(shape)} axes ({named}): expected one 3D CT; give a single volume")
    if min(shape[:3]) < MIN_SLICES:
        raise BadInput(f"the image has {named} voxels: expected at least {MIN_SLICES} along each axis; give a volume")


def check_spacing(spacing_mm: Sequence[float] | np.ndarray) -> None:
    """Raise BadInput unless each spacing is a number that a CT in mm can have."""
    named = " x ".join(f"{size:g}" for size in spacing_mm)
    low, high = SPACING_MM
    if not all(size > 0 and isfinite(size) for size in spacing_mm):
        raise BadInput(f"the voxel spacing is {named}: expected mm above 0; convert the scan again from its DICOM")
    if min(spacing_mm) < low or max(spacing_mm) > high:
        raise BadInput(f"the voxel spacing is {named}: expected {low} to {high} mm; is the header in another unit?")


def check_values(values: Tensor) -> None:
    """Raise BadInput unless the values can be Hounsfield units of a scan with air in it."""
    lowest, highest = (float(value) for value in torch.aminmax(values))  # NaN wins over every number
    if not (isfinite(lowest) and isfinite(highest)):
        wrong = int((~torch.isfinite(values)).sum())
        raise BadInput(f"{wrong} voxels are NaN or infinite: expected Hounsfield units; convert the scan again")
    if lowest == highest:
        raise BadInput(f"every voxel is {lowest:g}: expected Hounsfield units with air near -1000; is the scan empty?")
    if lowest < PADDING_HU:
        lowest = float(torch.where(values < PADDING_HU, torch.inf, values).min())
    span = f"{lowest:g} to {highest:g}"
    if lowest >= 0 and highest <= 255:
        raise BadInput(
            f"the values {span} look like an 8-bit or normalised image: expected Hounsfield units with air near "
            "-1000; give the CT before windowing"
        )
    if lowest >= 0 and highest > 1000:
        raise BadInput(
            f"the values {span} look like a CT stored with an offset: expected Hounsfield units with air near -1000; "
            "apply the rescale intercept (often: subtract 1024)"
        )
    if lowest >= LUNG_MAX_HU:
        raise BadInput(
            f"the values {span} hold no air (nothing below {LUNG_MAX_HU}): expected a chest CT in Hounsfield units "
            "with air near -1000; give the CT before windowing"
        )


def check_nifti_header(path: Path) -> None:
    """Raise BadInput for a NIfTI header that nibabel would repair or that holds no 3D volume; loads no voxels."""
    image = nib.load(path)
    if not isinstance(image, nib.Nifti1Pair):
        raise BadInput(f"it is {type(image).__name__}: expected a NIfTI volume")
    if image.get_data_dtype().names:
        raise BadInput("it is a colour image (RGB): expected one value in HU a voxel; give the CT itself")
    check_shape(image.shape)
    with ImageOpener(str(path)) as file:  # nibabel turns a pixdim of 0 into 1 and drops the sign of a negative one
        header = image.header_class.from_fileobj(file, check=False)
    check_spacing(header["pixdim"][1:4])
    if header["sform_code"] == 0 and header["qform_code"] == 0:
        logger.warning("%s has neither sform nor qform: its axes are taken as left, anterior, superior", path)


def check_gzip(path: Path) -> None:
    """Read a ``.gz`` file to its checksum, which nibabel does not; raises EOFError, OSError or zlib.error."""
    if path.suffix.lower() == ".gz":
        with gzip.open(path) as file:
            while file.read(2**20):
                pass


def check_itk_header(path: Path) -> None:
    """Raise BadInput for an MHA, MHD or NRRD header that ITK would repair or that holds no 3D volume."""
    if not has_itk:
        raise BadInput("MHA, MHD and NRRD need the itk extra: pip install 'pulmozoo[itk]'")
    header = itk.ImageIOFactory.CreateImageIO(str(path), itk.CommonEnums.IOFileMode_ReadMode)
    if header is None:
        raise BadInput("it is no image that ITK knows: expected NIfTI, MHA, MHD, NRRD or DICOM")
    header.SetFileName(str(path))
    header.ReadImageInformation()
    axes = range(header.GetNumberOfDimensions())
    if header.GetNumberOfComponents() != 1:
        count = header.GetNumberOfComponents()
        raise BadInput(f"it is a colour or vector image ({count} values a voxel): expected one value in HU a voxel")
    check_shape([header.GetDimensions(axis) for axis in axes])
    with path.open("rb") as file:  # ITK takes a spacing that is not written as 1 mm
        text = file.read(4096).lower()
    if not any(word in text for word in (b"elementspacing", b"elementsize", b"spacings:", b"space directions:")):
        raise BadInput("the header gives no voxel spacing: expected mm for each axis; convert the scan again")
    check_spacing([header.GetSpacing(axis) for axis in axes][:3])


class LoadImageCTd(Transform):
    """Dictionary form of :func:`read_ct`: replaces a path by the scan.

    ``ct_key`` gets the int16 CT in HU, to stay on the scan's own grid; ``key`` gets a float32 copy with its own meta,
    for the preprocessing to change. A MetaTensor under ``key`` (MONAI Label and Deploy may hand over loaded images) is
    taken as is and checked. ``data["series"]``, where :func:`pulmozoo.datasets.scans.find_scans` put one, goes before
    ``series``.
    """

    def __init__(self, key: str = "image", series: str | None = None, ct_key: str = "ct_hu") -> None:
        self.key, self.series, self.ct_key = key, series, ct_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        source, started = data[self.key], time.monotonic()
        if isinstance(source, MetaTensor):
            ct_hu = to_hu(source)
        elif isinstance(source, (str, PathLike)):
            ct_hu = read_ct(Path(source), data.get("series") or self.series)
        else:
            raise BadInput(f"{self.key!r} is a {type(source).__name__}: expected a path or a MetaTensor with an affine")
        ct_hu.meta[READING_SECONDS] = time.monotonic() - started
        return {**data, self.key: _with_meta_of(ct_hu, ct_hu.as_tensor().float()), self.ct_key: ct_hu}


def _with_meta_of(image: MetaTensor, values: Tensor) -> MetaTensor:
    """Values with a copy of the meta of an image (MONAI's own deepcopy shares the affine)."""
    return MetaTensor(values, meta=deepcopy(image.meta), applied_operations=deepcopy(image.applied_operations))


def load_volume(path: Path, reader: ImageReader) -> MetaTensor:
    """What ``LoadImage`` does with one reader; it would set up, and warn about, every other reader as well."""
    array, meta = reader.get_data(reader.read(str(path)))
    return _as_loaded(path, array, switch_endianness(meta, "<"))


def _load_dicom(path: Path, series: str | None) -> MetaTensor:
    ct_hu, affine = read_series(path, series)
    meta = {
        MetaKeys.AFFINE: affine,
        MetaKeys.ORIGINAL_AFFINE: affine.copy(),
        MetaKeys.SPATIAL_SHAPE: np.asarray(ct_hu.shape),
        MetaKeys.SPACE: SpaceKeys.RAS,
    }
    return _as_loaded(path, ct_hu, meta)


def _as_loaded(path: Path, array: np.ndarray, meta: dict[Any, Any]) -> MetaTensor:
    """``(X, Y, Z)``, or that with further axes of length 1, as float32 ``(1, X, Y, Z)`` with its meta."""
    meta = {**meta, ImageMetaKey.FILENAME_OR_OBJ: str(path), MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan")}
    values = np.asarray(array, dtype=np.float32).reshape(1, *array.shape[:3])
    return MetaTensor.ensure_torch_and_prune_meta(values, meta)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Put the path in front of a sentence that does not name it."""
    try:
        yield
    except BadInput as error:
        raise BadInput(str(error) if str(path) in str(error) else f"{path}: {error}") from error


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what the readers raise for a damaged file into a sentence."""
    try:
        with _named(path):
            yield
    except BadInput:
        raise
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadInput(f"{path} is truncated or damaged ({error}): copy or download it again") from error
    except (OSError, ValueError, RuntimeError, ImageFileError, HeaderDataError) as error:
        reason = str(error).split("ITK ERROR: ")[-1].strip()
        raise BadInput(f"{path} cannot be read as a CT image ({reason}): copy or convert it again") from error
