"""Cohorts on disk: complete, resumable, split by subject."""

import json
import logging

import nibabel as nib
import numpy as np
import pytest

from pulmozoo.phantom.cohort import datalist, draw_grid, write_cohort, write_subject

SPACING_MM = (12.0, 12.0, 15.0)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    return folder, json.loads(write_cohort(folder, 10, spacing_mm=SPACING_MM).read_text())


def test_cohort_writes_what_the_datalist_names(cohort):
    folder, splits = cohort
    assert {name: len(items) for name, items in splits.items()} == {"training": 8, "validation": 1, "test": 1}
    files = [folder / path for items in splits.values() for item in items for path in item.values()]
    assert sorted(files) == sorted(folder.glob("*/*.nii.gz"))


def test_image_and_label_match(cohort):
    folder, splits = cohort
    image, label = (nib.load(folder / splits["test"][0][key]) for key in ("image", "label"))
    assert image.shape == label.shape
    np.testing.assert_array_equal(image.affine, label.affine)
    assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
    assert image.header.get_zooms() == SPACING_MM
    assert (image.get_data_dtype(), label.get_data_dtype()) == (np.int16, np.uint8)
    assert set(np.unique(label.dataobj)) == set(range(6))


def test_cohort_resumes(cohort, caplog):
    folder, splits = cohort
    kept, lost = (folder / splits["training"][i]["image"] for i in (0, 1))
    before, lost_bytes = kept.stat().st_mtime_ns, nib.load(lost).get_fdata()
    lost.unlink()
    with caplog.at_level(logging.INFO):
        write_cohort(folder, 10, spacing_mm=SPACING_MM)
    assert kept.stat().st_mtime_ns == before
    np.testing.assert_array_equal(nib.load(lost).get_fdata(), lost_bytes)
    assert caplog.messages[-1] == "10 of 10 phantoms are there, 1 of them new"


def test_processes_write_the_same_files(cohort, tmp_path):
    folder, splits = cohort
    write_cohort(tmp_path, 2, spacing_mm=SPACING_MM, workers=2)
    for item in splits["training"][:2]:
        first, second = (nib.load(where / item["image"]).get_fdata() for where in (folder, tmp_path))
        np.testing.assert_array_equal(first, second)


def test_splits_are_disjoint_and_stay_as_the_cohort_grows():
    small, large = datalist(37), datalist(400)
    images = [item["image"] for items in large.values() for item in items]
    assert len(set(images)) == 400
    assert [len(items) for items in large.values()] == [320, 40, 40]
    assert all(item in large[split] for split, items in small.items() for item in items)


def test_each_subject_has_its_own_grid():
    assert draw_grid(1, SPACING_MM)[0] != draw_grid(2, SPACING_MM)[0]
    assert draw_grid(1, None)[1] != draw_grid(2, None)[1]


def test_a_finished_subject_is_left_alone(cohort):
    assert write_subject(cohort[0], 0, SPACING_MM, 0) is False


def test_no_subjects_is_refused(tmp_path):
    with pytest.raises(ValueError, match="count and workers must be at least 1, got count 0 and workers 1"):
        write_cohort(tmp_path, 0)
