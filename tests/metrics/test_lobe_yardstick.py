import csv
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from conftest import write_nifti
from pulmozoo.bundle.errors import BadInput
from pulmozoo.metrics import lobe_yardstick
from pulmozoo.metrics.lobe_yardstick import (
    classical_lungs,
    lobes_agree,
    mask_dice,
    prior_in,
    scan_numbers,
    share_near,
    write_yardstick,
)
from toy_chest import LUNG_HU, toy_chest

GRID = (116, 80, 72), (3.0, 3.0, 3.0)


@pytest.fixture(scope="module")
def chest() -> dict[str, torch.Tensor]:
    return toy_chest(0, *GRID)


def save(path: Path, values: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_nifti(path, values, affine)


@pytest.fixture
def scans(chest, tmp_path) -> Path:
    """Two scans of one chest, and a block of water."""
    ct, affine = chest["ct_hu"].numpy(), chest["affine"].numpy()
    save(tmp_path / "scans" / "a.nii.gz", ct, affine)
    save(tmp_path / "scans" / "b.nii.gz", ct, affine)
    water = np.where(np.arange(10) < 5, -1000, 0).astype(np.int16) * np.ones((10, 10, 10), dtype=np.int16)
    save(tmp_path / "scans" / "water.nii.gz", water, np.eye(4))
    return tmp_path / "scans"


@pytest.fixture
def results(chest, tmp_path) -> dict[str, Path]:
    """Lobes as the bundle leaves them; of b the right middle lobe is missed; the flipped scan gave the same."""
    lobes, affine = chest["lobes"].numpy(), chest["affine"].numpy()
    missed = np.where(lobes == 5, 4, lobes)
    flip = np.diag([-1.0, -1, -1, 1])
    flip[:3, 3] = np.array(lobes.shape) - 1
    for change, map_a, matrix in (("as_is", lobes, affine), ("flipped", lobes[::-1, ::-1, ::-1], affine @ flip)):
        for scan, labels in (("a", map_a), ("b", missed if change == "as_is" else map_a)):
            save(tmp_path / change / scan / f"{scan}_seg.nii.gz", labels, matrix)
    (tmp_path / "as_is" / "a" / "results.json").write_text('{"weights": {"sha256": "abc"}}')
    save(tmp_path / "as_is" / "water.nii.gz", np.zeros((10, 10, 10), dtype=np.uint8), np.eye(4))
    save(tmp_path / "flipped" / "water.nii.gz", np.zeros((10, 10, 10), dtype=np.uint8), np.eye(4))
    return {"as_is": tmp_path / "as_is", "flipped": tmp_path / "flipped"}


def labels(chest: dict[str, torch.Tensor]) -> MetaTensor:
    return MetaTensor(chest["lobes"][None], affine=chest["affine"])


def numbers_of(ct_hu: MetaTensor, lobes: MetaTensor) -> dict[str, Any]:
    lungs = classical_lungs(ct_hu)
    return scan_numbers(ct_hu, lobes, lungs, prior_in(lungs, ct_hu.affine.numpy()))


def test_dice_by_hand():
    one, other = np.array([1, 1, 1, 2, 0]), np.array([1, 1, 3, 2, 0])
    assert mask_dice(one > 0, other > 0) == 1
    assert mask_dice(one == 1, other == 1) == 0.8
    assert mask_dice(one == 5, other == 5) == 1  # neither has it
    assert lobes_agree(one, other) == {"mean_dice": pytest.approx((0.8 + 1 + 0 + 1 + 1) / 5), "least_dice": 0}


def test_share_near_a_sheet_by_hand():
    """Voxels of 1.5 mm: two of them on each side lie within 3 mm."""
    sheets, row = np.zeros((1, 1, 10), dtype=bool), np.ones((1, 1, 10), dtype=bool)
    assert share_near(sheets, row, 1.5) == 0
    sheets[..., 4] = True
    assert share_near(sheets, row, 1.5) == 50
    assert share_near(sheets, ~row, 1.5) is None


def test_true_borders_lie_at_sheets_and_the_prior_does_not(chest):
    """The toy's borders are painted as fissures of 1 mm; the prior's planes lie elsewhere."""
    lobes, ct = chest["lobes"].numpy(), chest["ct_hu"].float().numpy()
    for axis in range(3):
        along = np.moveaxis(lobes, axis, 0)
        met = (along[:-1] != along[1:]) & (along[:-1] > 0) & (along[1:] > 0)
        np.moveaxis(ct, axis, 0)[:-1][met] = LUNG_HU + 250
    numbers = numbers_of(MetaTensor(torch.from_numpy(ct)[None].short(), affine=chest["affine"]), labels(chest))
    assert numbers["lungs_dice"] > 0.97
    assert numbers["fissures_measurable"]
    assert numbers["lobes_all_at_sheets_percent"] > 80
    assert numbers["prior_all_at_sheets_percent"] < 50
    assert numbers["chance_at_sheets_percent"] < 25


def test_nothing_is_said_of_fissures_in_thick_slices(chest):
    thick = MetaTensor(
        chest["ct_hu"][None, :, :, ::2], affine=chest["affine"] @ torch.diag(torch.tensor([1.0, 1, 2, 1])).double()
    )
    lobes = MetaTensor(chest["lobes"][None, :, :, ::2], affine=thick.affine)
    numbers = numbers_of(thick, lobes)
    assert (numbers["slice_mm"], numbers["fissures_measurable"]) == (pytest.approx(6.0), False)
    assert not [name for name in numbers if "sheets" in name]
    assert numbers["missing_neighbours"] == numbers["wrong_neighbours"] == ""


def test_prior_of_a_turned_scan_lies_in_the_same_places(chest):
    """However the voxels are stored, and 10 degrees off the patient's axes, which the prior takes as the closest."""
    lungs, affine = (
        (chest["lobes"].numpy() > 0) + (chest["lobes"].numpy() > 2).astype(np.uint8),
        chest["affine"].numpy(),
    )
    expected = prior_in(lungs, affine)
    angle = np.deg2rad(10)
    tilt = np.eye(4)
    tilt[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    orientation = nib.orientations.axcodes2ornt("SPL")
    turned = np.ascontiguousarray(nib.orientations.apply_orientation(lungs, orientation))
    stored = tilt @ affine @ nib.orientations.inv_ornt_aff(orientation, lungs.shape)
    assert np.array_equal(prior_in(turned, stored), nib.orientations.apply_orientation(expected, orientation))
    assert set(np.unique(expected)) == {0, 1, 2, 3, 4, 5}


def test_table_of_scans_with_a_pair_a_change_and_a_failure(scans, results, tmp_path, monkeypatch):
    monkeypatch.setattr(lobe_yardstick, "THICKEST_MM", 2.0)
    rows = write_yardstick(tmp_path / "out", scans, results, ("a", "b"))
    a, b, water = rows
    assert [row["status"] for row in rows] == ["done", "done", "failed"]
    assert "no lung" in water["reason"]
    assert (a["weights_sha256"], b["weights_sha256"]) == ("abc", "")
    assert a["flipped_least_dice"] == 1
    assert a["pair_mean_dice"] == b["pair_mean_dice"] < 1
    assert (a["pair_least_dice"], b["flipped_least_dice"]) == (0, 0)  # of b the right middle lobe is missing
    assert (a["connected_lobes"], b["connected_lobes"]) == (5, 4)
    assert b["missing_neighbours"] == "rul-rml rll-rml"
    assert json.loads((tmp_path / "out" / "yardstick.json").read_text()) == rows
    with (tmp_path / "out" / "yardstick.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["scan"] for row in table] == ["a", "b", "water"]
    assert [*table[0]][-2:] == ["status", "reason"]
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["a.png", "b.png"]
    assert np.ptp(np.asarray(Image.open(tmp_path / "out" / "a.png")), axis=-1).max() > 0  # lobes in colour


def test_lobes_of_other_numbers_are_refused(chest):
    other = labels(chest)
    with pytest.raises(BadInput, match="a label 14: expected 1 to 5"):
        numbers_of(MetaTensor(chest["ct_hu"][None], affine=chest["affine"]), other.where(other != 5, 14))


def test_what_cannot_be_measured_leaves_no_table(scans, results, tmp_path):
    with pytest.raises(BadInput, match=r"two by two.*\('a',\)"):
        write_yardstick(tmp_path / "out", scans, results, ("a",))
    with pytest.raises(BadInput, match=r"no scan .* could be measured.*no mask of a"):
        write_yardstick(tmp_path / "out", scans, {"as_is": tmp_path / "none"})
    assert not (tmp_path / "out").exists()
