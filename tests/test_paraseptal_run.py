"""The paraseptal bundle from scan to files; its network is small and untrained, so only what surrounds it is held."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from conftest import REPOSITORY, run_inference, write_nifti
from pulmozoo.cli import bundle_folder
from pulmozoo.phantom import thorax
from pulmozoo.transforms.lungs import lungs_from_ct

SHELF = REPOSITORY.parent / "shared" / "data"
NORMAL_SCANS = ["lung-pet-ct-dx-a0001/ct_kernel_B"]


@pytest.fixture(scope="module")
def small(small_copy_of) -> Path:
    folder: Path = small_copy_of(bundle_folder("paraseptal"))
    return folder


@pytest.fixture(scope="module")
def done(small, chest_ct, tmp_path_factory) -> Path:
    """The output folder of one scan, in which about half of the lungs is lesion; for reading only."""
    output_dir: Path = tmp_path_factory.mktemp("done")
    assert run_inference(small, chest_ct, output_dir, threshold=halfway(small, chest_ct, output_dir)).code == 0
    return output_dir


def halfway(small: Path, scan: Path, folder: Path) -> float:
    """A threshold at which an untrained network finds some lesion, but not everything."""
    for threshold in np.linspace(0.3, 0.7, 41):
        outcome = run_inference(small, scan, folder / "tried", threshold=float(threshold), overwrite=True)
        assert outcome.code == 0, outcome.said
        if numbers_of(folder / "tried", "chest")["paraseptal_percent"] < 60:
            return float(threshold)
    raise AssertionError("no threshold parts the lungs")


def numbers_of(output_dir: Path, scan: str) -> dict[str, Any]:
    results = json.loads((output_dir / scan / "results.json").read_text(encoding="utf-8"))
    numbers: dict[str, Any] = results["numbers"]
    return numbers


def threshold_of(output_dir: Path) -> float:
    return float(json.loads((output_dir / "chest" / "results.json").read_text())["threshold"])


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nib.as_closest_canonical(nib.Nifti1Image.from_filename(path)).dataobj)


def test_the_lesion_lies_in_the_lungs_on_the_grid_of_the_scan(done, chest_ct):
    scan = nib.Nifti1Image.from_filename(chest_ct)
    labels = nib.Nifti1Image.from_filename(done / "chest" / "chest_seg.nii.gz")
    assert labels.shape == scan.shape
    assert np.array_equal(labels.affine, scan.affine)
    lesion = np.asarray(labels.dataobj)
    lungs = lungs_from_ct(np.asarray(scan.dataobj), scan.affine)
    assert set(np.unique(lesion)) == {0, 1}
    assert not lesion[lungs == 0].any()
    numbers = numbers_of(done, "chest")
    assert numbers["paraseptal_percent"] == pytest.approx(100 * lesion.sum() / (lungs > 0).sum(), abs=0.01)
    assert numbers["areas_cm2"] == pytest.approx((lesion.sum(axis=(0, 1)) * 0.6).tolist(), abs=1e-3)
    assert (done / "chest" / "overlay.png").stat().st_size > 1000


@pytest.mark.parametrize("axcodes", ["SLP", "PSR"], ids=["stored sagittally", "stored coronally"])
def test_turned_axes_give_the_same_lesion(small, done, chest_ct, tmp_path, axcodes):
    scan = nib.Nifti1Image.from_filename(chest_ct)
    own = nib.orientations.io_orientation(scan.affine)
    turned = scan.as_reoriented(nib.orientations.ornt_transform(own, nib.orientations.axcodes2ornt(axcodes)))
    nib.save(turned, tmp_path / "turned.nii.gz")
    outcome = run_inference(small, tmp_path / "turned.nii.gz", tmp_path / "OUT", threshold=threshold_of(done))
    assert outcome.code == 0, outcome.said
    one, other = voxels(tmp_path / "OUT" / "turned" / "turned_seg.nii.gz"), voxels(done / "chest" / "chest_seg.nii.gz")
    assert (one != other).mean() < 1e-3


def test_lobes_that_are_given_have_numbers_of_their_own(small, done, chest_ct, tmp_path):
    phantom = thorax(seed=1, shape=(44, 36, 40), spacing_mm=(8.0, 7.5, 7.0))  # the chest of the fixture
    lobes = phantom["lobes"].numpy()
    write_nifti(tmp_path / "lobes.nii.gz", lobes, phantom["affine"].numpy())
    outcome = run_inference(
        small, chest_ct, tmp_path / "OUT", lobe_labels=str(tmp_path / "lobes.nii.gz"), threshold=threshold_of(done)
    )
    assert outcome.code == 0, outcome.said
    numbers = numbers_of(tmp_path / "OUT", "chest")
    assert numbers["lungs_volume_ml"] == pytest.approx((lobes > 0).sum() * 0.42, abs=0.01)
    parts = [numbers[f"{lobe}_paraseptal_volume_ml"] for lobe in lobe_names()]
    assert sum(parts) == pytest.approx(numbers["paraseptal_volume_ml"], abs=0.01)


def lobe_names() -> list[str]:
    return ["left_upper_lobe", "left_lower_lobe", "right_upper_lobe", "right_lower_lobe", "right_middle_lobe"]


def test_an_empty_lung_mask_is_told(small, chest_ct, tmp_path):
    scan = nib.Nifti1Image.from_filename(chest_ct)
    write_nifti(tmp_path / "empty.nii.gz", np.zeros(scan.shape, np.uint8), scan.affine)
    outcome = run_inference(small, chest_ct, tmp_path / "OUT", lung_masks=str(tmp_path / "empty.nii.gz"))
    assert outcome.code == 1
    assert "the lung mask is empty: expected the lungs of this CT" in outcome.said


def test_eight_slices_are_enough_and_seven_are_not(small, chest_ct, tmp_path):
    scan = nib.Nifti1Image.from_filename(chest_ct)
    values = np.asarray(scan.dataobj)
    write_nifti(tmp_path / "eight.nii.gz", values[:, :, 16:24], scan.affine)
    write_nifti(tmp_path / "seven.nii.gz", values[:, :, 16:23], scan.affine)
    assert run_inference(small, tmp_path / "eight.nii.gz", tmp_path / "OUT").code == 0
    outcome = run_inference(small, tmp_path / "seven.nii.gz", tmp_path / "OUT")
    assert outcome.code == 1
    assert "44 x 36 x 7 voxels: expected at least 8 along each axis" in outcome.said
    assert not (tmp_path / "OUT" / "seven").exists()


@pytest.mark.skipif(not SHELF.is_dir(), reason=f"the shelf with real scans is not there ({SHELF})")
@pytest.mark.parametrize("scan", NORMAL_SCANS)
def test_a_normal_lung_has_next_to_no_paraseptal_emphysema(scan, tmp_path):
    assert run_inference(bundle_folder("paraseptal"), SHELF / f"{scan}.nii.gz", tmp_path).code == 0
    assert numbers_of(tmp_path, scan.split("/")[1])["paraseptal_percent"] < 1.0
