"""Write one CT volume as a DICOM series: what :func:`pulmozoo.datasets.dicom_series.read_series` reads.

Source of the attributes: DICOM PS3.3 A.3 (CT image); of the geometry: C.7.6.2.1.1.
"""

from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from monai.utils import optional_import

from ..bundle.errors import BadInput
from .dicom_series import LPS_TO_RAS

pydicom, has_pydicom = optional_import("pydicom")

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
INTERCEPT_HU = -1024
AIR_HU = -1024  # lower values pad what was not reconstructed
EMPTY = (
    "AccessionNumber",
    "KVP",
    "PatientBirthDate",
    "PatientSex",
    "PositionReferenceIndicator",
    "ReferringPhysicianName",
    "StudyDate",
    "StudyID",
    "StudyTime",
)


def needs_pydicom() -> None:
    """Raise BadInput unless DICOM can be written."""
    if not has_pydicom:
        raise BadInput("DICOM needs the dicom extra: pip install 'pulmozoo[dicom]'")


def write_series(
    folder: Path, ct_hu: np.ndarray, affine: np.ndarray, patient: str, slice_mm: float, description: str
) -> None:
    """Write each plane along the last axis as a file of CT Image Storage.

    UIDs are made from patient and voxels, so the same scan is the same series.

    Args:
        folder: made if missing; files of the same names are replaced.
        ct_hu: ``(X, Y, Z)`` int16, X along the rows of the planes.
        affine: ``(4, 4)`` from voxel index to RAS mm, with axes at right angles and right-handed (a reader orders
            planes so).
        patient: name and id.
        slice_mm: thickness of a slice.
        description: of the series.
    """
    needs_pydicom()
    if np.linalg.det(affine[:3, :3]) < 0:
        raise BadInput("the voxel axes are left-handed: expected right-handed ones for DICOM; flip one axis")
    folder.mkdir(parents=True, exist_ok=True)
    to_lps = LPS_TO_RAS @ affine
    spacing_mm = np.linalg.norm(to_lps[:3, :3], axis=0)
    digest = sha256(np.ascontiguousarray(ct_hu).tobytes()).hexdigest()
    for index in range(ct_hu.shape[2]):
        image = _image(ct_hu[:, :, index], [patient, digest], index)
        image.PatientName = image.PatientID = patient
        image.SeriesDescription, image.SliceThickness = description, _decimal(slice_mm)
        image.ImagePositionPatient = [_decimal(value) for value in to_lps[:3, 3] + index * to_lps[:3, 2]]
        image.ImageOrientationPatient = [_decimal(v) for v in (to_lps[:3, :2] / spacing_mm[:2]).T.ravel()]
        # The distance between rows comes first: that is the step along a column.
        image.PixelSpacing = [_decimal(spacing_mm[1]), _decimal(spacing_mm[0])]
        image.save_as(folder / f"{index + 1:04d}.dcm", enforce_file_format=True)


def _image(plane: np.ndarray, identity: list[str], index: int) -> Any:
    """One plane ``(X, Y)`` with everything but its place."""
    image = pydicom.Dataset()
    for keyword in EMPTY:
        setattr(image, keyword, None)
    image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID, image.SOPInstanceUID = (
        pydicom.uid.generate_uid(entropy_srcs=[*identity, name]) for name in ("study", "series", "frame", str(index))
    )
    image.SOPClassUID, image.Modality, image.PatientPosition = CT_IMAGE_STORAGE, "CT", "HFS"
    image.ImageType, image.Manufacturer = ["DERIVED", "PRIMARY", "AXIAL"], "pulmozoo"
    image.SeriesNumber, image.AcquisitionNumber, image.InstanceNumber = 1, 1, index + 1
    image.Columns, image.Rows = plane.shape
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 1
    image.RescaleSlope, image.RescaleIntercept, image.RescaleType = 1, INTERCEPT_HU, "HU"
    if plane.min() < AIR_HU:
        image.PixelPaddingValue = int(plane.min()) - INTERCEPT_HU
    image.PixelData = np.ascontiguousarray((plane.astype(np.int32) - INTERCEPT_HU).T).astype("<i2").tobytes()
    image.file_meta = pydicom.dataset.FileMetaDataset()
    image.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    return image


def _decimal(value: float) -> Any:
    return pydicom.valuerep.DSfloat(float(value), auto_format=True)
