import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pulmozoo.bundle.errors import BadInput
from pulmozoo.metrics.compare import box_of, compare_scores, draw_boxes, paired, read_scores

SCANS = ["a", "b", "c", "d", "e", "f"]
FIRST = [0.70, 0.72, 0.74, 0.76, 0.78, 0.80]


def table(path: Path, dice: list[float], **more: list[object]) -> Path:
    rows = [{"scan": scan, "dice": value} for scan, value in zip(SCANS, dice, strict=True)]
    for name, values in more.items():
        rows = [{**row, name: value} for row, value in zip(rows, values, strict=True)]
    rows.append({"scan": "mean", "dice": 9.0})
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_six_scans_that_all_get_better(tmp_path):
    """Of 2^6 ways of signs the two extremes are as far: p = 2 / 64. The row of means is no scan."""
    first = table(tmp_path / "1.csv", FIRST, hd95=[3.0] * 6, note=["x"] * 6)
    second = table(tmp_path / "2.csv", [value + 0.01 * n for n, value in enumerate(FIRST, start=1)], hd95=[3.0] * 6)
    rows = compare_scores([first, second], ["old", "new"], tmp_path / "OUT")
    dice, hd95 = rows
    assert dice["p"] == pytest.approx(2 / 64)
    assert dice["p_bonferroni"] == pytest.approx(4 / 64)
    assert (dice["scans"], dice["old_mean"]) == (6, pytest.approx(0.75))
    assert dice["new_mean"] == pytest.approx(0.785)
    assert dice["median_difference"] == pytest.approx(0.035)
    assert (hd95["p"], hd95["p_bonferroni"], hd95["median_difference"]) == (1.0, 1.0, 0.0)
    with (tmp_path / "OUT" / "comparison.csv").open() as file:
        assert [row["score"] for row in csv.DictReader(file)] == ["dice", "hd95"]
    picture = np.asarray(Image.open(tmp_path / "OUT" / "comparison.png").convert("L"))
    assert (picture < 100).sum() > 500
    assert sorted(path.name for path in (tmp_path / "OUT").iterdir()) == ["comparison.csv", "comparison.png"]


def test_scans_are_paired_by_name_and_those_of_one_table_left_out(tmp_path):
    first, second = table(tmp_path / "1.csv", FIRST), tmp_path / "2.csv"
    lines = [
        "scan,dice",
        *(f"{scan},{value + 0.1}" for scan, value in zip(SCANS[:3][::-1], FIRST[:3][::-1], strict=True)),
    ]
    second.write_text("\n".join([*lines, "d,", "z,0.1"]))
    (row,) = compare_scores([first, second], ["1", "2"], tmp_path / "OUT")
    assert row["scans"] == 3
    assert row["median_difference"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("content", "names", "sentence"),
    [
        ("scan,dice\nz,0.5\n", ("a", "b"), "have no score of the same scan"),
        ("name,dice\na,0.5\n", ("a", "b"), "has no column scan"),
        (None, ("a", "b"), "does not exist: expected a scores.csv"),
        ("scan,dice\na,0.5\n", ("a", "a"), "both evaluations are called 'a': give them two names"),
    ],
)
def test_what_cannot_be_compared(tmp_path, content, names, sentence):
    first, second = table(tmp_path / "1.csv", FIRST), tmp_path / "2.csv"
    if content is not None:
        second.write_text(content)
    with pytest.raises(BadInput, match=sentence):
        compare_scores([first, second], names, tmp_path / "OUT")
    assert not (tmp_path / "OUT").exists()


def slices(path: Path, dice: list[float]) -> Path:
    """Two slices of one scan with lesions of 1 and 3 cm², and a slice without."""
    rows = "".join(f"a,{number},{area},{value}\n" for number, area, value in zip((3, 4), (1.0, 3.0), dice, strict=True))
    path.write_text(f"scan,slice,area_cm2,dice\n{rows}a,5,0.0,\nmean,,,0.9\n")
    return path


def test_slices_are_paired_by_number_and_weighted_by_area(tmp_path):
    tables = [slices(tmp_path / "1.csv", [0.2, 0.6]), slices(tmp_path / "2.csv", [0.4, 0.8])]
    (row,) = compare_scores(tables, ["1", "2"], tmp_path / "OUT")
    assert (row["score"], row["scans"]) == ("dice", 2)
    assert row["1_mean"] == pytest.approx(0.25 * 0.2 + 0.75 * 0.6)
    assert row["2_mean"] == pytest.approx(0.25 * 0.4 + 0.75 * 0.8)
    assert row["median_difference"] == pytest.approx(0.2)


def test_a_box_by_hand():
    values = np.array([0.0, 1.0, 2.0, 3.0, 9.0])
    box = box_of(values, np.ones(5))
    assert [box[key] for key in ("q1", "med", "q3", "whislo", "whishi")] == [1, 2, 3, 0, 3]
    assert box["fliers"].tolist() == [9]
    assert box_of(values, np.array([1.0, 1, 1, 1, 8]))["med"] == 9


def test_boxes_of_three_evaluations(tmp_path):
    tables = [read_scores(slices(tmp_path / f"{number}.csv", [0.1, 0.2 * number])) for number in range(3)]
    draw_boxes(paired(tables), ["one", "two", "three"], tmp_path / "boxes.png")
    assert (np.asarray(Image.open(tmp_path / "boxes.png").convert("L")) < 100).sum() > 500
