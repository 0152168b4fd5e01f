from pathlib import Path

import pytest

from film_writer import chest_film, write_dicom_film, write_picture
from pulmozoo.bundle.errors import BadInput
from pulmozoo.datasets.films import find_films

DICOM = bytes(128) + b"DICM"


def touch(path: Path, content: bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def ids(path: Path) -> list[str]:
    return [film["scan"] for film in find_films(path)]


@pytest.mark.parametrize("name", ["a.b.png", "a.b.PNG", "a.b.jpg", "a.b.jpeg", "a.b.dcm"])
def test_one_file_is_one_film_named_without_its_suffix(tmp_path, name):
    path = touch(tmp_path / name)
    assert find_films(str(path)) == [{"image": str(path), "scan": "a.b"}]


def test_a_dicom_file_needs_no_suffix(tmp_path):
    assert ids(touch(tmp_path / "1.2.840.1", DICOM)) == ["1.2.840.1"]


def test_every_film_at_any_depth_is_found(tmp_path):
    for name in ("b.png", "p1/day 1/film.jpg", "p2/1.2.3/1.dcm", "p2/1.2.3/2.dcm"):
        touch(tmp_path / name)
    for name in ("p2/IM1", "DICOMDIR"):
        touch(tmp_path / name, DICOM)
    for name in ("notes.txt", ".hidden.png", ".cache/x.png", "p1/labels.csv", "p1/ct.nii.gz"):
        touch(tmp_path / name)
    assert ids(tmp_path) == ["b", "p1__day 1__film", "p2__1.2.3__1", "p2__1.2.3__2", "p2__IM1"]


def test_ids_that_collide_keep_the_suffix_of_the_later_one_or_are_counted(tmp_path):
    for name in ("a.jpg", "a.png", "b/c", "b__c"):
        touch(tmp_path / name, DICOM)
    assert ids(tmp_path) == ["a", "a.png", "b__c", "b__c_2"]


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"nowhere does not exist: expected a chest film"):
        find_films(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["", "notes.txt"], ids=["folder", "file"])
def test_a_path_without_films_is_named(tmp_path, name):
    touch(tmp_path / "notes.txt", b"no film")
    with pytest.raises(BadInput, match="holds no film: expected a chest film"):
        find_films(tmp_path / name)


def test_real_files_are_films(tmp_path):
    write_picture(tmp_path / "a.png", chest_film())
    write_dicom_film(tmp_path / "b", chest_film())
    assert ids(tmp_path) == ["a", "b"]
