"""Inference from scan to files, through the same ``run`` entries that ``python -m monai.bundle run`` takes."""

import csv
import json
import os
from pathlib import Path
from typing import Any

import itk
import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from conftest import BRIGHT, BRIGHT_HU, DARK, DARK_HU, dice, run_inference
from dicom_writer import write_ct_series
from pulmozoo.bundle.weights_file import sha256
from pulmozoo.phantom import thorax

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
NUMBERS = {
    f"{part}_{quantity}"
    for part in (
        "left_upper_lobe",
        "left_lower_lobe",
        "right_upper_lobe",
        "right_lower_lobe",
        "right_middle_lobe",
        "lungs",
    )
    for quantity in ("volume_ml", "mean_hu", "laa950_percent", "laa910_percent", "perc15_hu")
}


def save(path: Path, values: np.ndarray, affine: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(values, affine), path)
    return path


def values_of(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def as_ras(path: Path) -> np.ndarray:
    """The values with axes to the right, to the front and up, so that copies on turned grids can be compared."""
    return np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj)


def rows_of(output_dir: Path) -> list[dict[str, str]]:
    with (output_dir / "results.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def results_of(output_dir: Path, scan: str) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((output_dir / scan / "results.json").read_text(encoding="utf-8"))
    return results


@pytest.fixture(scope="module")
def done(small_bundle, chest_ct, tmp_path_factory) -> Path:
    """The output folder of one scan; for reading only."""
    output_dir = tmp_path_factory.mktemp("done")
    assert run_inference(small_bundle, chest_ct, output_dir).code == 0
    return output_dir


@pytest.fixture(scope="module")
def oblique_affine(chest_ct) -> np.ndarray:
    angle = np.radians(15)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = nib.load(chest_ct).affine.copy()
    affine[:3] = turn @ affine[:3]
    affine[:3, 3] += (11, -7, 130)
    return affine


@pytest.fixture(scope="module")
def copies(small_bundle, chest_ct, oblique_affine, tmp_path_factory) -> tuple[Path, Path]:
    """One scan on six grids, and the output folder of all six."""
    scans, output_dir = tmp_path_factory.mktemp("copies"), tmp_path_factory.mktemp("copies_out")
    scan = nib.load(chest_ct)
    values = np.asarray(scan.dataobj)
    here = nib.orientations.io_orientation(scan.affine)
    for name, axcodes in (("LPS", "LPS"), ("RAS", "RAS"), ("permuted", "SLP"), ("flipped", "LAI")):
        turn = nib.orientations.ornt_transform(here, nib.orientations.axcodes2ornt(axcodes))
        turned = scan.as_reoriented(turn)
        assert "".join(nib.aff2axcodes(turned.affine)) == axcodes
        save(scans / f"{name}.nii.gz", np.asarray(turned.dataobj), turned.affine)
    save(scans / "oblique.nii.gz", values, oblique_affine)
    save(scans / "anisotropic.nii.gz", values[:, :, ::2], scan.affine @ np.diag([1, 1, 2, 1]))
    assert run_inference(small_bundle, scans, output_dir).code == 0
    return scans, output_dir


def test_each_label_lies_where_the_network_was_made_to_put_it(done, chest_ct):
    ct_hu, labels = values_of(chest_ct), values_of(done / "chest" / "chest_seg.nii.gz")
    assert set(np.unique(labels)) == {0, DARK, BRIGHT}
    smooth_hu = ndimage.gaussian_filter(ct_hu.astype(float), 0.7)  # about the working grid of 12 mm
    assert (labels[smooth_hu < DARK_HU - 150] == DARK).mean() > 0.98
    assert (labels[smooth_hu > BRIGHT_HU + 70] == BRIGHT).mean() > 0.98
    assert (labels[(smooth_hu > -250) & (smooth_hu < -120)] == 0).mean() > 0.95


def test_the_numbers_are_those_of_the_label_map(done, chest_ct):
    ct_hu, labels = values_of(chest_ct), values_of(done / "chest" / "chest_seg.nii.gz")
    numbers = results_of(done, "chest")["numbers"]
    assert set(numbers) == NUMBERS
    assert numbers["left_upper_lobe_volume_ml"] == pytest.approx((labels == 1).sum() * 8.0 * 7.5 * 7.0 / 1000, abs=0.01)
    assert numbers["left_upper_lobe_mean_hu"] == pytest.approx(ct_hu[labels == 1].mean(), abs=0.01)
    assert numbers["right_middle_lobe_mean_hu"] == pytest.approx(ct_hu[labels == 5].mean(), abs=0.01)
    assert numbers["lungs_volume_ml"] == pytest.approx((labels > 0).sum() * 0.42, abs=0.01)
    assert numbers["right_upper_lobe_volume_ml"] == 0
    assert numbers["right_upper_lobe_mean_hu"] is None


def test_results_json_says_what_was_done_with_what(done, small_bundle, chest_ct):
    results = results_of(done, "chest")
    metadata = json.loads((small_bundle / "configs" / "metadata.json").read_text())
    assert results["scan"] == "chest"
    assert results["image"] == str(chest_ct)
    assert (results["bundle"], results["version"]) == (metadata["name"], metadata["version"])
    assert (results["preset"], results["device"]) == ("phantom", "cpu")
    assert results["labels"] == metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    assert results["weights"]["tier"] == metadata["weights"]["tier"]
    assert results["weights"]["sha256"] == sha256(small_bundle / "models" / "model.pt")
    assert results["files"] == {"labels": "chest_seg.nii.gz", "overlay": "overlay.png", "results": "results.json"}
    parts = {key: value for key, value in results["seconds"].items() if key != "total"}
    assert list(parts) == ["reading", "preprocessing", "stage_1", "stage_2", "postprocessing", "writing"]
    assert results["seconds"]["total"] == pytest.approx(sum(parts.values()), abs=0.002)
    assert all(value is None or type(value) in (int, float) for value in results["numbers"].values())


def test_the_overlay_is_a_picture(done):
    with Image.open(done / "chest" / "overlay.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 400


def test_nothing_else_is_written(done):
    files = {str(path.relative_to(done)) for path in done.rglob("*") if path.is_file()}
    assert files == {"results.csv", "chest/chest_seg.nii.gz", "chest/results.json", "chest/overlay.png"}


@pytest.mark.parametrize("name", ["LPS", "RAS", "permuted", "flipped", "oblique", "anisotropic"])
def test_the_label_map_lies_on_the_grid_of_the_scan(copies, name):
    scans, output_dir = copies
    scan, labels = nib.load(scans / f"{name}.nii.gz"), nib.load(output_dir / name / f"{name}_seg.nii.gz")
    assert labels.shape == scan.shape
    assert np.array_equal(labels.affine, scan.affine)
    assert labels.get_data_dtype() == np.uint8
    assert labels.header.get_zooms() == pytest.approx(scan.header.get_zooms())


@pytest.mark.parametrize("name", ["LPS", "RAS", "permuted", "flipped"])
def test_the_same_labels_come_back_on_each_turned_grid(done, copies, name):
    labels = as_ras(copies[1] / name / f"{name}_seg.nii.gz")
    assert np.array_equal(labels, as_ras(done / "chest" / "chest_seg.nii.gz"))


@pytest.mark.parametrize(("name", "every"), [("oblique", 1), ("anisotropic", 2)])
def test_resampled_copies_get_nearly_the_same_labels(done, copies, name, every):
    labels = values_of(copies[1] / name / f"{name}_seg.nii.gz")
    full = values_of(done / "chest" / "chest_seg.nii.gz")[:, :, ::every]
    assert dice(labels, full, DARK) > 0.9
    assert dice(labels, full, BRIGHT) > 0.85  # ribs, skin and table are thinner than these voxels


def test_a_stack_of_eight_slices_is_labelled_too(small_bundle, chest_ct, tmp_path):
    scan = nib.load(chest_ct)
    thin = save(tmp_path / "thin.nii", np.asarray(scan.dataobj)[:, :, 16:24], scan.affine)
    outcome = run_inference(small_bundle, thin, tmp_path / "OUT")
    assert outcome.code == 0, outcome.said
    assert values_of(tmp_path / "OUT" / "thin" / "thin_seg.nii.gz").shape == (44, 36, 8)


def test_numbers_do_not_depend_on_the_orientation(done, copies):
    expected = results_of(done, "chest")["numbers"]
    for name in ("LPS", "RAS", "permuted", "flipped"):
        assert results_of(copies[1], name)["numbers"] == pytest.approx(expected), name


def test_a_dicom_folder_gives_the_result_of_its_nifti(small_bundle, chest_ct, done, tmp_path):
    scan = nib.load(chest_ct)
    write_ct_series(tmp_path / "IN" / "series", np.asarray(scan.dataobj), scan.affine)
    assert run_inference(small_bundle, tmp_path / "IN" / "series", tmp_path / "OUT").code == 0
    result = tmp_path / "OUT" / "series" / "series_seg.nii.gz"
    assert np.allclose(nib.load(result).affine, scan.affine, atol=1e-4)
    expected = done / "chest" / "chest_seg.nii.gz"
    assert dice(as_ras(result), as_ras(expected), DARK) == 1
    assert dice(as_ras(result), as_ras(expected), BRIGHT) == 1


def test_mha_goes_in_and_out(small_bundle, chest_ct, done, tmp_path):
    scan = nib.load(chest_ct)
    volume = np.asarray(scan.dataobj)
    image = itk.image_from_array(np.ascontiguousarray(volume.T))
    image.SetSpacing([8.0, 7.5, 7.0])
    image.SetOrigin((LPS_TO_RAS @ scan.affine)[:3, 3].tolist())  # the phantom's axes are those of ITK: L, P, S
    itk.imwrite(image, str(tmp_path / "scan.mha"))
    assert run_inference(small_bundle, tmp_path / "scan.mha", tmp_path / "OUT", output_ext=".mha").code == 0
    result = itk.imread(str(tmp_path / "OUT" / "scan" / "scan_seg.mha"))
    labels = itk.array_from_image(result).T
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, values_of(done / "chest" / "chest_seg.nii.gz"))
    assert list(result.GetSpacing()) == pytest.approx([8.0, 7.5, 7.0])
    assert list(result.GetOrigin()) == pytest.approx(list(image.GetOrigin()))
    assert np.allclose(itk.array_from_matrix(result.GetDirection()), np.eye(3))


def test_clean_up_leaves_one_piece_of_each_lobe(small_bundle, chest_ct, done, tmp_path):
    before = values_of(done / "chest" / "chest_seg.nii.gz")
    assert ndimage.label(before == DARK, np.ones((3, 3, 3)))[1] > 1
    assert run_inference(small_bundle, chest_ct, tmp_path, **{"presets#phantom#clean_up": True}).code == 0
    after = values_of(tmp_path / "chest" / "chest_seg.nii.gz")
    assert ndimage.label(after == DARK, np.ones((3, 3, 3)))[1] == 1


@pytest.mark.parametrize("extension", [".nii", ".nii.gz"])
def test_output_names_follow_the_overrides_of_the_official_zoo(small_bundle, chest_ct, tmp_path, extension):
    outcome = run_inference(
        small_bundle,
        chest_ct,
        tmp_path,
        output_ext=extension,
        output_postfix="lobes",
        output_dtype="int16",
        separate_folder=False,
    )
    assert outcome.code == 0
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {f"chest_lobes{extension}", "chest_results.json", "chest_overlay.png", "results.csv"}
    assert nib.load(tmp_path / f"chest_lobes{extension}").get_data_dtype() == np.int16


def test_false_on_the_command_line_means_no(small_bundle, chest_ct, done, tmp_path):
    # `--separate_folder false` reaches the config as the text "false", because fire knows only Python's False.
    assert run_inference(small_bundle, chest_ct, tmp_path, separate_folder="false").code == 0
    assert (tmp_path / "chest_seg.nii.gz").exists()
    assert not (tmp_path / "chest").exists()
    written = (tmp_path / "chest_seg.nii.gz").stat().st_mtime_ns
    assert run_inference(small_bundle, chest_ct, tmp_path, separate_folder="false", overwrite="false").code == 0
    assert (tmp_path / "chest_seg.nii.gz").stat().st_mtime_ns == written


@pytest.fixture(scope="module")
def mixed(small_bundle, chest_ct, tmp_path_factory) -> tuple[Path, Path, Any]:
    """A folder with a broken scan between two good ones, its output folder, and how the run ended."""
    scans, output_dir = tmp_path_factory.mktemp("mixed"), tmp_path_factory.mktemp("mixed_out")
    other = thorax(seed=2, shape=(40, 38, 36), spacing_mm=(8.0, 8.0, 9.0))
    (scans / "c").mkdir()
    (scans / "a.nii.gz").write_bytes(chest_ct.read_bytes())
    (scans / "b.nii.gz").write_bytes(b"no scan at all")
    save(scans / "c" / "d.nii", other["ct_hu"].numpy(), other["affine"].numpy())
    return scans, output_dir, run_inference(small_bundle, scans, output_dir)


def test_a_broken_scan_stops_no_other(mixed):
    _, output_dir, outcome = mixed
    assert outcome.code == 3
    assert [(row["scan"], row["status"]) for row in rows_of(output_dir)] == [
        ("a", "done"),
        ("b", "failed"),
        ("c__d", "done"),
    ]
    assert (output_dir / "c__d" / "c__d_seg.nii.gz").exists()
    assert not (output_dir / "b").exists()


def test_the_reason_is_in_the_table_and_on_standard_error(mixed):
    _, output_dir, outcome = mixed
    reason = rows_of(output_dir)[1]["reason"]
    assert "b.nii.gz" in reason
    assert f"pulmozoo: b: {reason}" in outcome.said


def test_the_table_holds_the_numbers_of_each_scan(mixed):
    _, output_dir, _ = mixed
    for row in rows_of(output_dir):
        if row["status"] == "done":
            numbers = results_of(output_dir, row["scan"])["numbers"]
            assert {key: row[key] for key in NUMBERS} == {
                key: "" if value is None else str(value) for key, value in numbers.items()
            }
    assert rows_of(output_dir)[1]["lungs_volume_ml"] == ""


def test_a_second_run_keeps_what_is_there(small_bundle, mixed):
    scans, output_dir, _ = mixed
    before = rows_of(output_dir)
    times = {path: path.stat().st_mtime_ns for path in output_dir.rglob("*_seg.nii.gz")}
    assert run_inference(small_bundle, scans, output_dir).code == 3
    after = rows_of(output_dir)
    assert [row["status"] for row in after] == ["skipped", "failed", "skipped"]
    assert [{key: row[key] for key in NUMBERS} for row in after] == [
        {key: row[key] for key in NUMBERS} for row in before
    ]
    assert {path: path.stat().st_mtime_ns for path in times} == times


@pytest.fixture
def label_map(small_bundle, chest_ct, tmp_path) -> Path:
    """A finished label map of this test's own, with a time of writing that no later one can have."""
    assert run_inference(small_bundle, chest_ct, tmp_path).code == 0
    path = tmp_path / "chest" / "chest_seg.nii.gz"
    os.utime(path, (0, 0))
    return path


def test_overwrite_does_a_scan_again(small_bundle, chest_ct, label_map):
    output_dir = label_map.parents[1]
    assert run_inference(small_bundle, chest_ct, output_dir, overwrite=True).code == 0
    assert label_map.stat().st_mtime > 0
    assert [row["status"] for row in rows_of(output_dir)] == ["done"]


def test_other_weights_do_a_scan_again(small_bundle, chest_ct, label_map, tmp_path):
    state = torch.load(small_bundle / "models" / "model.pt", weights_only=True)
    state["scan_unet.lobe_head.bias"] += 0.25
    torch.save(state, tmp_path / "other.pt")
    output_dir = label_map.parents[1]
    outcome = run_inference(small_bundle, chest_ct, output_dir, weights_path=str(tmp_path / "other.pt"))
    assert outcome.code == 0
    assert label_map.stat().st_mtime > 0
    assert results_of(output_dir, "chest")["weights"]["sha256"] == sha256(tmp_path / "other.pt")


def test_a_lost_label_map_is_made_again(small_bundle, chest_ct, label_map):
    label_map.unlink()
    assert run_inference(small_bundle, chest_ct, label_map.parents[1]).code == 0
    assert label_map.exists()
