"""Read one chest film from a DICOM file, as bright as it is displayed.

Only the header is read until it has passed the checks.

Source of the way from stored values to brightness: DICOM PS3.3 C.11.1 (modality LUT and rescale), C.11.2 (VOI LUT and
window), C.7.6.3.1.2 (MONOCHROME1 shows low values bright).
"""

from pathlib import Path
from typing import Any

import numpy as np
from monai.utils import optional_import
from scipy.special import expit

from ..bundle.errors import BadInput
from .dicom_series import Header, decode_pixels, read_dicom
from .stored_film import UNKNOWN_SPACING, StoredFilm, check_film_size, stretched

pydicom, has_pydicom = optional_import("pydicom")
pixels, _ = optional_import("pydicom.pixels")

FILM_MODALITIES = ("CR", "DX", "RG", "OT")  # computed, digital, conventional radiography; other, as scanners write
VIEWS = {"PA": "PA", "AP": "AP", "LL": "LATERAL", "RL": "LATERAL", "LAT": "LATERAL", "LATERAL": "LATERAL"}
CHEST_PARTS = ("CHEST", "THORAX", "LUNG")
IMAGE_TAGS = ("Rows", "Columns", "BitsStored", "PixelRepresentation", "PhotometricInterpretation")
SPACING_TAGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
# From the cassette for newborns, 18 x 24 cm, to more than the longest chest plate. Films whose pixels were binned keep
# the spacing of the detector surprisingly often, and then seem to be smaller than any plate.
LONG_SIDE_CM = (22.0, 60.0)


def read_dicom_film(path: Path) -> StoredFilm:
    """Read a DICOM radiograph of one frame, MONOCHROME1 or 2, of 8 to 16 bits, compressed or not.

    Brightness follows the file's VOI LUT, else its first window; without either, 8 bits are shown in full and more are
    stretched between percentiles.

    Raises BadInput for what is no such film, before its pixels are decoded where the header tells.
    """
    if not has_pydicom:
        raise BadInput("DICOM needs the dicom extra: pip install 'pulmozoo[dicom]'")
    header = read_dicom(path, stop_before_pixels=True)
    check_header(header)
    shown = _brightness(header, decode_pixels(path))
    spacing_mm, warnings = film_spacing(header)
    body_part = str(header.get("BodyPartExamined") or "")
    if body_part and not any(part in body_part.upper() for part in CHEST_PARTS):
        warnings.append(f"the file says that it shows {body_part}, not the chest")
    mirrored = str((header.get("PatientOrientation") or [""])[0]).startswith("R")
    if mirrored:
        warnings.append("the film is stored mirrored: the patient's left is on the left of it")
    return StoredFilm(
        brightness=1 - shown if header.PhotometricInterpretation == "MONOCHROME1" else shown,
        spacing_mm=spacing_mm,
        view=VIEWS.get(str(header.get("ViewPosition") or "").upper(), "unknown"),
        modality=str(header.get("Modality") or "unknown"),
        mirrored=mirrored,
        warnings=tuple(warnings),
    )


def check_header(header: Header) -> None:
    """Raise BadInput unless the header is that of one grey radiograph."""
    modality = str(header.get("Modality") or "OT")
    if modality not in FILM_MODALITIES:
        raise BadInput(f"it is of modality {modality}: expected a chest film ({', '.join(FILM_MODALITIES)}); give one")
    missing = [tag for tag in IMAGE_TAGS if header.get(tag) in (None, "")]
    if missing:
        raise BadInput(f"its header lacks {', '.join(missing)}: expected a chest film; is it a report, or was it cut?")
    frames = int(header.get("NumberOfFrames") or 1)
    if frames > 1:
        raise BadInput(f"it has {frames} frames: expected one film; export the frame that is wanted")
    kind = str(header.PhotometricInterpretation)
    if kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise BadInput(f"it is a colour image ({kind}): expected MONOCHROME1 or MONOCHROME2; give the film itself")
    if not 8 <= int(header.BitsStored) <= 16:
        raise BadInput(f"it stores {header.BitsStored} bits a pixel: expected 8 to 16; export it again")
    check_film_size(int(header.Columns), int(header.Rows))


def film_spacing(header: Header) -> tuple[tuple[float, float] | None, list[str]]:
    """Step from column to column and from row to row in mm, or None if unknown, with the sentence that says why.

    Taken at the patient where the film is calibrated, else at the detector: with the tube at 180 cm, what lies 15 cm
    before the detector then looks 9 percent longer than it is. A spacing that makes the film smaller or larger than any
    plate is not believed.
    """
    value: Any = next((header[tag].value for tag in SPACING_TAGS if header.get(tag)), None)
    if value is None or len(value) != 2 or not min(value) > 0:
        return None, [UNKNOWN_SPACING]
    row_mm, column_mm = (float(step) for step in value)  # DICOM gives the distance between rows first
    width_cm, height_cm = int(header.Columns) * column_mm / 10, int(header.Rows) * row_mm / 10
    low, high = LONG_SIDE_CM
    if not low <= max(width_cm, height_cm) <= high:
        sentence = (
            f"the stored pixel spacing of {column_mm:g} x {row_mm:g} mm is not believed, since it makes the film "
            f"{width_cm:.1f} x {height_cm:.1f} cm, so areas are given in pixels only"
        )
        return None, [sentence]
    return (column_mm, row_mm), []


def _brightness(header: Header, stored: np.ndarray) -> np.ndarray:
    """Stored values ``(rows, columns)`` as 0..1 float32, from the darkest to the brightest of MONOCHROME2."""
    values = pixels.apply_modality_lut(stored, header)
    if header.get("VOILUTSequence"):
        bits = int(header.VOILUTSequence[0].LUTDescriptor[2])
        looked_up = pixels.apply_voi(np.rint(values).astype(np.int32), header)
        return looked_up.astype(np.float32) / np.float32(2**bits - 1)
    center, width = (_first(header.get(tag)) for tag in ("WindowCenter", "WindowWidth"))
    if center is not None and width is not None and width > 0:
        function = str(header.get("VOILUTFunction") or "LINEAR")
        return _windowed(values.astype(np.float32), center, width, function)
    if int(header.BitsStored) == 8:
        lowest = -128 if int(header.PixelRepresentation) else 0
        return (stored.astype(np.float32) - lowest) / 255
    return stretched(values)


def _first(value: Any) -> float | None:
    """The first of one or several numbers."""
    if value is None or value == "":
        return None
    return float(value[0]) if isinstance(value, pydicom.multival.MultiValue) else float(value)


def _windowed(values: np.ndarray, center: float, width: float, function: str) -> np.ndarray:
    """Brightness 0..1 by the formulas of DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    if function == "SIGMOID":
        return expit(4 * (values - center) / width)
    if function == "LINEAR" and width > 1:
        center, width = center - 0.5, width - 1
    return np.clip((values - center) / width + 0.5, 0, 1)
