"""Phantom against real: each measure on a hand-made array whose answer is known, and the whole table on small scans."""

import csv

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from pulmozoo.bundle.errors import BadInput
from pulmozoo.phantom import realism, thorax
from pulmozoo.phantom.realism import (
    HISTOGRAM_HU,
    NOISE_PER_MM,
    NORMAL_LUNG,
    Measured,
    compare,
    compare_patches,
    histogram_distance,
    lung_histogram,
    lung_numbers,
    lung_patches,
    measure,
    noise_numbers,
    patch_numbers,
    phantom_like,
    soft_tissue_patches,
    vessel_numbers,
    write_realism,
)
from pulmozoo.transforms.reading import to_hu
from toy_chest import LUNG_HU, LUNG_LITRES, NOISE_HU, toy_chest

SHAPE, SPACING_MM = (62, 54, 46), (5.6, 5.2, 7.0)


@pytest.fixture
def _toy_phantoms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(realism, "thorax", toy_chest)


@pytest.fixture(scope="module")
def chest() -> MetaTensor:
    toy = toy_chest(7, SHAPE, SPACING_MM)
    return to_hu(MetaTensor(toy["ct_hu"][None], affine=toy["affine"]))


@pytest.fixture(scope="module")
def measured(chest: MetaTensor) -> Measured:
    return measure("seven", chest)


def test_lung_numbers_by_hand():
    numbers = lung_numbers(np.array([-1000.0, -950.0, -900.0, -850.0, -800.0]))
    assert numbers == {
        "lung_mean_hu": -900.0,
        "lung_sd_hu": pytest.approx(50 * 2**0.5),
        "lung_p5_hu": pytest.approx(-990.0),
        "lung_p50_hu": -900.0,
        "lung_p95_hu": pytest.approx(-810.0),
        "laa950_percent": 20.0,  # -950 itself does not count
    }


def test_histogram_keeps_what_lies_beyond_its_ends():
    histogram = lung_histogram(np.array([-3000.0, -1030.0, -875.0, 210.0, 900.0]))
    assert len(histogram) == len(HISTOGRAM_HU) - 1
    assert histogram[[0, -1]].tolist() == [0.4, 0.4]
    assert histogram[15] == 0.2  # -880 to -870
    assert histogram.sum() == pytest.approx(1.0)


def test_distance_is_the_hu_that_all_values_move():
    values = np.array([-905.0, -805.0, -705.0])
    assert histogram_distance(lung_histogram(values), lung_histogram(values + 30)) == pytest.approx(30.0)
    assert histogram_distance(lung_histogram(values), lung_histogram(values)) == 0.0


def test_vessels_are_counted_by_zone():
    lungs = np.zeros((30, 32, 34), dtype=np.uint8)
    lungs[3:27, 4:28, 5:29] = 2  # 48 x 48 x 24 mm: up to 12 mm deep
    ct = np.full(lungs.shape, -850)
    ct[14:16, 15:17, 21:29] = 0  # 2 x 2 columns through the upper third, z up
    numbers = vessel_numbers(ct, lungs, (2.0, 2.0, 1.0))
    # More than 5 mm deep are 20 x 20 voxels across and, along z, 3 of 8 levels in the outer thirds, 8 in the middle.
    assert numbers["vessels_apical_percent"] == pytest.approx(100 * 4 / 400)
    assert (numbers["vessels_middle_percent"], numbers["vessels_basal_percent"]) == (0.0, 0.0)
    assert numbers["vessels_peripheral_percent"] == pytest.approx(100 * 4 * 3 / (400 * 14))
    assert np.isnan(numbers["vessels_central_percent"])  # nothing is 20 mm deep


def test_noise_power_of_white_noise_is_variance_times_pixel_area():
    noise = np.random.default_rng(0).normal(40, 10, (200, 30, 40))
    numbers = noise_numbers(noise, (0.8, 0.6))
    assert numbers["noise_sd_hu"] == pytest.approx(10, rel=0.02)
    for frequency in NOISE_PER_MM:
        assert numbers[f"noise_power_{frequency:g}_per_mm"] == pytest.approx(100 * 0.48, rel=0.06)


def test_noise_power_of_a_wave_stands_at_its_frequency_and_a_trend_counts_nowhere():
    x, y = np.meshgrid(np.arange(40) * 0.5, np.arange(40) * 0.5, indexing="ij")
    wave = noise_numbers(30 * np.cos(2 * np.pi * 0.2 * x)[None], (0.5, 0.5))
    assert wave["noise_power_0.2_per_mm"] > 100 * wave["noise_power_0.1_per_mm"]
    assert wave["noise_power_0.2_per_mm"] > 100 * wave["noise_power_0.35_per_mm"]
    trend = noise_numbers((3 * x - 2 * y + 0.1 * x * y + 0.2 * y**2)[None], (0.5, 0.5))
    assert trend["noise_sd_hu"] == pytest.approx(0, abs=1e-6)


def test_noise_beyond_the_pixels_and_without_patches_is_not_a_number():
    coarse = noise_numbers(np.random.default_rng(0).normal(size=(3, 10, 10)), (2.0, 2.0))
    assert np.isnan(coarse["noise_power_0.35_per_mm"])
    assert coarse["noise_power_0.2_per_mm"] > 0
    assert all(np.isnan(value) for value in noise_numbers(np.empty((0, 10, 10)), (2.0, 2.0)).values())


def test_soft_tissue_patches_are_neither_lung_nor_bone_nor_edge_nor_fill():
    ct = np.full((60, 60, 2), -900.0)
    ct[:20, :20, 0], ct[20:40, :20, 0], ct[40:, :20, 0] = 50, 800, 0  # liver, bone, fill that nobody measured
    ct[:10, 40:, 0] = 1200  # half bone, half lung: the right mean, but an edge
    noise = np.random.default_rng(0).normal(0, 15, ct.shape)
    noise[40:, :20] = 0
    patches = soft_tissue_patches(ct + noise, (1.0, 1.0, 5.0))
    assert patches.shape[1:] == (20, 20)
    assert patches[0].mean() == pytest.approx(50, abs=2)
    assert len(patches) == 2  # the edge comes last


def test_patches_lie_wholly_in_the_lungs():
    lungs = np.zeros((70, 64, 2), dtype=np.uint8)
    lungs[:, :40, 1] = 1
    ct = np.random.default_rng(0).normal(-850, 20, lungs.shape)
    patches = lung_patches(ct, lungs)
    np.testing.assert_array_equal(patches, [ct[:31, :31, 1], ct[31:62, :31, 1]])


def test_patch_numbers_by_hand():
    stripes = np.full((31, 31), -900.0)
    stripes[:, 1::2] = -1000.0  # 15 columns of 31
    numbers = patch_numbers(np.stack([stripes, stripes.T]))
    assert numbers["mean_hu"] == pytest.approx(-900 - 100 * 15 / 31)
    assert numbers["sd_hu"] == pytest.approx(50, rel=0.01)
    assert (numbers["p5_hu"], numbers["p50_hu"], numbers["p95_hu"]) == (-1000, -900, -900)
    assert numbers["laa950_percent"] == pytest.approx(100 * 15 / 31)
    # Along the stripes the same, across them the opposite at odd lags.
    assert numbers["autocorrelation_1"] == pytest.approx(0, abs=0.01)
    assert numbers["autocorrelation_2"] == pytest.approx(1, abs=0.01)
    assert set(numbers) == set(NORMAL_LUNG)


def test_measures_do_not_depend_on_the_axis_order(chest, measured):
    turned = MetaTensor(
        torch.from_numpy(np.ascontiguousarray(chest.numpy().transpose(0, 3, 1, 2)[:, ::-1])),
        affine=chest.affine[:, [2, 0, 1, 3]] @ torch.tensor(np.diag([-1.0, 1, 1, 1])),
    )
    turned.affine[:3, 3] = chest.affine[:3, 3] + chest.affine[:3, 2] * (SHAPE[2] - 1)
    again = measure("turned", turned)
    assert (again.shape, again.spacing_mm) == (SHAPE, pytest.approx(SPACING_MM))
    assert again.numbers == pytest.approx(measured.numbers, nan_ok=True)


def test_a_whole_chest_by_formula(measured):
    numbers = measured.numbers
    assert numbers["lung_volume_l"] == pytest.approx(LUNG_LITRES, rel=0.03)
    assert numbers["lung_p50_hu"] == pytest.approx(LUNG_HU + 35, abs=2)
    assert 0.6 * NOISE_HU < numbers["noise_sd_hu"] < NOISE_HU  # of squares of 4 x 4 such pixels, less their trend
    assert numbers["vessels_middle_percent"] > 0.5
    assert (numbers["vessels_basal_percent"], numbers["vessels_apical_percent"]) == (0, 0)
    assert (measured.shape, measured.spacing_mm, measured.side) == (SHAPE, pytest.approx(SPACING_MM), 0)


def test_lungs_of_a_phantom_are_found_as_its_truth_says():
    phantom = thorax(7, SHAPE, SPACING_MM)
    truth_l = float((phantom["lobes"] > 0).sum()) * 5.6 * 5.2 * 7.0 / 1e6
    found = measure("seven", to_hu(MetaTensor(phantom["ct_hu"][None], affine=phantom["affine"])))
    assert found.numbers["lung_volume_l"] == pytest.approx(truth_l, rel=0.1)


@pytest.mark.usefixtures("_toy_phantoms")
def test_a_phantom_has_the_grid_of_the_scan(chest, measured):
    same = phantom_like(measured, 7)
    assert torch.equal(same.as_tensor(), chest.as_tensor())
    assert torch.equal(same.affine, chest.affine)


@pytest.mark.usefixtures("_toy_phantoms")
@pytest.mark.parametrize("side", [1, 2])
def test_one_lung_is_compared_with_half_a_phantom(measured, side):
    half = Measured("half", {}, measured.histogram, (31, *SHAPE[1:]), SPACING_MM, side)
    ct_hu = phantom_like(half, 7)
    assert ct_hu.shape == (1, 31, *SHAPE[1:])
    x_mm = [float(ct_hu.affine[0, 0] * index + ct_hu.affine[0, 3]) for index in (0, 30)]
    assert all(x < 0 for x in x_mm) if side == 1 else all(x > 0 for x in x_mm)  # RAS: left is negative
    found = measure("half", ct_hu)
    assert found.side == side
    assert found.numbers["lung_volume_l"] == pytest.approx(LUNG_LITRES / 2, rel=0.03)


def test_no_lung_is_named():
    water = MetaTensor(torch.zeros(1, 20, 20, 20, dtype=torch.int16), affine=np.diag([-5.0, -5.0, 5.0, 1.0]))
    with pytest.raises(BadInput, match="no lung was found in a jug: expected a chest CT"):
        measure("a jug", water)


def made(name: str, value: float, hu: float) -> Measured:
    return Measured(name, {"a": value}, lung_histogram(np.array([hu])), (1, 1, 1), (1.0, 1.0, 1.0), 0)


def test_compare_by_hand():
    phantoms = [made("phantom", float(value), -900.0 + 10 * value) for value in range(11)]
    scans = [made("in", 5.0, -845.0), made("rim", 9.9, -845.0), made("out", 12.0, -645.0), made("none", np.nan, -845.0)]
    rows = {(row["scan"], row["measure"]): row for row in compare(scans, phantoms)}
    assert [rows[name, "a"]["inside"] for name in ("in", "rim", "out", "none")] == ["yes", "edge", "no", ""]
    of_a = rows["in", "a"]
    assert [of_a[f"phantom_{key}"] for key in ("min", "p5", "p50", "p95", "max")] == [0, 0.5, 5, 9.5, 10]
    # From the middle of eleven histograms 10 HU apart the median distance is 30; from 200 HU beyond it, 200.
    assert rows["in", "histogram_distance_hu"]["real"] == pytest.approx(30)
    assert rows["out", "histogram_distance_hu"]["real"] == pytest.approx(200)
    assert rows["out", "histogram_distance_hu"]["inside"] == "no"


def test_patches_are_held_against_the_published_row():
    chests = [dict.fromkeys(NORMAL_LUNG, value) for value in (-800.0, -900.0)]
    row = compare_patches(chests)[0]
    assert row == {
        "measure": "mean_hu",
        "published": -851.0,
        "phantom_mean": -850.0,
        "difference": 1.0,
        "phantom_min": -900.0,
        "phantom_max": -800.0,
    }


@pytest.mark.usefixtures("_toy_phantoms")
def test_tables_of_a_folder(tmp_path, chest, monkeypatch, caplog):
    monkeypatch.setattr(realism, "PATCH_GRID", ((120, 90, 2), (2.8, 3.0, 3.0)))
    monkeypatch.setattr(realism, "PATCH_PX", 9)
    (tmp_path / "scans").mkdir()
    for name in ("a", "b"):
        nib.save(nib.Nifti1Image(chest.numpy()[0], chest.affine.numpy()), tmp_path / "scans" / f"{name}.nii.gz")
    mask = nib.Nifti1Image(np.ones(SHAPE, dtype=np.uint8), np.eye(4))
    nib.save(mask, tmp_path / "scans" / "mask.nii.gz")
    with caplog.at_level("INFO"):
        path = write_realism(tmp_path / "out", tmp_path / "scans", count=2, seed=7)
    assert any(message.startswith("mask is left out: ") for message in caplog.messages)
    assert [message for message in caplog.messages if message.startswith("a, b: ")] == [
        "a, b: phantom 1 of 2 is measured",
        "a, b: phantom 2 of 2 is measured",
    ]
    assert sorted(file.name for file in path.parent.iterdir()) == ["patches.csv", "realism.csv", "realism.md"]
    with (tmp_path / "out" / "realism.csv").open() as file:
        rows = list(csv.DictReader(file))
    by_scan = [[row["measure"] for row in rows if row["scan"] == name] for name in ("a", "b")]
    assert by_scan[0] == by_scan[1]
    assert len(by_scan[0]) == 17
    assert all(float(row["phantom_min"]) <= float(row["phantom_max"]) for row in rows if row["inside"])
    text = path.read_text()
    assert [line.split(":")[0] for line in text.splitlines() if line.startswith("## ")] == [
        "## a",
        "## b",
        "## Normal lung, patches of 31 x 31 pixels",
    ]
    assert f"| mean_hu | {NORMAL_LUNG['mean_hu']:.3g} |" in text


def test_bad_input_is_named(tmp_path):
    with pytest.raises(BadInput, match="count is 1: expected at least 2 phantoms"):
        write_realism(tmp_path / "out", tmp_path, count=1)
    nib.save(nib.Nifti1Image(np.ones((9, 9, 9), dtype=np.uint8), np.eye(4)), tmp_path / "mask.nii.gz")
    with pytest.raises(BadInput, match=r"no scan in .* could be measured"):
        write_realism(tmp_path / "out", tmp_path, count=2)
    assert not (tmp_path / "out").exists()
