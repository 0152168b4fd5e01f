import pytest
import torch
from monai.data import MetaTensor

from pulmozoo.transforms.stacks import AllStacksd, AsStackd, RandStacksd

DEPTH, HEIGHT, WIDTH = 12, 30, 41


@pytest.fixture
def scan() -> dict[str, object]:
    """Each voxel tells its slice and its column; the lesion is one pixel on slice 5 and nothing on slice 9."""
    image = torch.arange(DEPTH)[:, None, None] + torch.arange(WIDTH) / 100 + torch.zeros(HEIGHT, 1)
    label = torch.zeros(1, 2, HEIGHT, WIDTH, dtype=torch.bool)
    label[0, 0, 20, 33] = True
    affine = torch.diag(torch.tensor([3.0, 2.0, 1.5, 1.0], dtype=torch.float64))
    return {
        "image": MetaTensor(image[None].float(), affine=affine, meta={"filename_or_obj": "chest.nii.gz"}),
        "lung": torch.ones(1, DEPTH, HEIGHT, WIDTH, dtype=torch.bool),
        "label": label,
        "targets": [5, 9],
    }


@pytest.mark.parametrize("steps", [(1,), (2,)])
def test_patches_hold_the_lesion_with_its_context(scan, steps):
    draw = RandStacksd(depth=8, patch_px=16, count=2, steps=steps, on_lesion=1.0)
    draw.set_random_state(0)
    for _ in range(5):
        samples = draw(scan)
        assert len(samples) == 2
        for sample in samples:
            assert sample["image"].shape == (8, 16, 16)
            assert sample["label"].shape == (1, 16, 16)
            target = int(sample["image"][4, 0, 0])
            expected = [min(max(target + (k - 4) * steps[0], 0), DEPTH - 1) for k in range(8)]
            assert sample["image"][:, 0, 0].int().tolist() == expected
            assert sample["label"].sum() == (1 if target == 5 else 0)
            if target == 5:
                at = sample["image"][4] - 5
                assert at[sample["label"][0] > 0].item() == pytest.approx(0.33, abs=1e-5)


def test_patches_beyond_the_slice_are_filled_up(scan):
    draw = RandStacksd(depth=1, patch_px=36, count=3)
    draw.set_random_state(0)
    sample = draw(scan)[0]
    assert sample["image"].shape == (1, 36, 36)
    assert (sample["image"][:, HEIGHT:] == 0).all()
    assert (sample["image"][:, :HEIGHT] > 0).all()


def test_patches_lie_anywhere_on_the_lung(scan):
    scan["lung"][...] = False
    scan["lung"][0, :, 3, 4] = True
    draw = RandStacksd(depth=1, patch_px=8, count=2, on_lesion=0.0)
    draw.set_random_state(1)
    columns = [round(100 * (sample["image"][0, 0, 0].item() % 1)) for _ in range(8) for sample in draw(scan)]
    assert max(columns) <= 4
    assert len(set(columns)) > 1
    scan["lung"][...] = False
    assert draw(scan)[0]["image"].shape == (1, 8, 8)


def test_the_same_seed_draws_the_same(scan):
    first, second = (RandStacksd(depth=8, patch_px=16, count=2, steps=(1, 2)) for _ in range(2))
    first.set_random_state(3)
    second.set_random_state(3)
    assert all(torch.equal(one["image"], other["image"]) for one, other in zip(first(scan), second(scan), strict=True))


def test_a_sample_becomes_a_stack():
    stack = AsStackd()({"image": MetaTensor(torch.zeros(8, 16, 24)), "label": torch.zeros(1, 16, 24), "more": 1})
    assert set(stack) == {"image", "label"}
    assert (stack["image"].shape, stack["label"].shape) == ((1, 8, 16, 24), (1, 1, 16, 24))
    assert type(stack["image"]) is torch.Tensor


def test_all_annotated_slices_of_a_scan(scan):
    first, second = AllStacksd(depth=8, multiple=16)(scan)
    assert first["image"].shape == (1, 8, 32, 48)
    assert first["label"].shape == first["lung"].shape == (1, 1, 32, 48)
    assert first["image"][0, :, 0, 0].int().tolist() == list(range(1, 9))
    assert second["image"][0, :, 0, 0].int().tolist() == [5, 6, 7, 8, 9, 10, 11, 11]
    assert (first["label"].sum(), second["label"].sum()) == (1, 0)
    assert first["lung"].sum() == HEIGHT * WIDTH
    assert (first["slice"], second["slice"]) == (5, 9)
    assert first["pixel_cm2"] == pytest.approx(2.0 * 1.5 / 100)
    assert first["image"].meta["filename_or_obj"] == "chest.nii.gz"
