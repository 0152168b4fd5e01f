import pytest
import torch

from pulmozoo.metrics.subtype_scores import SubtypeScoresd, subtype_overlaps

TRUTH = torch.tensor([1, 1, 1, 2, 2, 0, 0, 0])
FOUND = torch.tensor([1, 1, 2, 2, 0, 1, 0, 0])


def test_overlaps_by_hand():
    """Both unions have 5 voxels, 4 of them common, 3 of these with the right subtype."""
    assert subtype_overlaps(FOUND, TRUTH) == {
        "union_dice": 8 / 10,
        "cle_dice": 4 / 6,
        "pse_dice": 2 / 4,
        "right_subtype": 3 / 4,
    }


def test_nothing_to_compare():
    nothing = torch.zeros(4)
    assert set(subtype_overlaps(nothing, nothing).values()) == {None}
    some = subtype_overlaps(torch.ones(4), nothing)
    assert (some["union_dice"], some["cle_dice"], some["pse_dice"], some["right_subtype"]) == (0, 0, None, None)


def test_two_shapes():
    with pytest.raises(ValueError, match=r"both maps must have one shape, got \(2,\) and \(3,\)"):
        subtype_overlaps(torch.zeros(2), torch.zeros(3))


@pytest.mark.parametrize("label", [None, TRUTH])
def test_the_true_scores_stand_beside_the_found_ones(label):
    sample = {"pred": FOUND, "label": label, "cle_score": torch.tensor(4), "pse_score": 1, "result": {"cle_score": 3}}
    result = SubtypeScoresd()(sample)["result"]
    assert (result["cle_score"], result["cle_truth"], result["pse_truth"]) == (3, 4, 1)
    assert ("union_dice" in result) == (label is not None)
