import pytest
import torch
from monai.data import MetaTensor

from pulmozoo.transforms.pattern_numbers import PatternNumbersd, pattern_percents

NAMES = {"0": "background", "1": "healthy", "2": "ground glass", "3": "honeycombing"}
LOBES = {"0": "background", "1": "left upper lobe", "2": "left lower lobe"}


def test_percents_by_hand():  # 5 healthy, 2 and 1 of 8; three voxels are no lung
    labels = torch.tensor([0, 1, 1, 1, 2, 0, 3, 1, 1, 2, 0])
    assert pattern_percents(labels, NAMES) == {
        "healthy_percent": 62.5,
        "ground_glass_percent": 25.0,
        "honeycombing_percent": 12.5,
        "disease_percent": 37.5,
    }


def test_without_lung_there_are_no_percents():
    assert set(pattern_percents(torch.zeros(4, dtype=torch.uint8), NAMES).values()) == {None}


@pytest.fixture
def data():
    labels = torch.zeros(1, 4, 3, 2, dtype=torch.uint8)
    labels[0, :2], labels[0, 2:] = 1, 3  # left and right
    lungs = torch.ones(1, 4, 3, 2, dtype=torch.uint8)
    lungs[0, 2:] = 2
    affine = torch.diag(torch.tensor([2.0, 2.5, 10.0, 1.0], dtype=torch.float64))
    return {"pred": MetaTensor(labels, affine=affine), "lungs": lungs, "result": {"kept": 1}}


def test_each_lung_has_its_own_numbers(data):
    numbers = PatternNumbersd("pred", NAMES, LOBES)(data)["result"]
    assert numbers["kept"] == 1
    assert numbers["lungs_volume_ml"] == pytest.approx(24 * 0.05)
    assert numbers["disease_percent"] == 50
    assert numbers["left_lung_healthy_percent"] == 100
    assert numbers["right_lung_honeycombing_percent"] == 100
    assert not [key for key in numbers if "lobe" in key]


def test_lobes_where_they_are_known(data):
    data["pred"][0, 0] = 2
    lobes = torch.zeros_like(data["lungs"])
    lobes[0, 0], lobes[0, 1] = 1, 2
    numbers = PatternNumbersd("pred", NAMES, LOBES)({**data, "lobes": lobes})["result"]
    assert numbers["left_upper_lobe_ground_glass_percent"] == 100
    assert numbers["left_lower_lobe_disease_percent"] == 0
