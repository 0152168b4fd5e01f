"""Label maps and probabilities as DICOM Segmentation objects (SEG), for systems that take no NIfTI.

Source: DICOM PS3.3 A.51, Segmentation IOD. A lobe is coded as PS3.16 has it: by CID 6170 (lobe of lung) and, where
there is one on each side, by CID 244 (laterality). A film is a series of one frame.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from monai.data import MetaTensor
from monai.utils import optional_import
from skimage.color import rgb2lab

from ..bundle.errors import BadInput
from ..datasets.dicom_series import Header, read_headers, slices_of, stack
from ..datasets.scans import is_dicom
from .overlay import PALETTE

highdicom, has_highdicom = optional_import("highdicom")
pydicom, _ = optional_import("pydicom")

Code = tuple[str, str, str]  # value, scheme, meaning
Segment = Any  # highdicom.seg.SegmentDescription: the package is optional, so its types are not at hand

ANATOMICAL_STRUCTURE: Code = ("91723000", "SCT", "Anatomical Structure")
ABNORMAL_STRUCTURE: Code = ("49755003", "SCT", "Morphologically Abnormal Structure")
ARTIFICIAL_INTELLIGENCE: Code = ("123110", "DCM", "Artificial Intelligence")
UPPER_LOBE: Code = ("45653009", "SCT", "Upper lobe of lung")
MIDDLE_LOBE: Code = ("72481006", "SCT", "Middle lobe of right lung")
LOWER_LOBE: Code = ("90572001", "SCT", "Lower lobe of lung")
LEFT: Code = ("7771000", "SCT", "Left")
RIGHT: Code = ("24028007", "SCT", "Right")

PNEUMOTHORAX: Code = ("36118008", "SCT", "Pneumothorax")
CENTRILOBULAR: Code = ("68328006", "SCT", "Centriacinar emphysema")
PARASEPTAL: Code = ("31898008", "SCT", "Paraseptal emphysema")
LUNG: Code = ("39607008", "SCT", "Lung")
GROUND_GLASS: Code = ("1217294009", "SCT", "Ground glass opacity")
# DICOM has no codes for the other tissue patterns; a scheme whose name begins with 99 is private.
MICRONODULES: Code = ("micronodules", "99PULMOZOO", "Micronodules of lung")
CONSOLIDATION: Code = ("consolidation", "99PULMOZOO", "Consolidation of lung")
RETICULATION: Code = ("reticulation", "99PULMOZOO", "Reticulation of lung")
HONEYCOMBING: Code = ("honeycombing", "99PULMOZOO", "Honeycombing of lung")

# By label name: category, structure or finding and, where there is one on each side, the side.
CODES: Mapping[str, tuple[Code, ...]] = {
    "left upper lobe": (ANATOMICAL_STRUCTURE, UPPER_LOBE, LEFT),
    "left lower lobe": (ANATOMICAL_STRUCTURE, LOWER_LOBE, LEFT),
    "right upper lobe": (ANATOMICAL_STRUCTURE, UPPER_LOBE, RIGHT),
    "right lower lobe": (ANATOMICAL_STRUCTURE, LOWER_LOBE, RIGHT),
    "right middle lobe": (ANATOMICAL_STRUCTURE, MIDDLE_LOBE),
    "pneumothorax": (ABNORMAL_STRUCTURE, PNEUMOTHORAX),
    "centrilobular emphysema": (ABNORMAL_STRUCTURE, CENTRILOBULAR),
    "paraseptal emphysema": (ABNORMAL_STRUCTURE, PARASEPTAL),
    "healthy": (ANATOMICAL_STRUCTURE, LUNG),
    "ground glass": (ABNORMAL_STRUCTURE, GROUND_GLASS),
    "micronodules": (ABNORMAL_STRUCTURE, MICRONODULES),
    "consolidation": (ABNORMAL_STRUCTURE, CONSOLIDATION),
    "reticulation": (ABNORMAL_STRUCTURE, RETICULATION),
    "honeycombing": (ABNORMAL_STRUCTURE, HONEYCOMBING),
}
# A SEG must have these, if only empty; an anonymised series may have lost some.
MAY_BE_EMPTY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
)
SERIES_NUMBERS = {"BINARY": 901, "FRACTIONAL": 902}  # beyond those of a scanner
CERTAIN = 255  # stands for a probability of 1


class Series(NamedTuple):
    """The series that a scan was read from: its headers, and for each frame in them the index of its slice."""

    source: Path
    headers: list[Header]
    slices: list[int]


def came_as_dicom(image: Path) -> bool:
    """Whether a scan is a DICOM folder or file; False too where nothing is."""
    return image.is_dir() or (image.is_file() and is_dicom(image))


def check_highdicom() -> None:
    """Raise BadInput unless SEG can be written."""
    if not has_highdicom:
        raise BadInput("writing DICOM SEG needs the dicom extra: pip install 'pulmozoo[dicom]', or --dicom_seg false")


def read_source(source: Path, scan: MetaTensor, series_uid: str | None = None) -> Series:
    """The headers of the series that a scan ``(C, X, Y, Z)`` was read from, without pixels.

    Raises BadInput as :func:`pulmozoo.datasets.dicom_series.read_series`, ValueError if the scan is on another grid.
    """
    headers = read_headers(source, series_uid)
    slices, affine = stack([one for file, header in headers.items() for one in slices_of(file, header)], source)
    rows, columns = slices[0].size
    expected, got = (columns, rows, len(slices)), tuple(scan.shape[1:])
    if got != expected or not np.allclose(scan.affine.cpu().numpy(), affine, atol=1e-3):
        raise ValueError(f"a DICOM SEG needs the grid of its series, {expected} voxels, got {got} or another affine")
    complete(list(headers.values()), float(np.linalg.norm(affine[:3, 2])))
    index = {(one.file, one.frame): number for number, one in enumerate(slices)}
    return Series(source, list(headers.values()), [index[frame] for frame in sorted(index)])


def read_film(source: Path) -> Series:
    """The header of a film, without pixels, as a series of one frame."""
    header = pydicom.dcmread(source, stop_before_pixels=True)
    fill_in(header)
    return Series(source, [header], [0])


def complete(headers: Sequence[Header], step_mm: float) -> None:
    """Fill in, in place, what highdicom wants of its source images and what a series may lack.

    Args:
        headers: of one series.
        step_mm: distance of the slices.
    """
    first = headers[0]
    fill_in(first)
    if "SharedFunctionalGroupsSequence" in first:
        return
    first.SliceThickness = first.get("SliceThickness") or step_mm
    first.SpacingBetweenSlices = step_mm
    for header in headers:  # the last digit may differ from slice to slice
        header.ImageOrientationPatient = first.ImageOrientationPatient


def fill_in(header: Header) -> None:
    """Empty values, in place, for what a SEG must have and an anonymised image may have lost."""
    for keyword in MAY_BE_EMPTY:
        if keyword not in header:
            setattr(header, keyword, "")


def write_label_seg(
    labels: MetaTensor, series: Series, path: Path, label_names: Mapping[str, str], made_with: Mapping[str, Any]
) -> None:
    """Write a label map as one binary SEG with a segment a label; a label that is nowhere has a segment and no frame.

    Args:
        labels: ``(1, X, Y, Z)`` integers, 0 is background.
        series: where the scan came from, see :func:`read_source`.
        path: file that is written.
        label_names: ``{"1": "left upper lobe", ...}``, names of ``CODES``; ``"0"`` is background.
        made_with: ``bundle``, ``version`` and ``weights`` with their ``sha256``.

    Raises BadInput if the headers of the series do not allow a SEG.
    """
    segments = [describe(number, name, number, made_with) for number, name in segment_names(label_names).items()]
    planes = frames(labels.as_tensor()[0].cpu().numpy().astype(np.uint8), series)
    segmentation(planes, series, segments, "BINARY", made_with, highdicom.UID()).save_as(path)


def write_probability_segs(
    probabilities: MetaTensor,
    series: Series,
    paths: Sequence[Path],
    label_names: Mapping[str, str],
    made_with: Mapping[str, Any],
) -> None:
    """Write the probability of each label as a fractional SEG; together they are one series.

    One at a time, since highdicom takes probabilities as float only: together they would fill the memory.

    Args:
        probabilities: ``(labels, X, Y, Z)`` uint8, 255 stands for 1.
        paths: a file a label.
        series, label_names, made_with: as for :func:`write_label_seg`.
    """
    series_uid = highdicom.UID()
    names = segment_names(label_names)
    for (number, name), voxels, path in zip(names.items(), probabilities.as_tensor().numpy(), paths, strict=True):
        planes = frames(voxels, series) / np.float32(CERTAIN)
        segments = [describe(1, name, number, made_with)]
        segmentation(planes, series, segments, "FRACTIONAL", made_with, series_uid, instance=number).save_as(path)


def segment_names(label_names: Mapping[str, str]) -> dict[int, str]:
    """The names by label, in their order, without background."""
    return {number: label_names[str(number)] for number in sorted(map(int, label_names)) if number}


def frames(voxels: np.ndarray, series: Series) -> np.ndarray:
    """``(X, Y, Z)`` as ``(frames, rows, columns)`` in the order of the frames of the source images."""
    return voxels.transpose(2, 1, 0)[series.slices]


def describe(segment: int, name: str, label: int, made_with: Mapping[str, Any]) -> Segment:
    """A segment's name, codes, origin and colour; the colour is that of the label in the overlay."""
    category, structure, *side = (highdicom.sr.CodedConcept(*code) for code in CODES[name])
    if side:
        structure.SegmentedPropertyTypeModifierCodeSequence = side
    return highdicom.seg.SegmentDescription(
        segment_number=segment,
        segment_label=name,
        segmented_property_category=category,
        segmented_property_type=structure,
        algorithm_type="AUTOMATIC",
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=made_with["bundle"],
            family=highdicom.sr.CodedConcept(*ARTIFICIAL_INTELLIGENCE),
            version=made_with["version"],
        ),
        display_color=highdicom.color.CIELabColor(*rgb2lab(np.array(PALETTE[label - 1]) / 255)),
    )


def segmentation(
    planes: np.ndarray,
    series: Series,
    segments: Sequence[Segment],
    kind: str,
    made_with: Mapping[str, Any],
    series_uid: str,
    instance: int = 1,
) -> Any:
    """The SEG of ``(frames, rows, columns)``, as :func:`frames` orders them; empty frames are left out.

    Patient, study, frame of reference and the place of each frame are those of the source images.

    Args:
        planes: labels if ``kind`` is BINARY, float probabilities of the one segment if it is FRACTIONAL.
        series_uid: of the new series; ``instance`` is the number in it.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".* person name")  # it would show the name of the patient
            return highdicom.seg.Segmentation(
                source_images=series.headers,
                pixel_array=planes,
                segmentation_type=kind,
                segment_descriptions=segments,
                series_instance_uid=series_uid,
                series_number=SERIES_NUMBERS[kind],
                series_description=f"{made_with['bundle']} {made_with['version']}",
                sop_instance_uid=highdicom.UID(),
                instance_number=instance,
                manufacturer="pulmozoo",
                manufacturer_model_name=made_with["bundle"],
                software_versions=made_with["version"],
                device_serial_number=made_with["weights"]["sha256"],
                content_description="Research only; not for clinical use",
            )
    except (AttributeError, TypeError, ValueError) as error:
        raise BadInput(
            f"{series.source} has headers that no DICOM SEG can be made from ({error}): "
            "correct them, or set --dicom_seg false"
        ) from error
