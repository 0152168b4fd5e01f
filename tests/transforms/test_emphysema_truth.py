from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader, MetaTensor

from pulmozoo.bundle.errors import BadInput
from pulmozoo.losses.dram import DRAMLoss
from pulmozoo.transforms.emphysema_grid import EmphysemaGridd
from pulmozoo.transforms.emphysema_truth import EmphysemaTruthd, PaintedOnGridd, loss_batch

SHAPE = (20, 10, 10)
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


@pytest.fixture
def sample() -> dict:
    """A scan whose lungs are 1000 of its 2000 voxels."""
    ct = MetaTensor(torch.full((1, *SHAPE), -850.0), affine=torch.from_numpy(AFFINE), meta={"filename_or_obj": "a.nii"})
    lungs = torch.zeros(1, *SHAPE, dtype=torch.uint8)
    lungs[:, :10] = 1
    return {"ct_hu": ct, "lungs": MetaTensor(lungs, affine=ct.affine), "image": ct}


def save(path: Path, **boxes: int) -> str:
    """A label volume: ``x`` slices of 100 voxels each, by label."""
    volume, start = np.zeros(SHAPE, dtype=np.uint8), 0
    for label, slices in boxes.items():
        volume[start : start + slices] = int(label[1:])
        start += slices
    nib.save(nib.Nifti1Image(volume, AFFINE), path)
    return str(path)


def test_a_label_map_gives_the_scores(sample, tmp_path):
    """200 of 1000 voxels of lung are 20 %, grade 4; 100 are 10 %, grade 2."""
    made = EmphysemaTruthd()({**sample, "label": save(tmp_path / "label.nii.gz", _1=2, _2=1)})
    assert (made["cle_score"], made["pse_score"]) == (4, 2)
    assert made["label"].shape == (1, *SHAPE)


def test_what_is_painted_outside_the_lungs_does_not_count(sample, tmp_path):
    made = EmphysemaTruthd()({**sample, "label": save(tmp_path / "label.nii.gz", _0=9, _1=5)})
    assert made["cle_score"] == 3  # one slice of ten


def test_masks_of_both_subtypes_become_one_map(sample, tmp_path):
    masks = {
        "centrilobular": save(tmp_path / "c.nii.gz", _1=3),
        "paraseptal": save(tmp_path / "p.nii.gz", _0=3, _1=2),
    }
    made = EmphysemaTruthd()({**sample, **masks})
    assert [int((made["label"] == label).sum()) for label in (1, 2)] == [300, 200]
    assert (made["cle_score"], made["pse_score"]) == (5, 2)


def test_scores_of_readers_stay(sample, tmp_path):
    label = save(tmp_path / "label.nii.gz", _1=2)
    made = EmphysemaTruthd()({**sample, "label": label, "cle_score": 1, "pse_score": 1})
    assert (made["cle_score"], made["pse_score"]) == (1, 1)
    alone = EmphysemaTruthd()({**sample, "cle_score": 1, "pse_score": 0})
    assert "label" not in alone


def test_a_map_with_other_labels(sample, tmp_path):
    with pytest.raises(BadInput, match="the label map holds 5: expected 0, 1 centrilobular and 2 paraseptal"):
        EmphysemaTruthd()({**sample, "label": save(tmp_path / "lobes.nii.gz", _5=2)})


def test_no_truth_at_all(sample):
    with pytest.raises(BadInput, match=r"a.nii has neither cle_score nor a label map: give one"):
        EmphysemaTruthd()(sample)


@pytest.mark.parametrize("released", [False, True], ids=["paper", "released"])
def test_what_is_painted_is_on_the_grid_of_the_input(sample, tmp_path, released):
    """The label equals the lungs: so it does on the working grid, where 255 would be unknown."""
    truth = EmphysemaTruthd()({**sample, "label": save(tmp_path / "label.nii.gz", _1=4, _2=6)})
    truth["lungs"][:, :4] = 2  # a box of one side, to be told from the other
    grid = EmphysemaGridd(released=released, shape=(8, 16, 24))(truth)
    painted = PaintedOnGridd(released=released)(grid)["painted"]
    assert painted.dtype == torch.uint8
    assert torch.equal(painted == 1, grid["lung"] == 2)
    assert torch.equal(painted == 2, grid["lung"] == 1)
    assert torch.equal(painted.affine, grid["image"].affine)


def test_where_nobody_painted(sample):
    grid = EmphysemaGridd(shape=(8, 16, 24))({**sample, "cle_score": 1, "pse_score": 0})
    painted = PaintedOnGridd()(EmphysemaTruthd()(grid))["painted"]
    assert painted.shape == (1, 8, 16, 24)
    assert (painted == 255).all()


def test_a_batch_is_what_the_loss_takes():
    items = [
        {
            "image": MetaTensor(torch.zeros(1, 8, 8, 8)),
            "image_hu": MetaTensor(torch.full((1, 8, 8, 8), -900.0)),
            "lung": MetaTensor(torch.ones(1, 8, 8, 8, dtype=torch.uint8)),
            "painted": MetaTensor(torch.full((1, 8, 8, 8), 255, dtype=torch.uint8)),
            "cle_score": score,
            "pse_score": 0,
        }
        for score in (0, 3)
    ]
    (batch,) = DataLoader(items, batch_size=2)
    image, truth = loss_batch(batch, "cpu")
    assert image.shape == (2, 1, 8, 8, 8)
    assert truth["cle_score"].tolist() == [0, 3]
    assert truth["painted"].shape == truth["lung"].shape
    assert DRAMLoss()(torch.zeros(2, 2, 4, 4, 4), truth).isfinite()
