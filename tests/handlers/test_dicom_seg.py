import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from monai.data import MetaTensor
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from skimage.color import lab2rgb

from conftest import REPOSITORY, run_inference
from dicom_writer import edit, write_ct_series, write_enhanced_ct
from pulmozoo.bundle.errors import BadInput
from pulmozoo.handlers import dicom_seg, scan_writer
from pulmozoo.handlers.dicom_seg import CODES, read_source, write_label_seg, write_probability_segs
from pulmozoo.handlers.overlay import PALETTE
from pulmozoo.transforms.reading import read_ct

SHAPE = (9, 10, 11)
ANGLE = np.radians(20)
TURN = np.array([[1, 0, 0], [0, np.cos(ANGLE), -np.sin(ANGLE)], [0, np.sin(ANGLE), np.cos(ANGLE)]])
DIRECTIONS = {
    "LPS": np.diag([-1.0, -1.0, 1.0]),
    "LPI": np.diag([-1.0, -1.0, -1.0]),
    "RAS": np.eye(3),
    "sagittal": np.eye(3)[[2, 0, 1]],
    "oblique": TURN,
    "oblique LPI": TURN @ np.diag([-1.0, -1.0, -1.0]),
}
NAMES = {
    "0": "background",
    "1": "left upper lobe",
    "2": "left lower lobe",
    "3": "right upper lobe",
    "4": "right lower lobe",
    "5": "right middle lobe",
}
MADE_WITH = {"bundle": "lungs", "version": "0.1.0", "weights": {"sha256": "ab" * 32}}
SHELF = REPOSITORY.parent / "shared" / "data"


def affine_of(directions: np.ndarray) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = directions @ np.diag([0.7, 0.9, 2.5])
    affine[:3, 3] = [-31.5, 12.25, -140.5]
    return affine


AFFINE = affine_of(DIRECTIONS["LPS"])


@pytest.fixture
def labels() -> np.ndarray:
    """Six labels at random, so that a swapped, shifted or flipped axis shows; the last slice along z is empty."""
    labels = np.random.default_rng(0).integers(0, 6, SHAPE, dtype=np.uint8)
    labels[:, :, -1] = 0
    return labels


def labelled_series(folder: Path, labels: np.ndarray, affine: np.ndarray, *, enhanced: bool = False) -> Path:
    """A series whose values tell the label of each voxel."""
    path = folder / "ct.dcm" if enhanced else folder / "ct"
    (write_enhanced_ct if enhanced else write_ct_series)(path, labels.astype(np.int16) * 100 - 1000, affine)
    return path


def labels_of(scan: MetaTensor) -> MetaTensor:
    return ((scan + 1000) / 100).to(torch.uint8)


def label_seg(series: Path, labels: MetaTensor | None = None) -> Dataset:
    """The SEG of the labels of a series, or of other labels on its grid, written and read."""
    labels = labels_of(read_ct(series)) if labels is None else labels
    path = series.parent / "seg.dcm"
    write_label_seg(labels, read_source(series, labels), path, NAMES, MADE_WITH)
    return pydicom.dcmread(path)


def put_back(seg: Dataset, shape: tuple[int, ...], affine: np.ndarray, segment: int) -> np.ndarray:
    """One segment in the volume with that affine (RAS), each pixel where the frame itself says that it lies."""
    volume = np.zeros(shape, dtype=np.uint8)
    shared = seg.SharedFunctionalGroupsSequence[0]
    along_row, along_column = np.reshape(shared.PlaneOrientationSequence[0].ImageOrientationPatient, (2, 3))
    row_mm, column_mm = shared.PixelMeasuresSequence[0].PixelSpacing
    for frame, plane in frames_of(seg, segment):
        rows, columns = np.nonzero(plane)
        corner = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        lps = corner + np.outer(columns * column_mm, along_row) + np.outer(rows * row_mm, along_column)
        index = (lps * [-1, -1, 1] - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
        assert np.allclose(index, index.round(), atol=1e-3)
        volume[tuple(index.round().astype(int).T)] = plane[rows, columns]
    return volume


def frames_of(seg: Dataset, segment: int) -> list[tuple[Dataset, np.ndarray]]:
    """Header and pixels of the frames of a segment; where there is one segment only, it stands in the shared group."""
    shared = seg.SharedFunctionalGroupsSequence[0]
    frames = []
    for frame, plane in zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array, strict=True):
        owner = shared if "SegmentIdentificationSequence" in shared else frame
        if owner.SegmentIdentificationSequence[0].ReferencedSegmentNumber == segment:
            frames.append((frame, plane))
    return frames


@pytest.mark.parametrize("name", DIRECTIONS)
@pytest.mark.parametrize("enhanced", [False, True], ids=["classic", "enhanced"])
def test_frames_put_back_by_their_positions_are_the_label_map(tmp_path, labels, name, enhanced):
    affine = affine_of(DIRECTIONS[name])
    seg = label_seg(labelled_series(tmp_path, labels, affine, enhanced=enhanced))
    for segment in range(1, 6):
        assert np.array_equal(put_back(seg, SHAPE, affine, segment), labels == segment)
    assert seg.NumberOfFrames == 5 * (SHAPE[2] - 1)  # the empty slice is left out


def test_each_frame_names_the_image_that_it_lies_on(tmp_path, labels):
    series = labelled_series(tmp_path, labels, AFFINE)
    sources = {header.SOPInstanceUID: header for header in map(pydicom.dcmread, series.iterdir())}
    seg = label_seg(series)
    for frame in seg.PerFrameFunctionalGroupsSequence:
        (source,) = frame.DerivationImageSequence[0].SourceImageSequence
        position = sources[source.ReferencedSOPInstanceUID].ImagePositionPatient
        assert frame.PlanePositionSequence[0].ImagePositionPatient == position
    (referenced,) = seg.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == next(iter(sources.values())).SeriesInstanceUID
    assert {one.ReferencedSOPInstanceUID for one in referenced.ReferencedInstanceSequence} == set(sources)


def test_it_belongs_to_the_patient_and_study_of_the_series(tmp_path, labels):
    series = labelled_series(tmp_path, labels, AFFINE)
    source, seg = pydicom.dcmread(next(series.iterdir())), label_seg(series)
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "StudyDate", "StudyID", "FrameOfReferenceUID"):
        assert seg[keyword].value == source[keyword].value, keyword
    assert seg.SeriesInstanceUID != source.SeriesInstanceUID
    assert (seg.Modality, seg.SegmentationType, seg.SegmentsOverlap) == ("SEG", "BINARY", "NO")
    assert (seg.ManufacturerModelName, seg.SoftwareVersions, seg.DeviceSerialNumber) == ("lungs", "0.1.0", "ab" * 32)
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert [float(mm) for mm in measures.PixelSpacing] == pytest.approx([0.9, 0.7])
    assert (measures.SliceThickness, measures.SpacingBetweenSlices) == (2.5, 2.5)


def test_segments_are_coded_as_lobes(tmp_path, labels):
    seg = label_seg(labelled_series(tmp_path, labels, AFFINE))
    coded = []
    for segment in seg.SegmentSequence:
        structure = segment.SegmentedPropertyTypeCodeSequence[0]
        side = structure.get("SegmentedPropertyTypeModifierCodeSequence", [])
        coded.append((segment.SegmentNumber, structure.CodeValue, *(code.CodeValue for code in side)))
        assert segment.SegmentLabel == NAMES[str(segment.SegmentNumber)]
        assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "91723000"
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("lungs", "0.1.0")
        colour = np.array(segment.RecommendedDisplayCIELabValue) / 65535 * [100, 255, 255] - [0, 128, 128]
        assert np.abs(lab2rgb(colour) * 255 - PALETTE[segment.SegmentNumber - 1]).max() < 1
    upper, lower, left, right = "45653009", "90572001", "7771000", "24028007"
    assert coded == [(1, upper, left), (2, lower, left), (3, upper, right), (4, lower, right), (5, "72481006")]


def test_codes_are_those_of_the_dicom_context_groups():
    lobes = [getattr(codes.cid6170, name) for name in codes.cid6170.dir()]
    sides = [codes.cid244.Left, codes.cid244.Right]
    findings = [codes.SCT.Pneumothorax, codes.SCT.Lung]
    categories = [codes.cid7150.AnatomicalStructure, codes.cid7150.MorphologicallyAbnormalStructure]
    known = [(code.value, code.scheme_designator, code.meaning) for code in lobes + sides + findings + categories]
    used = {code for coded in CODES.values() for code in coded}
    assert set(known) < used
    beyond = {value: scheme for value, scheme, _ in used - set(known)}  # findings that pydicom's dictionary lacks
    private = {"micronodules", "consolidation", "reticulation", "honeycombing"}
    assert beyond == {
        **dict.fromkeys(("68328006", "31898008", "1217294009"), "SCT"),  # two kinds of emphysema, ground glass
        **dict.fromkeys(private, "99PULMOZOO"),
    }
    code = codes.cid7162.ArtificialIntelligence
    assert (code.value, code.scheme_designator, code.meaning) == dicom_seg.ARTIFICIAL_INTELLIGENCE


@pytest.mark.parametrize("missing", [1, 3, 5])
def test_a_lobe_that_is_absent_has_a_segment_without_frames(tmp_path, labels, missing):
    labels[labels == missing] = 0
    seg = label_seg(labelled_series(tmp_path, labels, AFFINE))
    assert [segment.SegmentNumber for segment in seg.SegmentSequence] == [1, 2, 3, 4, 5]
    for segment in range(1, 6):
        assert bool(frames_of(seg, segment)) == (segment != missing)
        assert np.array_equal(put_back(seg, SHAPE, AFFINE, segment), labels == segment)


def test_an_anonymised_series_and_rounded_headers_are_fine(tmp_path, labels):
    series = labelled_series(tmp_path, labels, AFFINE)
    for number, file in enumerate(series.iterdir()):
        edit(file, PatientName=None, PatientBirthDate=None, PatientSex=None, StudyDate=None, AccessionNumber=None)
        edit(file, ImageOrientationPatient=[1, number * 1e-5, 0, 0, 1, 0])
        position = pydicom.dcmread(file).ImagePositionPatient
        edit(file, ImagePositionPatient=[position[0], position[1], round(float(position[2]) + 0.04 * number % 0.09, 2)])
    seg = label_seg(series)
    assert (str(seg.PatientName), seg.PatientID) == ("", "test")
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert float(measures.SpacingBetweenSlices) == pytest.approx(2.5, abs=0.01)
    corners = {tuple(frame.PlanePositionSequence[0].ImagePositionPatient) for frame, _ in frames_of(seg, 1)}
    assert corners < {tuple(pydicom.dcmread(file).ImagePositionPatient) for file in series.iterdir()}


def test_the_name_of_the_patient_is_not_said_aloud(tmp_path, labels, recwarn, caplog):
    label_seg(labelled_series(tmp_path, labels, AFFINE))  # of a patient whose name has one part, which highdicom minds
    assert [str(warning.message) for warning in recwarn if "Test" in str(warning.message)] == []
    assert "Test" not in caplog.text


def test_a_series_without_a_frame_of_reference_says_so(tmp_path, labels):
    series = labelled_series(tmp_path, labels, AFFINE)
    for file in series.iterdir():
        edit(file, FrameOfReferenceUID=None)
    with pytest.raises(BadInput, match=r"ct has headers that no DICOM SEG can be made from \(.*--dicom_seg false"):
        label_seg(series)


def test_labels_on_another_grid_are_refused(tmp_path, labels):
    series = labelled_series(tmp_path, labels, AFFINE)
    scan = labels_of(read_ct(series))
    with pytest.raises(ValueError, match=r"\(9, 10, 11\) voxels, got \(9, 10, 10\)"):
        read_source(series, scan[..., 1:])
    shifted = MetaTensor(scan.as_tensor(), affine=scan.affine + torch.tensor([0, 0, 0, 0.5]).diag())
    with pytest.raises(ValueError, match="or another affine"):
        read_source(series, shifted)


@pytest.mark.parametrize("name", ["LPI", "oblique"])
def test_probabilities_put_back_are_those_that_went_in(tmp_path, name):
    affine = affine_of(DIRECTIONS[name])
    volumes = np.random.default_rng(1).integers(0, 256, (5, *SHAPE), dtype=np.uint8)
    index = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    series = tmp_path / "ct"
    write_ct_series(series, index.astype(np.int16) - 1024, affine)
    scan = read_ct(series)
    places = (scan.as_tensor()[0].long() + 1024).numpy()  # of the scan's voxels in the array that was written
    probabilities = MetaTensor(torch.from_numpy(volumes.reshape(5, -1)[:, places]), affine=scan.affine)
    paths = [tmp_path / f"{number}.dcm" for number in range(1, 6)]
    write_probability_segs(probabilities, read_source(series, probabilities), paths, NAMES, MADE_WITH)
    segs = [pydicom.dcmread(path) for path in paths]
    for number, (seg, volume) in enumerate(zip(segs, volumes, strict=True), start=1):
        assert np.array_equal(put_back(seg, SHAPE, affine, 1), volume)
        (segment,) = seg.SegmentSequence
        assert segment.SegmentLabel == NAMES[str(number)]
        assert (seg.SegmentationType, seg.SegmentationFractionalType) == ("FRACTIONAL", "PROBABILITY")
        assert (seg.MaximumFractionalValue, seg.InstanceNumber) == (255, number)
    assert len({seg.SeriesInstanceUID for seg in segs}) == 1
    assert len({seg.SOPInstanceUID for seg in segs}) == 5


@pytest.fixture
def dicom_chest(chest_ct, tmp_path) -> Path:
    scan = nib.load(chest_ct)
    write_ct_series(tmp_path / "chest", np.asarray(scan.dataobj), scan.affine)
    return tmp_path / "chest"


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


PROBABILITIES = {f"chest_{name.replace(' ', '_')}_probability.dcm" for name in NAMES.values() if name != "background"}


def test_a_run_on_dicom_writes_the_label_map_as_seg_too(small_bundle, dicom_chest, tmp_path):
    assert run_inference(small_bundle, dicom_chest, tmp_path / "OUT").code == 0
    folder = tmp_path / "OUT" / "chest"
    assert files_in(folder) == {"chest_seg.nii.gz", "chest_seg.dcm", "overlay.png", "results.json"}
    results = json.loads((folder / "results.json").read_text())
    assert results["files"]["dicom_seg"] == "chest_seg.dcm"
    image, seg = nib.load(folder / "chest_seg.nii.gz"), pydicom.dcmread(folder / "chest_seg.dcm")
    labels = np.asarray(image.dataobj)
    assert len(np.unique(labels)) > 2
    for segment in range(1, 6):
        assert np.array_equal(put_back(seg, labels.shape, image.affine, segment), labels == segment)
    assert seg.DeviceSerialNumber == results["weights"]["sha256"]


def test_a_run_on_dicom_writes_probabilities_when_asked(small_bundle, dicom_chest, tmp_path):
    def run(**options: Any) -> None:
        assert run_inference(small_bundle, dicom_chest, tmp_path / "OUT", **options).code == 0

    folder = tmp_path / "OUT" / "chest"
    run(dicom_seg="false")
    assert files_in(folder) == {"chest_seg.nii.gz", "overlay.png", "results.json"}
    run(probability_maps="true")  # not done yet, though the rest is
    assert files_in(folder) == {
        *("chest_seg.nii.gz", "chest_seg.dcm", "overlay.png", "results.json"),
        *PROBABILITIES,
    }
    image = nib.load(folder / "chest_seg.nii.gz")
    labels = np.asarray(image.dataobj)
    for label in (1, 5):  # the two that the small network knows; what is likelier than not is the label
        seg = pydicom.dcmread(folder / f"chest_{NAMES[str(label)].replace(' ', '_')}_probability.dcm")
        likely = put_back(seg, labels.shape, image.affine, 1) > 128
        assert likely.any()
        assert (labels[likely] == label).all()
        assert np.count_nonzero(likely) > 0.9 * np.count_nonzero(labels == label)
    before = (folder / "results.json").stat().st_mtime_ns
    run(probability_maps="true")
    assert (folder / "results.json").stat().st_mtime_ns == before


def test_probabilities_of_what_is_no_dicom_are_refused(small_bundle, chest_ct, tmp_path, monkeypatch):
    monkeypatch.setattr("pulmozoo.inferers.two_stage.TwoStageInferer.__call__", pytest.fail)  # long before the network
    outcome = run_inference(small_bundle, chest_ct, tmp_path / "OUT", probability_maps=True)
    assert outcome.code == 1
    assert outcome.said == (
        f"pulmozoo: chest: {chest_ct} is no DICOM: probability maps need DICOM, leave out --probability_maps\n"
    )


def test_without_highdicom_dicom_stops_before_the_network(small_bundle, dicom_chest, chest_ct, tmp_path, monkeypatch):
    monkeypatch.setattr(dicom_seg, "has_highdicom", False)
    with monkeypatch.context() as patch:
        patch.setattr("pulmozoo.inferers.two_stage.TwoStageInferer.__call__", pytest.fail)
        outcome = run_inference(small_bundle, dicom_chest, tmp_path / "OUT")
    assert outcome.code == 1
    assert outcome.said == (
        "pulmozoo: chest: writing DICOM SEG needs the dicom extra: "
        "pip install 'pulmozoo[dicom]', or --dicom_seg false\n"
    )
    assert files_in(tmp_path / "OUT") == {"results.csv"}
    assert run_inference(small_bundle, dicom_chest, tmp_path / "without", dicom_seg=False).code == 0
    assert run_inference(small_bundle, chest_ct, tmp_path / "nifti").code == 0


def test_a_seg_that_fails_leaves_nothing(small_bundle, dicom_chest, tmp_path, monkeypatch):
    def half_written(labels: MetaTensor, series: dicom_seg.Series, path: Path, *rest: Any) -> None:
        path.write_bytes(b"half")
        raise OSError("no more")

    monkeypatch.setattr(scan_writer, "write_label_seg", half_written)
    assert run_inference(small_bundle, dicom_chest, tmp_path / "OUT").code == 1
    assert files_in(tmp_path / "OUT") == {"results.csv"}


@pytest.mark.skipif(not SHELF.is_dir(), reason=f"the shelf with real scans is not there ({SHELF})")
def test_a_series_of_real_size(tmp_path):
    image = nib.load(SHELF / "pyradiomics-lung1" / "ct.nii.gz")
    ct_hu = np.asarray(image.dataobj).astype(np.int16)
    write_ct_series(tmp_path / "ct", ct_hu, image.affine)
    scan = read_ct(tmp_path / "ct")
    seg = label_seg(tmp_path / "ct", (scan < -500).to(torch.uint8) + 3 * (scan > 0).to(torch.uint8))
    assert np.array_equal(put_back(seg, ct_hu.shape, image.affine, 1), ct_hu < -500)
    assert np.array_equal(put_back(seg, ct_hu.shape, image.affine, 3), ct_hu > 0)
