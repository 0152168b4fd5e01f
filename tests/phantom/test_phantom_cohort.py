"""Cohorts on disk: complete, resumable, split by subject, each file on the grid of its scan."""

import json
import logging

import nibabel as nib
import numpy as np
import pytest
import torch

from pulmozoo.bundle.errors import BadInput
from pulmozoo.phantom import cohort as cohort_module
from pulmozoo.phantom.cohort import datalist, draw_exam, draw_grid, write_cohort, write_subject
from pulmozoo.phantom.scan_grid import ScanGrid
from pulmozoo.transforms.reading import read_ct

SPACING_MM = (12.0, 12.0, 15.0)
LANDMARK_RAS_MM = (-41.0, 27.0, 33.0)  # to the left, in front, above
KEYS = ("image", "label", "airways", "vessels")


def landmark_chest(seed, shape, spacing_mm, diseases, scanner):
    """In place of a chest, which takes seconds to draw: a ball at a known place of the patient."""
    scan = ScanGrid(shape, spacing_mm, scanner)
    x, y, z = scan.painted().coordinates()
    ball = (x + LANDMARK_RAS_MM[0]) ** 2 + (y + LANDMARK_RAS_MM[1]) ** 2 + (z - LANDMARK_RAS_MM[2]) ** 2 < 45**2
    ct_hu = (scan.image(ball.float()) * 1500 - 1000 + seed % 10).to(torch.int16)
    ct_hu.masked_fill_(~scan.inside(), scanner.padding_hu)
    label = scan.labels(ball.to(torch.uint8))
    return {"ct_hu": ct_hu, "lobes": label, "airways": label, "vessels": 2 * label, "affine": scan.affine()}


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(cohort_module, "thorax", landmark_chest)


@pytest.fixture
def coarse(monkeypatch):
    monkeypatch.setattr(cohort_module, "draw_grid", lambda seed, spacing_mm: ((36, 36, 22), (8.0, 8.0, 9.0)))


def listed(datalist_path):
    splits = json.loads(datalist_path.read_text())
    return [
        {key: datalist_path.parent / file for key, file in item.items()} for items in splits.values() for item in items
    ]


def middle_of(mask, affine):
    """World position in mm of the middle of a mask."""
    return (affine @ [*np.argwhere(mask).mean(axis=0), 1])[:3]


def test_another_process_writes_the_same_real_chest(tmp_path):
    one, two = (
        listed(write_cohort(tmp_path / name, 1, spacing_mm=SPACING_MM, workers=workers))
        for name, workers in (("one", 1), ("two", 2))
    )
    for first, second in zip(one, two, strict=True):
        images = [nib.load(first[key]) for key in KEYS]
        for image, other in zip(images, (nib.load(second[key]) for key in KEYS), strict=True):
            np.testing.assert_array_equal(image.dataobj, other.dataobj)
            np.testing.assert_array_equal(image.affine, images[0].affine)
        ct, label = images[:2]
        assert nib.aff2axcodes(ct.affine) == ("L", "P", "S")
        assert ct.header.get_zooms() == SPACING_MM
        assert (ct.get_data_dtype(), label.get_data_dtype()) == (np.int16, np.uint8)
        assert set(np.unique(label.dataobj)) == set(range(6))


def test_cohort_writes_what_the_datalist_names(quick, tmp_path):
    path = write_cohort(tmp_path, 10, spacing_mm=SPACING_MM)
    assert {name: len(items) for name, items in json.loads(path.read_text()).items()} == {
        "training": 8,
        "validation": 1,
        "test": 1,
    }
    files = [file for item in listed(path) for file in item.values()]
    assert sorted(files) == sorted(tmp_path.glob("*/*"))


def test_cohort_resumes(quick, tmp_path, caplog):
    path = write_cohort(tmp_path, 3, spacing_mm=SPACING_MM)
    kept, lost = (item["image"] for item in listed(path)[:2])
    before, lost_voxels = kept.stat().st_mtime_ns, np.asarray(nib.load(lost).dataobj)
    lost.unlink()
    with caplog.at_level(logging.INFO):
        write_cohort(tmp_path, 3, spacing_mm=SPACING_MM)
    assert kept.stat().st_mtime_ns == before
    np.testing.assert_array_equal(nib.load(lost).dataobj, lost_voxels)
    assert caplog.messages[-1] == "3 of 3 phantoms are there, 1 of them new"
    assert write_subject(tmp_path, 0, SPACING_MM, ".nii.gz", 0) is False


@pytest.mark.parametrize("output_ext", [".nii.gz", "dicom"])
def test_image_and_labels_lie_at_the_landmark_in_every_orientation(quick, coarse, tmp_path, output_ext):
    axes, turned = set(), 0
    for item in listed(write_cohort(tmp_path, 25, output_ext=output_ext)):
        image, label = read_ct(item["image"]), nib.load(item["label"])
        np.testing.assert_allclose(image.affine.numpy(), label.affine, atol=1e-4)
        ball = np.asarray(label.dataobj) > 0
        assert np.linalg.norm(middle_of(ball, label.affine) - LANDMARK_RAS_MM) < 4
        assert np.linalg.norm(middle_of(image[0].numpy() > -250, image.affine.numpy()) - LANDMARK_RAS_MM) < 4
        axes.add(nib.aff2axcodes(label.affine))
        turned += not np.allclose(np.abs(label.affine[:3, :3]).max(axis=0), label.header.get_zooms())
    assert len(axes) > 2
    assert turned


def test_dicom_holds_the_voxels_of_the_nifti(quick, tmp_path):
    """Of a subject that is stored as usual; rare axes differ, because DICOM has only right-handed ones."""
    nifti, dicom = (
        listed(write_cohort(tmp_path / ext, 2, 7, SPACING_MM, output_ext=ext)) for ext in (".nii.gz", "dicom")
    )
    for one, other in zip(nifti, dicom, strict=True):
        first, second = read_ct(one["image"]), read_ct(other["image"])
        assert torch.equal(first.as_tensor(), second.as_tensor())
        torch.testing.assert_close(first.affine, second.affine, atol=1e-5, rtol=0)


def test_an_interrupted_series_is_written_anew(quick, tmp_path):
    (tmp_path / "images" / "unfinished_phantom_00000").mkdir(parents=True)
    (tmp_path / "images" / "unfinished_phantom_00000" / "9999.dcm").write_bytes(b"half")
    item = listed(write_cohort(tmp_path, 1, spacing_mm=SPACING_MM, output_ext="dicom"))[0]
    assert read_ct(item["image"]).shape[1:] == nib.load(item["label"]).shape
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["phantom_00000"]


def test_splits_are_disjoint_and_stay_as_the_cohort_grows():
    small, large = datalist(37), datalist(400)
    images = [item["image"] for items in large.values() for item in items]
    assert len(set(images)) == 400
    assert [len(items) for items in large.values()] == [320, 40, 40]
    assert all(item in large[split] for split, items in small.items() for item in items)
    assert datalist(1, "dicom")["training"][0]["image"] == "images/phantom_00000"


def test_each_subject_has_its_own_grid():
    assert draw_grid(1, SPACING_MM)[0] != draw_grid(2, SPACING_MM)[0]
    assert draw_grid(1, None)[1] != draw_grid(2, None)[1]


def test_a_given_spacing_keeps_scans_straight_and_whole():
    exams = [draw_exam(seed, (3.0, 3.0, 3.0)) for seed in range(30)]
    assert {exam.axes for exam in exams} == {"LPS"}
    assert all(exam.scanner.field_mm is None and not any(exam.scanner.turn_degrees) for exam in exams)
    assert all(not any(exam.scanner.centre_mm) for exam in exams)


def test_scans_of_their_own_spacing_vary_in_everything():
    exams = [draw_exam(seed, None) for seed in range(60)]
    assert {exam.scanner.padding_hu for exam in exams if exam.scanner.field_mm} == {-1024, -2048, -3024}
    assert min(exam.spacing_mm[2] for exam in exams) < 1.5
    assert max(exam.spacing_mm[2] for exam in exams) > 6
    assert any(any(exam.scanner.turn_degrees) for exam in exams)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"count": 0}, "count and workers must be at least 1, got count 0 and workers 1"),
        ({"count": 1, "workers": 0}, "count and workers must be at least 1, got count 1 and workers 0"),
        ({"count": 1, "seed": -3}, "seed must be an integer of at least 0, got -3"),
        ({"count": 1, "spacing_mm": (3.0, 3.0)}, r"spacing_mm must be three positive numbers .* got \(3.0, 3.0\)"),
        ({"count": 1, "spacing_mm": 3.0}, r"spacing_mm must be three positive numbers .* got 3.0"),
        ({"count": 1, "output_ext": ".mha"}, "output_ext must be .nii.gz or dicom, got '.mha'"),
    ],
)
def test_a_wrong_argument_is_named_before_anything_is_written(tmp_path, wrong, sentence):
    with pytest.raises(BadInput, match=sentence):
        write_cohort(tmp_path / "new", **wrong)
    assert not (tmp_path / "new").exists()
