import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from pulmozoo.bundle.errors import BadInput
from pulmozoo.transforms.lobe_opacity import LobeOpacityd, opacity_numbers, severity_score

NAMES = {"0": "background", "1": "left upper lobe", "2": "left lower lobe", "5": "right middle lobe"}


@pytest.mark.parametrize(
    ("percent", "score"),
    [(0, 0), (0.1, 1), (4.9, 1), (5, 2), (25, 2), (25.1, 3), (49, 3), (50, 4), (75, 4), (75.1, 5), (100, 5)],
)
def test_score_by_the_published_limits(percent, score):
    assert severity_score(percent) == score


def test_numbers_by_hand():
    labels = torch.tensor([1, 1, 1, 1, 2, 2, 0, 0], dtype=torch.uint8)
    opaque = torch.tensor([1, 0, 0, 0, 1, 1, 1, 0], dtype=torch.bool)
    assert opacity_numbers(opaque, labels, NAMES) == {
        "left_upper_lobe_opacity_percent": 25.0,
        "left_upper_lobe_severity_score": 2,
        "left_lower_lobe_opacity_percent": 100.0,
        "left_lower_lobe_severity_score": 5,
        "right_middle_lobe_opacity_percent": None,
        "right_middle_lobe_severity_score": None,
        "ct_severity_score": 7,
    }


@pytest.fixture
def data() -> dict:
    labels = torch.zeros(1, 8, 9, 10, dtype=torch.uint8)
    labels[:, :2] = 1
    ct_hu = MetaTensor(torch.zeros(1, 8, 9, 10, dtype=torch.int16), affine=torch.diag(torch.tensor([-1.0, -1, 2, 1])))
    return {"pred": MetaTensor(labels, affine=ct_hu.affine), "ct_hu": ct_hu, "scan": "a"}


@pytest.mark.parametrize(("classes", "percent"), [([1], 50.0), ([2], 50.0), ([1, 2], 100.0), ([4], 0.0)])
def test_dictionary_form_reads_the_file_of_the_scan_in_its_own_axes(data, tmp_path, classes, percent):
    values = np.zeros((8, 9, 10), dtype=np.uint8)
    values[7], values[6] = 1, 2  # stored from left to right: the CT's first and second column
    affine = np.diag([1.0, -1, 2, 1])
    affine[0, 3] = -7
    nib.save(nib.Nifti1Image(values, affine), tmp_path / "a.nii.gz")
    out = LobeOpacityd("pred", "ct_hu", NAMES, tmp_path, classes)({**data, "result": {"seconds": 1}})
    assert out["result"]["left_upper_lobe_opacity_percent"] == percent
    assert out["result"]["seconds"] == 1


def test_scan_without_a_file_says_where_it_was_looked_for(data, tmp_path):
    with pytest.raises(BadInput, match="has no mask of a: expected a file, or a folder with"):
        LobeOpacityd("pred", "ct_hu", NAMES, tmp_path, [1])(data)
