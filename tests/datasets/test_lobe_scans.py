"""CTs with lobe labels in folders and as TotalSegmentator's data set."""

import csv
import json
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pytest
from monai.data import load_decathlon_datalist

from pulmozoo.bundle.errors import BadInput
from pulmozoo.datasets.lobe_scans import STRUCTURES
from pulmozoo.datasets.prepare import prepare_data

SHAPE = (12, 11, 10)
AFFINE = np.diag([2.0, 3.0, 4.0, 1.0])


def save(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, affine), path)


def ct() -> np.ndarray:
    values = np.full(SHAPE, -1000, dtype=np.int16)
    values[2:10, 2:9] = 40
    values[4:8, 4:7] = -850
    return values


def lobes() -> np.ndarray:
    labels = np.zeros(SHAPE, dtype=np.uint8)
    for number in range(1, 6):
        labels[4:8, 4:7, 2 * number - 2 : 2 * number] = number
    return labels


def lists_in(folder: Path) -> tuple[dict[str, list[dict[str, str]]], dict[str, str]]:
    with (folder / "left_out.csv").open(newline="") as file:
        left_out = {Path(row["image"]).name: row["reason"] for row in csv.DictReader(file)}
    return json.loads((folder / "datalist.json").read_text()), left_out


def test_folders_keep_what_fits_and_name_what_does_not(tmp_path):
    data = tmp_path / "data"
    for name in [f"good_{n}" for n in range(10)] + ["alone", "empty", "strange", "shifted", "broken"]:
        save(data / "images" / f"{name}.nii.gz", ct())
        save(data / "labels" / f"{name}.nii.gz", lobes())
    (data / "labels" / "alone.nii.gz").unlink()
    save(data / "labels" / "empty.nii.gz", lobes() * 0)
    save(data / "labels" / "strange.nii.gz", lobes() + 3)
    moved = AFFINE.copy()
    moved[2, 3] = 40
    save(data / "labels" / "shifted.nii.gz", lobes(), moved)
    (data / "images" / "broken.nii.gz").write_bytes(b"no image")
    written = prepare_data("lobes", data, tmp_path / "OUT", "folders")
    assert written == tmp_path / "OUT" / "datalist.json"
    datalist, left_out = lists_in(tmp_path / "OUT")
    assert {name: len(entries) for name, entries in datalist.items()} == {"training": 8, "validation": 1, "test": 1}
    entries = [entry for split in datalist.values() for entry in split]
    assert {Path(entry["image"]).name for entry in entries} == {f"good_{n}.nii.gz" for n in range(10)}
    assert all(entry["label"] == entry["image"].replace("images", "labels") for entry in entries)
    assert set(left_out) == {f"{name}.nii.gz" for name in ("alone", "empty", "strange", "shifted", "broken")}
    assert left_out["alone.nii.gz"].startswith("there is no ")
    assert left_out["empty.nii.gz"].endswith("holds no lobe")
    assert "holds 8: expected 0 to 5" in left_out["strange.nii.gz"]
    assert "lies on another grid than the CT" in left_out["shifted.nii.gz"]


def test_totalsegmentators_five_masks_become_one_label_and_its_split_stays(tmp_path):
    data = tmp_path / "data"
    for subject in ("s0001", "s0002", "s0003", "s0004"):
        save(data / subject / "ct.nii.gz", ct())
        for structure, number in STRUCTURES.items():
            save(data / subject / "segmentations" / f"{structure}.nii.gz", (lobes() == number).astype(np.uint8))
        save(data / subject / "segmentations" / "liver.nii.gz", np.ones(SHAPE, dtype=np.uint8))
    (data / "s0003" / "segmentations" / "lung_middle_lobe_right.nii.gz").unlink()
    (data / "meta.csv").write_text("image_id;age;split\ns0001;50;test\ns0002;60;train\ns0004;70;val\n")
    prepare_data("lobes", data, tmp_path / "OUT", "totalsegmentator")
    datalist, left_out = lists_in(tmp_path / "OUT")
    found = {name: [Path(entry["image"]).parent.name for entry in entries] for name, entries in datalist.items()}
    assert found == {"training": ["s0002"], "validation": ["s0004"], "test": ["s0001"]}
    label = nib.load(datalist["test"][0]["label"])
    assert np.array_equal(np.asarray(label.dataobj), lobes())
    assert np.array_equal(label.affine, AFFINE)
    assert "lung_middle_lobe_right" in left_out["ct.nii.gz"]


def test_scans_of_a_subject_stay_in_one_split_with_the_lobes_beside_them(tmp_path):
    data = tmp_path / "data"
    for subject in [f"{n}P" for n in range(10)]:
        for scan in ("INSP", "EXP"):
            save(data / subject / f"{subject}_{scan}.nii.gz", ct())
            save(data / subject / f"{subject}_{scan}_lobes.nii.gz", lobes())
    save(data / "10P" / "bare.nii.gz", ct())
    save(data / "11P" / "other_numbers.nii.gz", ct())
    save(data / "11P" / "other_numbers_lobes.nii.gz", lobes() * 8)
    prepare_data("lobes", data, tmp_path / "OUT", "copdgene")
    datalist, left_out = lists_in(tmp_path / "OUT")
    assert {name: len(entries) for name, entries in datalist.items()} == {"training": 16, "validation": 2, "test": 2}
    subjects = [{Path(entry["image"]).parent.name for entry in entries} for entries in datalist.values()]
    assert [len(found) for found in subjects] == [8, 1, 1]
    assert len(set.union(*subjects)) == 10
    entries = [entry for split in datalist.values() for entry in split]
    assert all(entry["label"] == entry["image"].replace(".nii.gz", "_lobes.nii.gz") for entry in entries)
    assert set(left_out) == {"bare.nii.gz", "other_numbers.nii.gz"}
    assert left_out["bare.nii.gz"].endswith("bare_lobes.nii.gz")
    assert "holds 40: expected 0 to 5" in left_out["other_numbers.nii.gz"]


def save_itk(path: Path, values: np.ndarray) -> None:
    """Axes x, y, z to left, back and head as in LUNA16, with unequal spacings."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = itk.image_from_array(np.ascontiguousarray(values.T))
    image.SetSpacing([2.0, 3.0, 4.0])
    image.SetOrigin([-10.0, 20.0, 30.0])
    itk.imwrite(image, str(path))


def test_lobes_of_luna16_are_renumbered(tmp_path):
    """Region 7 is LUL, 8 LLL, 4 RUL, 6 RLL, 5 RML; airways (512 + region) belong to their lobe, 1 to none."""
    data = tmp_path / "data"
    regions = np.array([0, 7, 8, 4, 6, 5], dtype=np.int16)[lobes()]
    regions[4, 4, 4] += 512
    regions[0, 0, 0], regions[0, 0, 1] = 512, 1
    for series in ("1.2.3", "1.2.4", "1.2.5"):
        save_itk(data / "subset0" / f"{series}.mhd", ct())
        save_itk(data / "seg-lungs-LUNA16" / f"{series}.mhd", (lobes() > 0).astype(np.uint8))
    save_itk(data / "annotations" / "1.2.3_LobeSegmentation.nrrd", regions)
    save_itk(data / "annotations" / "1.2.4_LobeSegmentation.nrrd", np.where(regions == 7, 9, regions))
    save_itk(data / "annotations" / "1.2.6_LobeSegmentation.nrrd", regions)
    prepare_data("lobes", data, tmp_path / "OUT", "luna16")
    datalist, left_out = lists_in(tmp_path / "OUT")
    assert datalist["training"] == [
        {
            "image": str(data / "subset0" / "1.2.3.mhd"),
            "label": str(tmp_path / "OUT" / "labels" / "1.2.3.nii.gz"),
        }
    ]
    label = nib.load(datalist["training"][0]["label"])
    assert np.array_equal(np.asarray(label.dataobj), lobes())
    expected = np.diag([-2.0, -3.0, 4.0, 1.0])
    expected[:3, 3] = [10, -20, 30]
    assert np.array_equal(label.affine, expected)
    assert [path.name for path in (tmp_path / "OUT" / "labels").iterdir()] == ["1.2.3.nii.gz"]
    assert "holds region 9: expected 0, 1, 4, 5, 6, 7, 8" in left_out["1.2.4.mhd"]
    assert left_out["1.2.5.mhd"] == "there is no 1.2.5_LobeSegmentation.nrrd"
    assert left_out["1.2.6_LobeSegmentation.nrrd"] == "there is no 1.2.6.mhd"


def test_scans_of_lola11_are_listed_to_run(tmp_path, caplog):
    data = tmp_path / "data"
    save_itk(data / "lola11-01.mhd", ct())
    save_itk(data / "lola11-02.mhd", ct() * 0)
    with caplog.at_level("INFO", "pulmozoo.datasets.lobe_scans"):
        written = prepare_data("lobes", data, tmp_path / "OUT", "lola11")
    assert load_decathlon_datalist(str(written), True, "test") == [{"image": str(data / "lola11-01.mhd")}]
    assert lists_in(tmp_path / "OUT")[0]["training"] == []
    assert "every voxel is 0" in lists_in(tmp_path / "OUT")[1]["lola11-02.mhd"]
    assert caplog.messages == [f"1 CTs without labels, to run and not to score: pulmozoo run lobes {data} OUT"]


def test_a_folder_without_a_readable_scan_stops(tmp_path):
    save_itk(tmp_path / "data" / "lola11-01.mhd", ct() * 0)
    with pytest.raises(BadInput, match=r"holds no CT that can be read: .*every voxel is 0"):
        prepare_data("lobes", tmp_path / "data", tmp_path / "OUT", "lola11")
    assert not (tmp_path / "OUT").exists()


def test_a_folder_without_lobes_stops(tmp_path):
    save(tmp_path / "data" / "images" / "a.nii.gz", ct())
    with pytest.raises(BadInput, match="holds nothing to learn lobes from: there is no"):
        prepare_data("lobes", tmp_path / "data", tmp_path / "OUT", "folders")
    assert not (tmp_path / "OUT").exists()
