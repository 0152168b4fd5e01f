from pathlib import Path

import pytest

from pulmozoo.bundle.errors import BadInput
from pulmozoo.datasets.scans import find_scans


def touch(path: Path, content: bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


DICOM = bytes(128) + b"DICM"


def ids(path: Path) -> list[str]:
    return [scan["scan"] for scan in find_scans(path)]


@pytest.mark.parametrize("name", ["a.b.nii", "a.b.nii.gz", "a.b.NII.GZ", "a.b.mha", "a.b.mhd", "a.b.nrrd", "a.b.dcm"])
def test_one_file_is_one_scan_named_without_its_suffix(tmp_path, name):
    path = touch(tmp_path / name)
    assert find_scans(str(path)) == [{"image": str(path), "scan": "a.b"}]


def test_a_dicom_file_needs_no_suffix(tmp_path):
    assert ids(touch(tmp_path / "IM.1", DICOM)) == ["IM.1"]


def test_a_folder_with_dicom_files_is_one_scan_named_as_the_folder(tmp_path):
    for name in ("1.2.840.1", "IM2", "DICOMDIR"):
        touch(tmp_path / "1.2.840" / name, DICOM)
    assert find_scans(tmp_path / "1.2.840") == [{"image": str(tmp_path / "1.2.840"), "scan": "1.2.840"}]


def test_a_folder_of_scans_is_searched_at_any_depth(tmp_path):
    touch(tmp_path / "DICOMDIR", DICOM)
    touch(tmp_path / "p2" / "ct.1" / "IM1", DICOM)
    touch(tmp_path / "p2" / "ct.1" / "IM2", DICOM)
    touch(tmp_path / "p2" / "ct.2" / "IM1.dcm", DICOM)
    touch(tmp_path / "p1" / "day 1" / "ct.nii.gz")
    touch(tmp_path / "b.nrrd")
    for ignored in ("notes.txt", ".hidden.nii", ".cache/x.nii", "p1/ct.raw", "p1/.DS_Store"):
        touch(tmp_path / ignored)
    assert ids(tmp_path) == ["b", "p1__day 1__ct", "p2__ct.1", "p2__ct.2"]


def test_ids_that_collide_keep_the_suffix_of_the_later_one(tmp_path):
    for name in ("a.mha", "a.nii.gz", "a/IM1.dcm", "a__b.nii", "a/b.mha"):
        touch(tmp_path / name, DICOM)
    found = {scan["scan"]: Path(scan["image"]).relative_to(tmp_path).as_posix() for scan in find_scans(tmp_path)}
    assert found == {"a": "a", "a__b": "a/b.mha", "a.mha": "a.mha", "a.nii.gz": "a.nii.gz", "a__b.nii": "a__b.nii"}


def test_two_folders_with_one_id_are_counted(tmp_path):
    touch(tmp_path / "a" / "b" / "IM1", DICOM)
    touch(tmp_path / "a__b" / "IM1", DICOM)
    assert ids(tmp_path) == ["a__b", "a__b_2"]


def test_a_link_back_up_is_followed_once(tmp_path):
    touch(tmp_path / "p" / "ct.nii")
    (tmp_path / "p" / "up").symlink_to(tmp_path, target_is_directory=True)
    assert ids(tmp_path) == ["p__ct"]


def test_the_series_travels_along(tmp_path):
    path = touch(tmp_path / "a.nii")
    assert find_scans(path, series="1.2") == [{"image": str(path), "scan": "a", "series": "1.2"}]


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"nowhere does not exist: expected a CT file .*a folder of scans"):
        find_scans(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["", "notes.txt"], ids=["folder", "file"])
def test_a_path_without_scans_is_named(tmp_path, name):
    touch(tmp_path / "notes.txt", b"no scan")
    with pytest.raises(BadInput, match="holds no scan: expected a CT file"):
        find_scans(tmp_path / name)
