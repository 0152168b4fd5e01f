import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage

from pulmozoo.transforms.clean_up import CleanUpLobesd, clean_up_lobes


@pytest.fixture
def lobes() -> np.ndarray:
    """Two lungs of unequal axes: left 1 over 2, right 3 over 5 over 4, a gap of two voxels between them."""
    labels = np.zeros((16, 9, 13), dtype=np.uint8)
    labels[1:7, 1:8, 1:6], labels[1:7, 1:8, 6:12] = 2, 1
    labels[9:15, 1:8, 1:5], labels[9:15, 1:8, 5:8], labels[9:15, 1:8, 8:12] = 4, 5, 3
    return labels


def test_clean_map_stays_and_the_input_too(lobes):
    before = lobes.copy()
    assert np.array_equal(clean_up_lobes(lobes), before)
    assert np.array_equal(lobes, before)


def test_island_of_the_left_lung_in_the_right_lung_becomes_the_right_lungs_label(lobes):
    dirty = lobes.copy()
    dirty[11:13, 3:5, 9:11] = 1
    assert np.array_equal(clean_up_lobes(dirty), lobes)


def test_island_in_the_background_becomes_background(lobes):
    padded = np.pad(lobes, 3)
    dirty = padded.copy()
    dirty[0, 0, 0] = 3
    assert np.array_equal(clean_up_lobes(dirty), padded)


def test_hole_takes_the_majority_of_its_ring(lobes):
    dirty = lobes.copy()
    dirty[11, 4, 6] = 0  # inside label 5
    dirty[3, 4, 5] = 0  # under the fissure: 17 neighbours of label 2, 9 of label 1
    assert np.array_equal(clean_up_lobes(dirty), lobes)


def test_hole_is_closed_by_faces_only(lobes):
    """A hole open only over a corner to the background is filled: the background grows by faces."""
    dirty = lobes.copy()
    dirty[2, 2, 2] = 0  # touches nothing outside by its faces
    dirty[1, 1, 1] = 0  # a corner of the lung, itself background
    cleaned = clean_up_lobes(dirty)
    assert cleaned[2, 2, 2] == 2
    assert cleaned[1, 1, 1] == 0


def test_lobe_island_within_its_lung_takes_the_majority_of_its_ring(lobes):
    dirty = lobes.copy()
    dirty[11, 4, 2] = 3
    assert np.array_equal(clean_up_lobes(dirty), lobes)


def test_tie_goes_to_the_smallest_label():
    labels = np.zeros((1, 1, 9), dtype=np.uint8)
    labels[0, 0] = [3, 3, 4, 4, 4, 3, 5, 5, 5]  # the single 3 has one vote for 4 and one for 5
    assert clean_up_lobes(labels)[0, 0].tolist() == [3, 3, 4, 4, 4, 4, 5, 5, 5]


def test_two_islands_that_touch_end_in_what_surrounds_them(lobes):
    dirty = lobes.copy()
    dirty[11, 4, 2], dirty[12, 4, 2] = 3, 5
    assert np.array_equal(clean_up_lobes(dirty), lobes)


def test_second_pass_changes_nothing(lobes):
    random = np.random.default_rng(0)
    noise = random.integers(0, 6, lobes.shape).astype(np.uint8)
    dirty = np.where(random.random(lobes.shape) < 0.1, noise, lobes)
    once = clean_up_lobes(dirty)
    assert not np.array_equal(once, dirty)
    assert np.array_equal(clean_up_lobes(once), once)


def test_each_lobe_is_one_component_afterwards():
    dirty = np.random.default_rng(1).integers(0, 6, (21, 17, 13)).astype(np.uint8)
    cleaned = clean_up_lobes(dirty)
    assert all(ndimage.label(cleaned == lobe, np.ones((3, 3, 3)))[1] <= 1 for lobe in range(1, 6))


@pytest.mark.parametrize("shape", [(4, 5, 6), (0, 5, 6)], ids=["zeros", "no voxel"])
def test_empty_map_passes(shape):
    assert not clean_up_lobes(np.zeros(shape, dtype=np.uint8)).any()


def test_wrong_rank_and_label_are_named():
    with pytest.raises(ValueError, match=r"\(X, Y, Z\), got \(1, 4, 4, 4\)"):
        clean_up_lobes(np.zeros((1, 4, 4, 4), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"0\.\.5, got 0\.\.9"):
        clean_up_lobes(np.full((2, 2, 2), [0, 9], dtype=np.uint8))
    with pytest.raises(ValueError, match=r"\(1, X, Y, Z\)"):
        CleanUpLobesd("pred")({"pred": torch.zeros(4, 4, 4)})


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_dictionary_form_keeps_type_affine_and_other_keys(lobes, dtype):
    dirty = lobes.copy()
    dirty[11, 4, 2] = 3
    affine = torch.diag(torch.tensor([-1.0, 2.0, 3.0, 1.0], dtype=torch.float64))
    pred = MetaTensor(torch.from_numpy(dirty)[None].to(dtype), affine=affine, meta={"filename_or_obj": "scan.nii.gz"})
    out = CleanUpLobesd("pred")({"pred": pred, "other": 7})
    assert out["other"] == 7
    assert out["pred"].dtype == dtype
    assert torch.equal(out["pred"].affine, affine)
    assert out["pred"].meta["filename_or_obj"] == "scan.nii.gz"
    assert np.array_equal(out["pred"][0].numpy(), lobes)
    assert pred[0, 11, 4, 2] == 3
    plain = CleanUpLobesd("pred")({"pred": torch.from_numpy(dirty)[None]})["pred"]
    assert type(plain) is torch.Tensor
