import json

import pytest
import torch
from monai.data import MetaTensor

from pulmozoo.bundle.errors import BadInput
from pulmozoo.transforms.emphysema_numbers import (
    EmphysemaGradesd,
    EmphysemaNumbersd,
    gated_maps,
    grade_numbers,
    map_percents,
    means_by_label,
    noise_numbers,
)

LOBES = {"0": "background", "1": "left upper lobe", "3": "right upper lobe"}
AFFINE = torch.diag(torch.tensor([-1.0, 2.0, 5.0, 1.0]))  # voxels of 10 mm3


@pytest.fixture
def data() -> dict:
    """A scan of 8 x 6 x 4 voxels, already on a working grid of 4 x 6 x 8: left lung at low x, right at high x.

    CLE is 0.2 on the left and 0.06 on the right, PSE 0.02 everywhere; the left lung is dark.
    """
    lungs = torch.zeros(1, 8, 6, 4, dtype=torch.uint8)
    lungs[:, :4], lungs[:, 4:] = 1, 2
    lobes = torch.zeros_like(lungs)
    lobes[:, :4, 2:], lobes[:, 4:, :4] = 1, 3
    ct_hu = torch.where(lungs == 1, -960, -850).to(torch.int16)
    maps = torch.full((2, 2, 3, 4), 0.02)
    maps[0, :, :, :2], maps[0, :, :, 2:] = 0.2, 0.06
    turned = {"lung": lungs, "lobe": lobes, "image_hu": ct_hu.float()}
    return {
        "pred": MetaTensor(maps.logit(), affine=AFFINE),
        "ct_hu": MetaTensor(ct_hu, affine=AFFINE),
        "lungs": MetaTensor(lungs, affine=AFFINE),
        "lobes": MetaTensor(lobes, affine=AFFINE),
        **{key: MetaTensor(volume.permute(0, 3, 2, 1), affine=AFFINE) for key, volume in turned.items()},
        "result": {"seconds": 3},
    }


def test_numbers_by_hand(data):
    result = EmphysemaNumbersd(lobe_names=LOBES)(data)["result"]
    assert result["seconds"] == 3
    assert (result["cle_percent"], result["pse_percent"]) == (13.0, 2.0)
    assert (result["left_lung_cle_percent"], result["right_lung_cle_percent"]) == (20.0, 6.0)
    assert (result["left_upper_lobe_cle_percent"], result["right_upper_lobe_pse_percent"]) == (20.0, 2.0)
    assert (result["cle_score"], result["cle_grade"]) == (3, "moderate")
    assert (result["pse_score"], result["pse_grade"]) == (1, "mild")
    # Only the left lung is darker than -910 HU.
    assert (result["pse_gated_percent"], result["left_lung_pse_gated_percent"]) == (1.0, 2.0)
    assert (result["right_lung_pse_gated_percent"], result["right_upper_lobe_cle_gated_percent"]) == (0.0, 0.0)
    assert (result["lungs_volume_ml"], result["left_lung_volume_ml"], result["left_upper_lobe_volume_ml"]) == (
        1.92,
        0.96,
        0.64,
    )
    assert (result["lungs_mean_hu"], result["right_lung_mean_hu"]) == (-905.0, -850.0)
    assert (result["lungs_laa950_percent"], result["left_upper_lobe_laa910_percent"]) == (50.0, 100.0)
    assert (result["lungs_perc15_hu"], result["right_upper_lobe_perc15_hu"]) == (-960, -850)
    assert (result["noise_hu"], result["kernel_warning"]) == (0.0, None)
    assert json.loads(json.dumps(result)) == result
    assert data["result"] == {"seconds": 3}


def test_a_training_needs_the_working_grid_alone(data):
    numbers = EmphysemaGradesd()({key: data[key] for key in ("pred", "lung")})["result"]
    full = EmphysemaNumbersd()(data)["result"]
    assert numbers == {key: full[key] for key in numbers}
    assert set(numbers) == {f"{subtype}_{kind}" for subtype in ("cle", "pse") for kind in ("score", "grade", "percent")}
    classes = torch.zeros(9, 2, 3, 4)
    classes[4], classes[7] = 5, 5
    graded = EmphysemaGradesd()({"pred": classes})["result"]
    assert graded == {"cle_score": 4, "cle_grade": "confluent", "pse_score": 1, "pse_grade": "mild"}


def test_lungs_without_sides_and_lobes_are_one(data):
    """A mask of the caller may say no more than lung or not."""
    data["lungs"], data["lung"] = data["lungs"].clamp(max=1), data["lung"].clamp(max=1)
    del data["lobes"], data["lobe"]
    result = EmphysemaNumbersd(lobe_names=LOBES)(data)["result"]
    assert result["cle_percent"] == 13.0
    assert not [name for name in result if name.startswith(("left", "right"))]


def test_right_lung_alone_has_no_left_one(data):
    data["lungs"][data["lungs"] == 1] = 0
    data["lung"][data["lung"] == 1] = 0
    result = EmphysemaNumbersd()(data)["result"]
    assert (result["cle_percent"], result["right_lung_cle_percent"], result["cle_score"]) == (6.0, 6.0, 2)
    assert (result["left_lung_cle_percent"], result["left_lung_cle_gated_percent"]) == (None, None)
    assert (result["left_lung_volume_ml"], result["left_lung_perc15_hu"]) == (0.0, None)


def test_classification_gives_scores_without_percents(data):
    logits = torch.zeros(9, 2, 3, 4)
    logits[4, 0], logits[1, 0, 0, 0], logits[8] = 1.0, 5.0, 0.1  # the mean decides, not the largest value
    data["pred"] = MetaTensor(logits, affine=AFFINE)
    result = EmphysemaNumbersd(lobe_names=LOBES)(data)["result"]
    assert (result["cle_score"], result["cle_grade"]) == (4, "confluent")
    assert (result["pse_score"], result["pse_grade"]) == (2, "substantial")
    assert result["lungs_volume_ml"] == 1.92
    assert not [name for name in result if "cle_" in name and "percent" in name]


def test_scan_without_lung(data):
    data["lung"] = data["lung"] * 0
    with pytest.raises(BadInput, match="the lung mask is empty"):
        EmphysemaNumbersd()(data)


def test_gate_opens_below_910_hu():
    image_hu = torch.tensor([-911.0, -910, -909, -1000]).reshape(1, 1, 1, 4)
    assert gated_maps(torch.full((2, 1, 1, 2), 0.5), image_hu).tolist() == [[[[0.5, 0, 0, 0.5]]]] * 2


def test_means_by_hand():
    values = torch.tensor([[1.0, 2, 3, 6], [0, 0, 1, 0]])
    assert means_by_label(values, torch.tensor([0, 2, 2, 2], dtype=torch.uint8), 4) == [
        [1.0, 0.0],
        [None, None],
        [pytest.approx(11 / 3), pytest.approx(1 / 3)],
        [None, None],
    ]


def test_label_without_a_name_is_left_out():
    labels = torch.tensor([1, 1, 7, 7], dtype=torch.uint8).reshape(1, 1, 1, 4)
    maps = torch.tensor([0.4, 1.0]).expand(2, 1, 1, 2)
    gated = torch.tensor([0.4, 0.0, 0, 0]).expand(2, 1, 1, 4)
    assert map_percents(maps, gated, labels, {"0": "none_", "1": "a_", "2": "b_"}) == {
        "a_cle_percent": 40.0,
        "a_pse_percent": 40.0,
        "a_cle_gated_percent": 20.0,
        "a_pse_gated_percent": 20.0,
        "b_cle_percent": None,
        "b_pse_percent": None,
        "b_cle_gated_percent": None,
        "b_pse_gated_percent": None,
    }


def test_grade_numbers():
    assert grade_numbers({"cle": 5, "pse": 0}) == {
        "cle_score": 5,
        "cle_grade": "advanced destructive",
        "pse_score": 0,
        "pse_grade": "absent",
    }


@pytest.mark.parametrize("across", [0, 1, 2])
def test_noise_is_that_of_the_axial_slices_however_the_axes_run(across):
    """A checkerboard in the slices of a scan whose ``across`` axis runs up."""
    checks = 100 * ((torch.arange(12)[:, None] + torch.arange(14)) % 2) - 900
    ct_hu = checks.expand(10, 12, 14).movedim(0, across)
    affine = torch.zeros(4, 4, dtype=torch.float64)
    rows = [2, 0, 1] if across == 0 else [0, 2, 1] if across == 1 else [0, 1, 2]
    for axis, row in enumerate(rows):
        affine[row, axis] = 5.0 if axis == across else 0.8
    affine[3, 3] = 1
    found = noise_numbers(ct_hu, torch.ones_like(ct_hu), affine)
    assert found["noise_hu"] == pytest.approx(100 * 8 / (0.6745 * 6), abs=0.01)
    assert "198 HU of noise" in found["kernel_warning"]
