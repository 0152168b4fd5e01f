"""Write CT arrays as DICOM, for tests: the inverse of :func:`pulmozoo.datasets.dicom_series.read_series`."""

import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid
from pydicom.valuerep import DSfloat

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write_ct_series(
    folder: Path,
    ct_hu: np.ndarray,
    affine_ras: np.ndarray,
    *,
    series_uid: str | None = None,
    description: str = "chest 5 mm",
    modality: str = "CT",
    intercept: int = -1024,
    suffix: str = ".dcm",
    seed: int = 0,
) -> list[Path]:
    """Write each plane along the last axis as one CT Image Storage file; file names tell nothing of the order.

    Args:
        folder: made if needed; an earlier series in it stays.
        ct_hu: ``(x, y, z)`` integers; x runs along the rows of the slices.
        affine_ras: 4x4 from voxel index to RAS mm, its axes at right angles.
        intercept: what the reader must add to the stored (signed) values.
        suffix: of the files, may be empty.
        seed: shuffles the file names.

    Returns the files in the order of z.
    """
    folder.mkdir(parents=True, exist_ok=True)
    affine = RAS_TO_LPS @ affine_ras
    uids = {"series": series_uid or generate_uid(), "study": generate_uid(), "frame_of_reference": generate_uid()}
    numbers = list(range(ct_hu.shape[2]))
    random.Random(seed).shuffle(numbers)
    files = [folder / f"IM{uids['series'][-6:]}{number:04d}{suffix}" for number in numbers]
    for index, file in enumerate(files):
        data = _image(ct_hu[:, :, index : index + 1], CTImageStorage, uids, description, modality, intercept)
        data.InstanceNumber = index + 1
        data.ImagePositionPatient = _decimals(affine[:3, 3] + index * affine[:3, 2])
        data.ImageOrientationPatient = _orientation(affine)
        data.PixelSpacing = _pixel_spacing(affine)
        data.RescaleSlope, data.RescaleIntercept = 1, intercept
        data.save_as(file, enforce_file_format=True)
    return files


def write_enhanced_ct(file: Path, ct_hu: np.ndarray, affine_ras: np.ndarray, *, intercept: int = -1024) -> Path:
    """Write the volume as one multi-frame Enhanced CT file, its frames in reverse order of z."""
    file.parent.mkdir(parents=True, exist_ok=True)
    affine = RAS_TO_LPS @ affine_ras
    uids = {"series": generate_uid(), "study": generate_uid(), "frame_of_reference": generate_uid()}
    data = _image(ct_hu[:, :, ::-1], EnhancedCTImageStorage, uids, "enhanced", "CT", intercept)
    data.NumberOfFrames = ct_hu.shape[2]
    shared = Dataset()
    shared.PixelMeasuresSequence = [_item(PixelSpacing=_pixel_spacing(affine))]
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=_orientation(affine))]
    shared.PixelValueTransformationSequence = [_item(RescaleSlope=1, RescaleIntercept=intercept)]
    data.SharedFunctionalGroupsSequence = [shared]
    positions = [_decimals(affine[:3, 3] + index * affine[:3, 2]) for index in reversed(range(ct_hu.shape[2]))]
    data.PerFrameFunctionalGroupsSequence = [
        _item(PlanePositionSequence=[_item(ImagePositionPatient=position)]) for position in positions
    ]
    data.save_as(file, enforce_file_format=True)
    return file


def edit(file: Path, **values: object) -> None:
    """Set attributes of a written file by keyword; None deletes the attribute."""
    data = pydicom.dcmread(file)
    for keyword, value in values.items():
        if value is None:
            delattr(data, keyword)
        else:
            setattr(data, keyword, value)
    data.save_as(file)


def _image(
    planes: np.ndarray, sop_class: str, uids: Mapping[str, str], description: str, modality: str, intercept: int
) -> Dataset:
    """What classic and enhanced CT share: identity, and pixels of ``(x, y, frames)``."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = sop_class, generate_uid()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.StudyInstanceUID, data.SeriesInstanceUID = uids["study"], uids["series"]
    data.FrameOfReferenceUID = uids["frame_of_reference"]
    data.PatientID, data.PatientName, data.PatientBirthDate, data.PatientSex = "test", "Test", "", ""
    data.StudyID, data.StudyDate, data.StudyTime = "1", "20240101", "000000"
    data.AccessionNumber, data.ReferringPhysicianName, data.PositionReferenceIndicator = "", "", ""
    data.Manufacturer, data.SeriesNumber = "pulmozoo tests", 1
    data.Modality, data.SeriesDescription = modality, description
    data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.Columns, data.Rows = planes.shape[:2]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    stored = np.ascontiguousarray((planes.astype(np.int32) - intercept).astype("<i2").transpose(2, 1, 0))
    data.PixelData = stored.tobytes()
    return data


def _item(**values: object) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def _orientation(affine: np.ndarray) -> list[DSfloat]:
    directions = affine[:3, :2] / np.linalg.norm(affine[:3, :2], axis=0)
    return _decimals(directions.T.ravel())


def _pixel_spacing(affine: np.ndarray) -> list[DSfloat]:
    """Distance between rows (along y) first, as DICOM wants it."""
    return _decimals(np.linalg.norm(affine[:3, :2], axis=0)[::-1])


def _decimals(values: np.ndarray) -> list[DSfloat]:
    return [DSfloat(float(value), auto_format=True) for value in values]
