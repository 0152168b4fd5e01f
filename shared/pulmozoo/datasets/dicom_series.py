"""Read one CT series from DICOM files: the slices in order, in Hounsfield units, with their place in the patient.

Classic CT (one slice a file) and enhanced CT (many frames in a file) become the same list of slices, so that the same
checks hold for both. Only headers are read until all checks have passed.

Source of the geometry: DICOM PS3.3 C.7.6.2.1.1, equation C.7.6.2.1-1 (voxel to patient, axes L, P, S).
"""

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from monai.utils import optional_import

from ..bundle.errors import BadInput
from .scans import dicom_files

pydicom, has_pydicom = optional_import("pydicom")

Header = Any  # pydicom.Dataset: the package is optional, so its types are not at hand

CT_SOP_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.2": "CT Image Storage",
    "1.2.840.10008.5.1.4.1.1.2.1": "Enhanced CT Image Storage",
    "1.2.840.10008.5.1.4.1.1.2.2": "Legacy Converted Enhanced CT Image Storage",
}
JPEG_END = b"\xff\xd9"
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Positions are often rounded to 0.1 mm: a slice may lie this share of the spacing off the even grid.
UNEVEN_SHARE = 0.2


class Slice(NamedTuple):
    """One plane of the series: ``frame`` of ``file``, its place in mm (LPS) and its way to Hounsfield units."""

    file: Path
    frame: int
    size: tuple[int, int]
    position: np.ndarray
    orientation: tuple[float, ...]
    spacing_mm: tuple[float, float]
    slope: float
    intercept: float


def read_series(folder_or_file: Path, series_uid: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Read a CT series as ``(ct_hu, affine)``.

    ``ct_hu`` is float32 with axes (column x, row y, slice z), ``affine`` is 4x4 from voxel index to RAS mm. Slices run
    along the normal of the image plane, so that the axes are right-handed whatever the file order.

    Args:
        folder_or_file: a folder with the files directly in it, or one enhanced multi-frame file.
        series_uid: SeriesInstanceUID of the series to take; needed if the folder holds several CT series.

    Raises BadInput if there is not exactly one CT series, or if it is not a complete, evenly spaced, untilted volume.
    """
    headers = read_headers(folder_or_file, series_uid)
    slices = [one for file, header in headers.items() for one in slices_of(file, header)]
    slices, affine = stack(slices, folder_or_file)
    return read_pixels(slices), affine


def read_headers(folder_or_file: Path, series_uid: str | None = None) -> dict[Path, Header]:
    """The headers of one CT series, sorted by file; arguments and BadInput as :func:`read_series`."""
    if not has_pydicom:
        raise BadInput("DICOM needs the dicom extra: pip install 'pulmozoo[dicom]'")
    files = dicom_files(folder_or_file) if folder_or_file.is_dir() else [folder_or_file]
    return choose_series(
        {file: read_dicom(file, stop_before_pixels=True) for file in files}, folder_or_file, series_uid
    )


def choose_series(headers: dict[Path, Header], source: Path, series_uid: str | None = None) -> dict[Path, Header]:
    """Those headers that belong to the one CT series; localizers, reports and other modalities are left out."""
    images = {file: header for file, header in headers.items() if _is_slice(header)}
    if series_uid is not None and images:
        present = _listed(images)
        images = {file: header for file, header in images.items() if header.get("SeriesInstanceUID") == series_uid}
        if not images:
            raise BadInput(f"{source} has no series {series_uid}; it has {present}")
    found = images or headers
    images = {file: header for file, header in images.items() if header.get("Modality") == "CT"}
    if not images:
        modalities = Counter(str(header.get("Modality", "unknown")) for header in found.values())
        counts = ", ".join(f"{name} ({count} files)" for name, count in modalities.items())
        raise BadInput(f"{source} holds no CT slices: expected modality CT, found {counts or 'no DICOM files'}")
    if len({header.get("SeriesInstanceUID") for header in images.values()}) > 1:
        raise BadInput(f"{source} holds several CT series, pick one with --series UID: {_listed(images)}")
    return images


def slices_of(file: Path, header: Header) -> list[Slice]:
    """The planes of one file, from its top level (classic CT) or its functional groups (enhanced CT)."""
    samples = int(header.get("SamplesPerPixel", 1))
    if samples != 1:
        raise BadInput(f"{file} is a colour image ({samples} samples a pixel): expected one value in HU a pixel")
    if "SharedFunctionalGroupsSequence" not in header:
        return [_slice(file, 0, header, [header])]
    shared = header.SharedFunctionalGroupsSequence[0]
    frames = header.get("PerFrameFunctionalGroupsSequence", [])
    return [_slice(file, index, header, _macros(frame) + _macros(shared)) for index, frame in enumerate(frames)]


def stack(slices: list[Slice], source: Path) -> tuple[list[Slice], np.ndarray]:
    """Sort the planes along their normal and give the 4x4 affine (voxel to RAS mm) of the volume they make.

    Raises BadInput unless they share size, spacing and orientation and lie evenly, each once, straight over another.
    """
    if len(slices) < 2:
        raise BadInput(f"{source} has {len(slices)} CT slice: expected a volume; give the folder of the whole series")
    first = slices[0]
    for name in ("size", "spacing_mm", "orientation"):
        values = np.array([getattr(one, name) for one in slices])
        if not np.allclose(values, values[0], atol=1e-3):
            raise BadInput(f"{source} mixes slices of different {name.removesuffix('_mm')}: expected one CT volume")
    along_row, along_column = np.reshape(first.orientation, (2, 3))
    normal = np.cross(along_row, along_column)
    slices = sorted(slices, key=lambda one: float(one.position @ normal))
    step_mm = check_positions(np.stack([one.position for one in slices]), normal, min(first.spacing_mm), source)
    affine = np.eye(4)
    # PixelSpacing gives the distance between rows first: that is the step along a column.
    affine[:3, 0] = along_row * first.spacing_mm[1]
    affine[:3, 1] = along_column * first.spacing_mm[0]
    affine[:3, 2] = normal * step_mm
    affine[:3, 3] = slices[0].position
    return slices, LPS_TO_RAS @ affine


def check_positions(positions: np.ndarray, normal: np.ndarray, pixel_mm: float, source: Path) -> float:
    """The slice spacing in mm of ``(N, 3)`` sorted positions; raises BadInput for what is no regular volume."""
    distances, z = positions @ normal, positions[:, 2]
    steps = np.diff(distances)
    same = np.flatnonzero(steps < 1e-3)
    if len(same):
        raise BadInput(
            f"{source} has {len(same)} slices at a position that another one has, first at z = {z[same[0]]:.1f} mm: "
            "expected each position once; keep one acquisition or one copy in the folder"
        )
    sideways = positions - positions[0] - np.outer(distances - distances[0], normal)
    shift = float(np.linalg.norm(sideways, axis=1).max())
    if shift > pixel_mm:
        tilt = np.degrees(np.arctan2(shift, distances[-1] - distances[0]))
        raise BadInput(
            f"{source} has slices that shift sideways by {shift:.1f} mm ({tilt:.1f} degrees, as with a tilted gantry): "
            "this is not supported; resample the scan to straight slices first"
        )
    usual = float(np.median(steps))
    gaps = np.flatnonzero(steps > 1.5 * usual)
    if len(gaps):
        missing = sum(round(step / usual) - 1 for step in steps[gaps])
        where = ", ".join(f"{z[gap]:.1f} and {z[gap + 1]:.1f} mm" for gap in gaps[:5])
        more = f" and {len(gaps) - 5} more gaps" if len(gaps) > 5 else ""
        raise BadInput(
            f"{source} has {missing} missing slices, between z = {where}{more}: "
            f"expected one every {usual:.2f} mm; copy the series again"
        )
    even = np.linspace(distances[0], distances[-1], len(distances))
    if np.abs(distances - even).max() > UNEVEN_SHARE * usual:
        raise BadInput(
            f"{source} has unevenly spaced slices ({steps.min():.2f} to {steps.max():.2f} mm): "
            "expected one spacing; resample the scan first"
        )
    return float(even[1] - even[0])


def read_pixels(slices: list[Slice]) -> np.ndarray:
    """Hounsfield units of the planes in the given order: float32 ``(columns, rows, slices)``."""
    rows, columns = slices[0].size
    planes = np.empty((len(slices), rows, columns), dtype=np.float32)
    by_file: dict[Path, list[int]] = {}
    for index, one in enumerate(slices):
        by_file.setdefault(one.file, []).append(index)
    for file, indices in by_file.items():
        pixels = decode_pixels(file).reshape(-1, rows, columns)
        for index in indices:
            one = slices[index]
            planes[index] = pixels[one.frame] * np.float32(one.slope) + np.float32(one.intercept)
    return planes.transpose(2, 1, 0)


def read_dicom(file: Path, stop_before_pixels: bool = False) -> Header:
    """One DICOM file, or its header alone; raises BadInput if it is none."""
    try:
        return pydicom.dcmread(file, stop_before_pixels=stop_before_pixels)
    except (pydicom.errors.InvalidDicomError, EOFError, ValueError, AttributeError) as error:
        raise BadInput(f"{file} cannot be read as DICOM ({error}): copy or export it again") from error


def _is_slice(header: Header) -> bool:
    """Whether a file holds planes of a volume: not a scout view, a report, a dose page or an index."""
    if "LOCALIZER" in (header.get("ImageType") or []):
        return False
    return header.get("SOPClassUID") in CT_SOP_CLASSES or "ImagePositionPatient" in header


def _listed(headers: dict[Path, Header]) -> str:
    """Each series as ``UID (N slices, description)``."""
    slices: Counter[str] = Counter()
    descriptions: dict[str, str] = {}
    for header in headers.values():
        uid = str(header.get("SeriesInstanceUID", "without UID"))
        slices[uid] += int(header.get("NumberOfFrames") or 1)
        descriptions[uid] = f"{header.get('Modality', '')} {header.get('SeriesDescription', '')}".strip()
    return "; ".join(f"{uid} ({slices[uid]} slices, {descriptions[uid]})" for uid in sorted(slices))


def _macros(group: Header) -> list[Header]:
    """The items of a functional group, one for each macro that it holds."""
    return [element.value[0] for element in group if element.VR == "SQ" and len(element.value)]


def _slice(file: Path, frame: int, header: Header, places: list[Header]) -> Slice:
    def numbers(keyword: str, count: int) -> tuple[float, ...]:
        value = next((place[keyword].value for place in places if keyword in place), None)
        if value is None or len(value) != count:
            raise BadInput(f"{file} lacks {keyword}, so the place of its voxels is unknown: export the series again")
        return tuple(float(number) for number in value)

    def number(keyword: str, default: float) -> float:
        value = next((place[keyword].value for place in places if keyword in place), None)
        return default if value is None else float(value)

    row_mm, column_mm = numbers("PixelSpacing", 2)
    if not min(row_mm, column_mm) > 0:
        raise BadInput(f"{file} has PixelSpacing {row_mm} x {column_mm}: expected mm above 0; export the series again")
    return Slice(
        file=file,
        frame=frame,
        size=(int(header.Rows), int(header.Columns)),
        position=np.array(numbers("ImagePositionPatient", 3)),
        orientation=numbers("ImageOrientationPatient", 6),
        spacing_mm=(row_mm, column_mm),
        slope=number("RescaleSlope", 1.0),
        intercept=number("RescaleIntercept", 0.0),
    )


def decode_pixels(file: Path) -> np.ndarray:
    """Stored values of a file, ``(rows, columns)`` or ``(frames, rows, columns)``."""
    data = read_dicom(file)
    if "PixelData" not in data:
        raise BadInput(f"{file} has no pixel data: expected an image; is it a report, or was the file cut short?")
    syntax = data.file_meta.TransferSyntaxUID
    # The decoder fills up what is missing.
    if syntax in pydicom.uid.JPEGTransferSyntaxes and not data.PixelData.rstrip(b"\0").endswith(JPEG_END):
        raise BadInput(f"{file} has truncated pixel data (its JPEG stream has no end): copy it again")
    try:
        return np.asarray(data.pixel_array)
    except Exception as error:  # each decoder raises its own kinds
        if syntax.is_compressed:
            raise BadInput(
                f"{file} has pixels compressed as {syntax.name} that cannot be decoded ({error}): "
                "pip install 'pulmozoo[dicom]', or store it uncompressed"
            ) from error
        raise BadInput(f"{file} has truncated or damaged pixel data ({error}): copy it again") from error
