"""Annotated scans of the HUG database and of folders, as folds to train from."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest

from dicom_writer import write_ct_series
from pulmozoo.bundle.errors import BadInput
from pulmozoo.datasets.hug import annotation_of, read_contours
from pulmozoo.datasets.prepare import prepare_data

SHAPE, SPACING_MM = (24, 20, 9), (0.5, 0.8, 12.0)
AFFINE = np.diag([-SPACING_MM[0], -SPACING_MM[1], SPACING_MM[2], 1.0])

# In mm: columns 4 to 10 and rows 5 to 10 of slice 3, a triangle on slice 8; fibrosis is none of the six.
CONTOURS = """SpacingX: 0.5
SpacingY: 0.8
SpacingZ: 12
label: ground_glass
slice_number: 3
nb_points_on_contour: 4
2.0 4.0
5.0 4.0
5.0 8.0
2.0 8.0
label: fibrosis
slice_number: 4
nb_points_on_contour: 3
1 1
6 1
6 6
label: reticulation
slice_number: 8
nb_points_on_contour: 3
1 1.6
1 4.8
4 4.8
"""


def patient(folder, contours=CONTOURS):
    """A folder as in the database: slice 1 is the lowest here, and the names of the files tell the number."""
    ct = np.random.default_rng(0).integers(-1000, 100, SHAPE).astype(np.int16)
    for number, file in enumerate(write_ct_series(folder, ct, AFFINE), start=1):
        file.rename(folder / f"CT-7-{number:04d}.dcm")
    (folder / "CT-7.txt").write_text(contours)
    return folder


def test_contours_are_in_pixels(tmp_path):
    (tmp_path / "a.txt").write_text(CONTOURS)
    first, second, third = read_contours(tmp_path / "a.txt")
    assert (first.label, first.slice_number) == ("ground_glass", 3)
    assert first.points.tolist() == [[4, 5], [10, 5], [10, 10], [4, 10]]
    assert (second.label, third.slice_number) == ("fibrosis", 8)


def test_contours_are_filled_on_their_slices(tmp_path):
    image = annotation_of(patient(tmp_path / "7"))
    label = np.asarray(image.dataobj)
    assert label.shape == SHAPE
    assert np.allclose(np.linalg.norm(image.affine[:3, :3], axis=0), SPACING_MM)
    expected = np.zeros(SHAPE[:2])
    expected[4:11, 5:11] = 2
    assert np.array_equal(label[:, :, 2], expected)
    assert set(np.unique(label[:, :, 7])) == {0, 5}
    assert not np.delete(label, [2, 7], axis=2).any()


@pytest.mark.parametrize(
    ("contours", "reason"),
    [
        (CONTOURS.replace("slice_number: 8", "slice_number: 80"), "outlines slice 80, which is not in"),
        (CONTOURS.rsplit("\n", 2)[0], "is no list of contours as the HUG database has it"),
        (CONTOURS.replace("SpacingX: 0.5\n", ""), "is no list of contours as the HUG database has it"),
    ],
)
def test_contours_that_do_not_fit_are_refused(tmp_path, contours, reason):
    with pytest.raises(BadInput, match=reason):
        annotation_of(patient(tmp_path / "7", contours))


def test_the_hug_database_becomes_folds(tmp_path):
    for number in range(1, 7):
        patient(tmp_path / "HUG" / str(number))
    patient(tmp_path / "HUG" / "8", "SpacingX: 1\nSpacingY: 1\n")
    (tmp_path / "HUG" / "2" / "CT-7.txt").unlink()
    path = prepare_data("ild", tmp_path / "HUG", tmp_path / "DATA", "hug")
    datalist = json.loads(path.read_text())
    entries = [entry for entries in datalist.values() for entry in entries]
    assert sorted(entry["fold"] for entry in entries) == [0, 1, 2, 3, 4]
    assert {split: len(entries) for split, entries in datalist.items()} == {"training": 3, "validation": 1, "test": 1}
    label = nib.load(entries[0]["label"])
    assert np.bincount(np.asarray(label.dataobj).ravel(), minlength=7)[[2, 5]].all()
    rows = list(csv.DictReader((tmp_path / "DATA" / "folds.csv").open()))
    assert {row["source"] for row in rows} == {"hug"}
    assert {row["n_slices"] for row in rows} == {"2"}
    left_out = {row["image"][-1]: row["reason"] for row in csv.DictReader((tmp_path / "DATA" / "left_out.csv").open())}
    assert left_out["2"].endswith("holds 0 text files: expected one with the contours")
    assert left_out["8"] == "none of the six patterns is annotated"


def test_folders_become_folds(tmp_path):
    for part in ("images", "labels", "lungs"):
        (tmp_path / "IN" / part).mkdir(parents=True)
    values = np.zeros(SHAPE, dtype=np.uint8)
    for index in range(6):
        values[index, 3, 4] = index + 1
        name = f"scan{index}.nii.gz"
        nib.save(nib.Nifti1Image(values.astype(np.int16), AFFINE), tmp_path / "IN" / "images" / name)
        if index < 5:
            nib.save(nib.Nifti1Image(values, AFFINE), tmp_path / "IN" / "labels" / name)
    nib.save(nib.Nifti1Image(values, AFFINE), tmp_path / "IN" / "lungs" / "scan1.nii.gz")
    path = prepare_data("ild", tmp_path / "IN", tmp_path / "DATA", "folders")
    entries = [entry for entries in json.loads(path.read_text()).values() for entry in entries]
    assert len(entries) == 5
    assert next(entry["image"] for entry in entries if "lung_mask" in entry).endswith("images/scan1.nii.gz")
    assert "there is no" in (tmp_path / "DATA" / "left_out.csv").read_text()
    assert sorted(file.name for file in (tmp_path / "DATA").iterdir()) == ["datalist.json", "folds.csv", "left_out.csv"]


def test_too_few_scans_are_a_sentence(tmp_path):
    patient(tmp_path / "HUG" / "1")
    with pytest.raises(BadInput, match="5 folds need at least 5 annotated scans, got 1"):
        prepare_data("ild", tmp_path / "HUG", tmp_path / "DATA", "hug")
