"""Cohorts of films on disk: complete, resumable, split by patient."""

import functools
import json
import logging

import numpy as np
import pydicom
import pytest
from PIL import Image

from pulmozoo.bundle.errors import BadInput
from pulmozoo.datasets.film_dicom import read_dicom_film
from pulmozoo.phantom import film_cohort
from pulmozoo.phantom.film_cohort import split_of, write_films

SIZE, COUNT = 64, 6


@pytest.fixture(scope="module", autouse=True)
def each_patient_is_drawn_once():
    """Drawing a patient takes longer than anything else here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(film_cohort, "draw_film_subject", functools.cache(film_cohort.draw_film_subject))
        yield


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    return folder, json.loads(write_films(folder, COUNT, size=SIZE).read_text())


def grey(path):
    with Image.open(path) as image:
        assert image.mode == "L"
        return np.asarray(image)


def test_files_are_as_the_datalist_says(cohort):
    folder, splits = cohort
    items = splits["training"]
    assert (len(items), splits["validation"], splits["test"]) == (COUNT, [], [])
    for item in items:
        image, label = (grey(folder / item[key]) for key in ("image", "label"))
        assert image.shape == label.shape == (SIZE, SIZE)
        assert set(np.unique(label)) <= {0, 255}
        assert item["has_pneumothorax"] == int(label.any())
        assert item["side"] == ("none" if not label.any() else item["side"])
    assert {(item["patient"], item["fold"]) for item in items} == {("phantom_000_00000", 0), ("phantom_000_00001", 1)}
    assert {path.name for path in folder.iterdir()} == {"images", "labels", "facts", "datalist.json"}


def test_every_second_film_is_drawn_with_a_pneumothorax(cohort):
    kinds = [item["kind"] for item in cohort[1]["training"]]
    assert kinds[1::2] == ["none"] * (COUNT // 2)
    assert "none" not in kinds[::2]


def test_cohort_resumes_and_grows(cohort, caplog):
    folder, splits = cohort
    item = splits["training"][1]
    kept = (folder / splits["training"][0]["image"]).stat().st_mtime_ns
    before = grey(folder / item["image"])
    (folder / "facts" / "film_00001.json").unlink()
    (folder / item["image"]).unlink()
    with caplog.at_level(logging.INFO):
        write_films(folder, COUNT, size=SIZE)
    assert caplog.messages[-1] == f"{COUNT} of {COUNT} films are there, 1 of them new"
    assert (folder / splits["training"][0]["image"]).stat().st_mtime_ns == kept
    np.testing.assert_array_equal(grey(folder / item["image"]), before)


def test_patients_are_split_by_tens():
    splits = [split_of(patient) for patient in range(40)]
    assert [splits.count(name) for name in ("training", "validation", "test")] == [32, 4, 4]


def test_dicom_films_read_as_bright_as_the_png(cohort, tmp_path):
    folder, splits = cohort
    dicom = json.loads(write_films(tmp_path, 4, size=SIZE, output_ext=".dcm").read_text())["training"]
    stored = set()
    for png, item in zip(splits["training"], dicom, strict=False):
        film = read_dicom_film(tmp_path / item["image"])
        stored.add(pydicom.dcmread(tmp_path / item["image"]).PhotometricInterpretation)
        np.testing.assert_allclose(film.brightness, grey(folder / png["image"]) / 255, atol=0.006)
        assert film.spacing_mm == pytest.approx((item["pixel_mm"], item["pixel_mm"]), rel=1e-3)
        assert film.view == item["view"]
    assert stored == {"MONOCHROME1", "MONOCHROME2"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"count": 0}, "count must be a whole number of at least 1, got 0"),
        ({"count": 1, "workers": 0}, "workers must be a whole number of at least 1, got 0"),
        ({"count": 1, "seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"count": 1, "size": 5000}, "size must be a whole number from 32 to 4096, got 5000"),
        ({"count": 1, "output_ext": ".jpg"}, r"output_ext must be one of .png, .dcm, got '.jpg'"),
    ],
)
def test_bad_arguments_are_named_before_anything_is_written(tmp_path, arguments, sentence):
    with pytest.raises(BadInput, match=sentence):
        write_films(tmp_path / "new", **arguments)
    assert not (tmp_path / "new").exists()
