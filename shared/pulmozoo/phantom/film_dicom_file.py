"""Write a synthetic chest film as DICOM: what :func:`pulmozoo.datasets.film_dicom.read_dicom_film` reads.

Source of the attributes: DICOM PS3.3 A.26 (digital X-ray image, for presentation).
"""

from hashlib import sha256
from pathlib import Path

import numpy as np
from monai.utils import optional_import

pydicom, _ = optional_import("pydicom")

DIGITAL_XRAY_FOR_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.1"
BITS = 12
EMPTY = (
    "AccessionNumber",
    "PatientBirthDate",
    "PatientSex",
    "ReferringPhysicianName",
    "StudyDate",
    "StudyID",
    "StudyTime",
)


def write_film(path: Path, film: np.ndarray, patient: str, view: str, pixel_mm: float, photometric: str) -> None:
    """Write one frontal film; UIDs are made from patient and pixels, so the same film is the same instance.

    Args:
        path: the file, replaced if it is there.
        film: ``(H, W)`` from 0 to 1, as stored (MONOCHROME1: dense tissue dark).
        patient: name and id.
        view: PA or AP.
        pixel_mm: side of a pixel.
        photometric: MONOCHROME1 or MONOCHROME2.
    """
    stored = np.round(film * (2**BITS - 1)).astype("<u2")
    digest = sha256(stored.tobytes()).hexdigest()
    image = pydicom.Dataset()
    for keyword in EMPTY:
        setattr(image, keyword, None)
    image.StudyInstanceUID, image.SeriesInstanceUID, image.SOPInstanceUID = (
        pydicom.uid.generate_uid(entropy_srcs=[patient, digest, name]) for name in ("study", "series", "instance")
    )
    image.SOPClassUID, image.Modality, image.BodyPartExamined = DIGITAL_XRAY_FOR_PRESENTATION, "DX", "CHEST"
    image.PatientName = image.PatientID = patient
    image.ViewPosition, image.PatientOrientation = view, ["L", "F"]
    image.ImageType, image.Manufacturer = ["DERIVED", "PRIMARY"], "pulmozoo"
    image.PresentationIntentType = "FOR PRESENTATION"
    image.SeriesNumber, image.InstanceNumber = 1, 1
    image.Rows, image.Columns = stored.shape
    image.PixelSpacing = image.ImagerPixelSpacing = [f"{pixel_mm:.5g}", f"{pixel_mm:.5g}"]
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, photometric
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, BITS, BITS - 1, 0
    image.WindowCenter, image.WindowWidth = 2 ** (BITS - 1), 2**BITS
    image.PixelData = stored.tobytes()
    image.file_meta = pydicom.dataset.FileMetaDataset()
    image.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.save_as(path, enforce_file_format=True)
