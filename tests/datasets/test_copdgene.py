import csv
import json
from pathlib import Path

import pytest

from pulmozoo.bundle.errors import BadInput
from pulmozoo.datasets.copdgene import prepare_scored
from pulmozoo.datasets.emphysema_list import emphysema_entries

HEADER = ["SeriesInstanceUID", "CT_Visual_Emph_Severity_P1", "CT_Visual_Emph_Paraseptal_P1", "gold"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Ten scored CTs, two of them with masks; one without a row, one row without a CT, one with a score of 6."""
    for folder, names in (("images", [*map(str, range(10)), "unknown", "odd"]), ("lung_masks", ["3", "4"])):
        for name in names:
            path = tmp_path / "data" / folder / f"{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    write_table(tmp_path / "data", [[name, name % 6, name % 3, 1] for name in range(10)] + [["odd", 6, 0, 1]])
    return tmp_path / "data"


def write_table(folder: Path, rows: list[list], header: list[str] = HEADER) -> None:
    with (folder / "scores.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows, ["gone", 1, 1, 0]])


def test_scored_scans_become_a_datalist(data, tmp_path):
    written = prepare_scored(data, tmp_path / "OUT")
    lists = json.loads(written.read_text())
    assert [len(lists[name]) for name in ("training", "validation", "test")] == [8, 1, 1]
    entries = {Path(entry["image"]).name: entry for entry in emphysema_entries(tmp_path / "OUT", "all")}
    assert sorted(entries) == [f"{name}.nii.gz" for name in range(10)]
    assert entries["4.nii.gz"] == {
        "image": str(data / "images" / "4.nii.gz"),
        "lung_mask": str(data / "lung_masks" / "4.nii.gz"),
        "cle_score": 4,
        "pse_score": 1,
    }
    assert "lung_mask" not in entries["5.nii.gz"]


def test_what_is_left_out_says_why(data, tmp_path):
    prepare_scored(data, tmp_path / "OUT")
    with (tmp_path / "OUT" / "left_out.csv").open(newline="") as file:
        reasons = {Path(row["image"]).name: row["reason"] for row in csv.DictReader(file)}
    assert reasons == {
        "unknown.nii.gz": "it has no row in the table",
        "odd.nii.gz": "CT_Visual_Emph_Severity_P1 is '6': expected 0 to 5",
        "gone": "there is no CT for this row",
    }


def test_data_laid_out_otherwise(data, tmp_path):
    write_table(data, [["a", 1, 1, 1]], ["patient", *HEADER[1:]])
    with pytest.raises(BadInput, match=r"names no CT: expected a column SeriesInstanceUID or subject"):
        prepare_scored(data, tmp_path / "OUT")
    (data / "scores.csv").unlink()
    with pytest.raises(BadInput, match=r"holds 0 tables: expected one csv with CT_Visual_Emph_Severity_P1"):
        prepare_scored(data, tmp_path / "OUT")
    assert not (tmp_path / "OUT").exists()
