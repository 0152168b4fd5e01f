import csv
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pulmozoo import cli
from pulmozoo.bundle.errors import BadInput
from pulmozoo.datasets.annotated_slices import (
    lesion_areas,
    prepare_slices,
    some_slices,
    split_subjects,
    spread,
    subjects,
)
from toy_chest import toy_chest

SHAPE, SPACING = (40, 32, 30), (9.0, 9.0, 8.0)


def write_subject(folder: Path, name: str, lesions: dict[int, int], labels: str) -> None:
    """A toy chest; ``lesions`` has the number of lesion pixels by slice."""
    chest = toy_chest(0, SHAPE, SPACING)
    affine = chest["affine"].numpy()
    label = np.zeros(SHAPE, dtype=np.uint8)
    for index, count in lesions.items():
        inside = np.argwhere(chest["lobes"].numpy()[:, :, index] > 0)[:count]
        label[inside[:, 0], inside[:, 1], index] = 1
    for part, values in (("images", chest["ct_hu"].numpy()), (labels, label)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(values, affine), folder / part / f"{name}.nii.gz")


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "slices.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_outlined_slices_become_rows(tmp_path):
    for number in range(4):
        write_subject(tmp_path / "data", f"s{number}", {12: 3, 15: 5 + number}, "labels")
    table = prepare_slices(tmp_path / "data", tmp_path / "out", "folders")
    rows = rows_of(tmp_path / "out")
    assert table == tmp_path / "out" / "slices.csv"
    assert [(row["subject_id"], row["slice_index"]) for row in rows[:3]] == [("s0", "12"), ("s0", "15"), ("s1", "12")]
    assert float(rows[1]["lesion_area_cm2"]) == pytest.approx(5 * 0.81, abs=1e-3)
    assert Counter(row["split"] for row in rows) == {"training": 4, "validation": 2, "test": 2}
    found = [subject for split in ("training", "validation", "test") for subject in subjects(table.parent, split)]
    assert len(found) == 4
    for subject in found:
        assert subject["slices"] == [12, 15]
        for key in ("image", "label", "lung_mask"):
            assert Path(subject[key]).is_file()
    lungs = nib.load(found[0]["lung_mask"])
    assert set(np.unique(lungs.dataobj)) == {0, 1, 2}
    assert lungs.shape == SHAPE


def test_of_a_phantom_some_slices_are_taken(tmp_path):
    lesions = dict.fromkeys(range(8, 22), 4) | {22: 1}
    write_subject(tmp_path / "data", "p0", lesions, "paraseptal")
    cli.prepare("paraseptal", str(tmp_path / "data"), str(tmp_path / "out"), "phantom")
    rows = rows_of(tmp_path / "out")
    areas = {int(row["slice_index"]): float(row["lesion_area_cm2"]) for row in rows}
    assert list(areas) == sorted(areas)
    assert sum(area > 0 for area in areas.values()) == 6
    assert sum(area == 0 for area in areas.values()) == 2
    assert all(8 <= index <= 22 for index, area in areas.items() if area)


def test_a_mask_that_is_there_is_taken(tmp_path):
    write_subject(tmp_path / "data", "s0", {15: 5}, "labels")
    image = nib.load(tmp_path / "data" / "images" / "s0.nii.gz")
    (tmp_path / "data" / "lungs").mkdir()
    nib.save(nib.Nifti1Image(np.ones(SHAPE, np.uint8), image.affine), tmp_path / "data" / "lungs" / "s0.nii.gz")
    prepare_slices(tmp_path / "data", tmp_path / "out", "folders")
    assert rows_of(tmp_path / "out")[0]["lung"] == "../data/lungs/s0.nii.gz"
    assert list((tmp_path / "out" / "lungs").iterdir()) == []


def test_areas_count_along_the_axial_axis():
    label = np.zeros((4, 5, 6), dtype=np.uint8)
    label[1, 2:4, 3], label[2, 0, 0] = 1, 1
    affine = np.zeros((4, 4))
    affine[2, 0], affine[0, 1], affine[1, 2], affine[3, 3] = 8.0, 2.0, 5.0, 1.0  # the first axis runs up
    areas, pixel_cm2 = lesion_areas(nib.Nifti1Image(label, affine))
    assert pixel_cm2 == pytest.approx(0.1)
    assert areas.tolist() == pytest.approx([0, 0.2, 0.1, 0])


def test_a_few_slices_evenly_spread():
    assert spread(np.arange(10, 30), 4).tolist() == [12, 17, 22, 27]
    assert spread(np.arange(3), 4).tolist() == [0, 1, 2]
    areas = np.zeros(40)
    areas[10:30] = 1.0
    areas[30] = 0.1  # too small to outline, but not healthy either
    chosen = some_slices(areas, np.arange(5, 36)).tolist()
    assert chosen == [7, 11, 15, 18, 21, 25, 28, 33]


def test_the_split_is_by_subject_and_by_seed():
    names = [f"s{number}" for number in range(40)]
    split = split_subjects(names, seed=1)
    assert Counter(split.values()) == {"training": 22, "validation": 8, "test": 10}
    assert split == split_subjects(names, seed=1)
    assert split != split_subjects(names, seed=2)


def test_without_a_table_all_slices_of_a_datalist_are_annotated(cohort):
    found = subjects(cohort, "training")
    assert len(found) == 2
    assert all(set(subject) == {"image", "label"} and Path(subject["image"]).is_file() for subject in found)
    assert subjects("", "validation") == []


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda folder: subjects("", "training"), "no data were given: expected --dataset_dir"),
        (lambda folder: subjects(folder, "training"), "neither slices.csv nor datalist.json"),
        (lambda folder: prepare_slices(folder, folder, "folders"), "holds no label: expected images/<id>.nii.gz"),
        (lambda folder: cli.prepare("paraseptal", str(folder), str(folder), "siim"), "choose one of folders, phantom"),
    ],
    ids=["no data", "no list", "no labels", "layout"],
)
def test_what_cannot_be_used(tmp_path, call, sentence):
    with pytest.raises(BadInput, match=sentence):
        call(tmp_path)


def test_a_label_without_image_and_labels_without_lesion(tmp_path):
    write_subject(tmp_path, "s0", {}, "labels")
    with pytest.raises(BadInput, match="holds no lesion"):
        prepare_slices(tmp_path, tmp_path / "out", "folders")
    assert not (tmp_path / "out" / "slices.csv").exists()
    (tmp_path / "images" / "s0.nii.gz").unlink()
    with pytest.raises(BadInput, match=r"s0.nii.gz has no image: expected .*images/s0.nii.gz"):
        prepare_slices(tmp_path, tmp_path / "out", "folders")
