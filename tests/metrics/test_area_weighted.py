from math import sqrt

import pytest
import torch

from pulmozoo.metrics.area_weighted import area_weighted, slice_scores

#          hit hit hit miss | false, then lung without lesion, then outside the lung
TRUTH = torch.tensor([[1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0]]).bool()
FOUND = torch.tensor([[1, 1, 1, 0, 1, 1, 0, 0, 0, 1, 0]]).bool()
LUNG = torch.tensor([[1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0]]).bool()


def test_scores_by_hand():  # 3 hits, 1 missed, 3 false of which 2 in the lung, whose healthy pixels are 5
    scores = slice_scores(FOUND, TRUTH, LUNG)
    assert scores.dice == pytest.approx(6 / 10)
    assert scores.jaccard == pytest.approx(3 / 7)
    assert scores.mean_accuracy == pytest.approx((3 / 4 + 3 / 5) / 2)


def test_right_and_wrong_prediction():
    assert slice_scores(TRUTH, TRUTH, LUNG) == (1, 1, 1)
    assert slice_scores(~TRUTH, TRUTH, LUNG) == (0, 0, 0)


def test_lesion_that_fills_the_lung_has_no_specificity():
    assert slice_scores(FOUND, TRUTH, TRUTH).mean_accuracy == 0.75


def test_slice_without_lesion_and_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="a slice without lesion has no score"):
        slice_scores(FOUND, torch.zeros_like(TRUTH), LUNG)
    with pytest.raises(ValueError, match=r"one shape, got \[\(1, 11\), \(1, 11\), \(11,\)\]"):
        slice_scores(FOUND, TRUTH, LUNG[0])


def test_area_weighted_by_hand():
    """0.5 and 0.9 with weights 1/4 and 3/4: mean 0.8; squares (0.09 + 3 * 0.01) / 4 = 0.03; 16 / 10 slices."""
    found = area_weighted([0.5, 0.9], [2.0, 6.0])
    assert found.mean == pytest.approx(0.8)
    assert found.deviation == pytest.approx(sqrt(0.03))
    assert found.standard_error == pytest.approx(sqrt(0.03 / 1.6))


def test_equal_areas_give_the_plain_numbers():
    scores = [0.1, 0.4, 0.6, 0.9]
    found = area_weighted(scores, [7] * 4)
    assert found.mean == pytest.approx(0.5)
    assert found.deviation == pytest.approx(sqrt(0.34 / 4))
    assert found.standard_error == pytest.approx(found.deviation / 2)


def test_slices_of_no_area_do_not_count():
    assert area_weighted([0.5, 0.9, 0.1], [2, 6, 0]) == pytest.approx(area_weighted([0.5, 0.9], [2, 6]))


@pytest.mark.parametrize("areas", [[1.0], [0.0, 0.0], [2.0, -1.0]])
def test_wrong_areas_are_refused(areas):
    with pytest.raises(ValueError, match="one area a score is needed"):
        area_weighted([0.5, 0.9], areas)
