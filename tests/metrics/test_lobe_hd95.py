import pytest
import torch
from monai.data import MetaTensor

from pulmozoo.metrics.lobe_hd95 import LobeHd95d, hd95_mm

SPACING_MM = (1.0, 2.0, 5.0)


def block(start: tuple[int, int, int], size: int = 6) -> torch.Tensor:
    mask = torch.zeros(1, 20, 20, 20, dtype=torch.bool)
    z, y, x = start
    mask[:, z : z + size, y : y + size, x : x + size] = True
    return mask


@pytest.mark.parametrize(
    ("shift", "distance"), [((0, 0, 0), 0.0), ((3, 0, 0), 3.0), ((0, 3, 0), 6.0), ((0, 0, 1), 5.0)]
)
def test_a_shifted_block_is_as_far_as_its_shift_in_mm(shift, distance):
    """The face that moved is more than a twentieth of the surface."""
    moved = tuple(5 + by for by in shift)
    assert hd95_mm(block(moved), block((5, 5, 5)), SPACING_MM) == pytest.approx(distance)


def test_a_single_voxel_far_away_does_not_count():
    stray = block((5, 5, 5))
    stray[0, 19, 19, 19] = True
    assert hd95_mm(stray, block((5, 5, 5)), SPACING_MM) == 0
    assert hd95_mm(torch.zeros_like(stray), stray, SPACING_MM) is None


def test_dictionary_form_reads_the_spacing_of_the_truth():
    affine = torch.diag(torch.tensor([-1.0, 2.0, 5.0, 1.0]))
    truth = block((5, 5, 5)).to(torch.uint8)
    found = block((5, 5, 6)).to(torch.uint8)
    data = {
        "pred": MetaTensor(found, affine=affine),
        "label": MetaTensor(truth, affine=affine),
        "result": {"seconds": 1},
    }
    out = LobeHd95d("pred", "label", {"0": "background", "1": "left upper lobe", "2": "left lower lobe"})(data)
    assert out["result"] == {
        "seconds": 1,
        "left_upper_lobe_hd95_mm": 5.0,
        "left_lower_lobe_hd95_mm": None,
        "mean_hd95_mm": 5.0,
    }


def test_a_lobe_that_the_view_cuts_off_has_a_distance():
    truth, found = (torch.zeros(1, 8, 8, 8, dtype=torch.bool) for _ in range(2))
    truth[:, :4], found[:, :5] = True, True
    assert hd95_mm(found, truth, (3.0, 3.0, 3.0)) == pytest.approx(3.0)
