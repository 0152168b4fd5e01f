import numpy as np
import torch
from monai.data import MetaTensor

from pulmozoo.transforms.laa_by_depth import LaaByDepthd, laa_by_depth

SHAPE, SPACING_MM = (16, 14, 12), (2.0, 3.0, 4.0)


def block() -> np.ndarray:
    """One lung, a block with two voxels of body around it."""
    lungs = np.zeros(SHAPE, dtype=np.uint8)
    lungs[2:-2, 2:-2, 2:-2] = 1
    return lungs


def test_the_rim_is_measured_in_mm():
    """Along x the third voxel of lung is 6 mm deep, along z the second 8 mm: a rim of 7 mm holds 3 and 1 of them."""
    found = laa_by_depth(np.full(SHAPE, -980.0), block(), np.array(SPACING_MM), rim_mm=7.0, limit_hu=-950.0)
    middle = [size // 2 for size in SHAPE]
    assert found[2:8, middle[1], middle[2]].tolist() == [2, 2, 2, 1, 1, 1]
    assert found[middle[0], middle[1], 2:6].tolist() == [2, 1, 1, 1]
    assert not found[:2].any()


def test_only_dark_lung_counts():
    ct_hu = np.full(SHAPE, -900.0)
    ct_hu[3, 7, 6] = -951
    ct_hu[8, 7, 6] = -950
    found = laa_by_depth(ct_hu, block(), np.array(SPACING_MM), rim_mm=7.0, limit_hu=-950.0)
    assert np.argwhere(found).tolist() == [[3, 7, 6]]


def test_percents_and_scores():
    """A tenth of the lung, deep inside, is low: 10 % are grade 3 of centrilobular and 0 of paraseptal emphysema."""
    lungs = block()
    affine = torch.diag(torch.tensor([*SPACING_MM, 1.0], dtype=torch.float64))
    ct = MetaTensor(torch.full((1, *SHAPE), -900, dtype=torch.int16), affine=affine)
    ct[0, 7:9, 6:8, 2:-2] = -1000
    sample = {"ct_hu": ct, "lungs": MetaTensor(torch.from_numpy(lungs)[None], affine=affine)}
    made = LaaByDepthd(rim_mm=3.0)(sample)
    share = 2 * 2 * 8 / lungs.sum()
    deep = 2 * 2 * 8 / lungs.sum()
    assert made["pred"].shape == (1, *SHAPE)
    assert torch.equal(made["pred"].affine, affine)
    assert made["result"]["cle_percent"] + made["result"]["pse_percent"] == round(100 * (share + deep) / 2, 3)
    assert made["result"]["pse_score"] == 0
