"""Files that are there whole or not at all."""

from pathlib import Path

import pytest

from pulmozoo.files import whole, write_rows


def write_half(path: Path) -> None:
    with whole(path) as unfinished:
        unfinished.write_text("half")
        raise OSError("disk full")


def test_a_file_that_was_there_stays_when_writing_fails(tmp_path):
    path = tmp_path / "new folder" / "scores.csv"
    write_rows(path, [{"a": 1}], ["a"])
    before = path.read_bytes()
    with pytest.raises(OSError, match="disk full"):
        write_half(path)
    assert path.read_bytes() == before == b"a\n1\n"
    assert list(path.parent.iterdir()) == [path]


def test_what_a_killed_run_left_is_no_obstacle_to_a_folder(tmp_path):
    (tmp_path / "unfinished_series").mkdir()
    (tmp_path / "unfinished_series" / "9.dcm").write_bytes(b"half")
    with whole(tmp_path / "series") as unfinished:
        unfinished.mkdir()
        (unfinished / "1.dcm").write_bytes(b"all")
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.dcm")] == ["series/1.dcm"]


def test_the_ending_is_kept_for_writers_that_go_by_it(tmp_path):
    with whole(tmp_path / "ct.nii.gz") as unfinished:
        unfinished.write_bytes(b"")
    assert unfinished.name.endswith(".nii.gz")
    assert (tmp_path / "ct.nii.gz").exists()


def test_a_row_may_lack_a_column(tmp_path):
    write_rows(tmp_path / "t.csv", [{"a": 1}, {"b": 2}], ["a", "b"])
    assert (tmp_path / "t.csv").read_text() == "a,b\n1,\n,2\n"
