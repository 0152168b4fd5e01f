import pytest
import torch
from monai.data import MetaTensor

from pulmozoo.bundle.errors import BadInput
from pulmozoo.transforms.lobe_numbers import LobeNumbersd, lobe_numbers

NAMES = {"0": "background", "1": "left upper lobe", "2": "left lower lobe", "5": "right middle lobe"}
CT_HU = torch.tensor([[-960, -801, -700, 3000]], dtype=torch.int16)
LABELS = torch.tensor([[1, 1, 2, 0]], dtype=torch.uint8)


def test_numbers_by_hand():  # voxels of 0.25 mL; -1761 / 2 and -2461 / 3
    dense = {"laa950_percent": 0.0, "laa910_percent": 0.0}
    empty = dict.fromkeys(["mean_hu", "laa950_percent", "laa910_percent", "perc15_hu"])
    wanted = {
        "left_upper_lobe": {"volume_ml": 0.5, "mean_hu": -880.5, "laa950_percent": 50.0, "laa910_percent": 50.0}
        | {"perc15_hu": -960},
        "left_lower_lobe": {"volume_ml": 0.25, "mean_hu": -700.0, **dense, "perc15_hu": -700},
        "right_middle_lobe": {"volume_ml": 0.0, **empty},
        "lungs": {"volume_ml": 0.75, "mean_hu": -820.33, "laa950_percent": 33.333, "laa910_percent": 33.333}
        | {"perc15_hu": -960},
    }
    assert lobe_numbers(CT_HU, LABELS, 0.25, NAMES) == {
        f"{part}_{key}": value for part, numbers in wanted.items() for key, value in numbers.items()
    }


def test_label_without_a_name_is_left_out():
    numbers = lobe_numbers(CT_HU, torch.tensor([[1, 3, 9, 0]]), 1.0, NAMES)
    assert numbers["lungs_volume_ml"] == 1.0
    assert numbers["lungs_mean_hu"] == -960.0


def test_no_lobe_at_all_has_no_mean():
    numbers = lobe_numbers(CT_HU, torch.zeros_like(LABELS), 1.0, NAMES)
    assert (numbers["lungs_volume_ml"], numbers["lungs_mean_hu"]) == (0.0, None)


def test_large_lungs_do_not_overflow():
    ct_hu, labels = torch.full((100, 100, 100), -1000, dtype=torch.int16), torch.ones(100, 100, 100, dtype=torch.uint8)
    assert lobe_numbers(ct_hu, labels, 0.001, NAMES)["lungs_mean_hu"] == -1000.0


@pytest.fixture
def data() -> dict:
    """A scan with voxels of 1 x 2 x 5 mm and two lobes."""
    affine = torch.diag(torch.tensor([-1.0, 2.0, 5.0, 1.0]))
    labels = torch.zeros(1, 4, 5, 6, dtype=torch.uint8)
    labels[:, :2, :5, :5], labels[:, 2:, :, 0] = 1, 2
    ct_hu = torch.full((1, 4, 5, 6), -800, dtype=torch.int16)
    return {"pred": MetaTensor(labels, affine=affine), "ct_hu": MetaTensor(ct_hu, affine=affine), "scan": "a"}


def test_dictionary_form_takes_the_voxel_from_the_affine(data):
    data["result"] = {"seconds": 3}
    out = LobeNumbersd("pred", "ct_hu", NAMES)(data)
    assert out["result"]["seconds"] == 3
    assert out["result"]["left_upper_lobe_volume_ml"] == 0.5  # 50 voxels of 10 mm3
    assert out["result"]["left_lower_lobe_volume_ml"] == 0.1
    assert out["result"]["lungs_mean_hu"] == -800.0
    assert out["scan"] == "a"
    assert data["result"] == {"seconds": 3}


def test_scan_without_lobes_is_no_chest_ct(data):
    data["pred"] = data["pred"] * 0
    with pytest.raises(BadInput, match="no lungs in view: expected a chest CT, but the network found no lobe"):
        LobeNumbersd("pred", "ct_hu", NAMES)(data)
