import math

import pytest
import torch

from pulmozoo.losses.weighted_dice import WeightedDiceLoss, inverse_frequency_weights, weighted_dice_loss

PROB = torch.tensor([0.9, 0.6, 0.2, 0.1]).reshape(1, 1, 2, 2)
TRUTH = torch.tensor([1.0, 1, 0, 0]).reshape(1, 1, 2, 2)


@pytest.mark.parametrize(
    ("weights", "smooth", "expected"),
    [
        ((0, 1), 0.0, 1 - 3.0 / 3.8),  # lesion: overlap 1.5, sizes 1.8 + 2: plain soft Dice
        ((1, 0), 0.0, 1 - 3.4 / 4.2),  # background: overlap 0.8 + 0.9, sizes 2.2 + 2
        ((0.2, 0.8), 0.0, 1 - 3.08 / 3.88),
        ((0.2, 0.8), 1.0, 1 - 4.08 / 4.88),
    ],
)
def test_loss_by_hand(weights, smooth, expected):
    loss = weighted_dice_loss(PROB.logit(), TRUTH, weights, smooth)
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    assert WeightedDiceLoss(weights, smooth)(PROB.logit(), TRUTH) == loss


def test_weights_are_inverse_frequencies():  # 1 / 30 to 1 / 10
    assert inverse_frequency_weights([30, 10]) == pytest.approx([0.25, 0.75])
    with pytest.raises(ValueError, match=r"got \[30, 0\]"):
        inverse_frequency_weights([30, 0])


def test_right_prediction_costs_nothing_and_wrong_all():
    logits = (2 * TRUTH - 1) * 40
    assert weighted_dice_loss(logits, TRUTH, (0.1, 0.9)).item() == pytest.approx(0, abs=1e-6)
    assert weighted_dice_loss(-logits, TRUTH, (0.1, 0.9), smooth=0.0).item() == pytest.approx(1, abs=1e-6)


def test_slice_without_lesion_has_a_loss_and_a_gradient():
    logits = torch.zeros(1, 1, 2, 3, requires_grad=True)
    weighted_dice_loss(logits, torch.zeros(1, 1, 2, 3), (0.0, 1.0)).backward()  # 1 - 1 / (3 + 1)
    assert weighted_dice_loss(logits, torch.zeros(1, 1, 2, 3), (0.0, 1.0)).item() == 0.75
    assert (logits.grad > 0).all()


def test_gradient():
    torch.manual_seed(0)
    logits = torch.randn(2, 1, 1, 3, 4, dtype=torch.float64, requires_grad=True)
    label = torch.randint(2, logits.shape)
    assert torch.autograd.gradcheck(weighted_dice_loss, (logits, label, (0.1, 0.9)))


def test_shapes_must_match():
    with pytest.raises(ValueError, match=r"must both be \(B, 1, ...\), got \(1, 1, 2, 2\), \(1, 2, 2\)"):
        weighted_dice_loss(PROB, TRUTH[0], (0, 1))
    with pytest.raises(ValueError, match="must both be"):
        weighted_dice_loss(PROB.expand(1, 2, 2, 2), TRUTH.expand(1, 2, 2, 2), (0, 1))


def test_cross_entropy_is_added_where_it_is_wanted():
    logits, label = torch.zeros(1, 1, 2, 3), torch.ones(1, 1, 2, 3)
    dice = WeightedDiceLoss((0.0, 1.0))(logits, label).item()
    both = WeightedDiceLoss((0.0, 1.0), cross_entropy=0.5)(logits, label).item()
    assert both - dice == pytest.approx(0.5 * math.log(2))
