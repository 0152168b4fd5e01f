from math import log

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn.functional import softplus

from pulmozoo.losses.pneumothorax import PneumothoraxLoss

MASK_LOGITS = torch.tensor([[2.0, -1.0], [0.5, -3.0]])
MASK = torch.tensor([[1, 0], [0, 1]])


def logits_of(mask: Tensor, *film: float) -> Tensor:
    """An answer of the network: the same mask for every film, the class logit of each film at every pixel."""
    return torch.stack([torch.stack([mask, torch.full_like(mask, logit)]) for logit in film])


def cross_entropy(logit: float, positive: bool) -> float:
    return softplus(torch.tensor(-logit if positive else logit)).item()


def test_cross_entropy_by_hand():
    """Mean over the pixels, plus a tenth of the mean over the films: one with and one without pneumothorax."""
    label = torch.stack([MASK, torch.zeros_like(MASK)])[:, None]
    pixels = zip(MASK_LOGITS.flatten().tolist(), MASK.flatten().tolist(), strict=True)
    first = sum(cross_entropy(logit, bool(positive)) for logit, positive in pixels) / 4
    second = sum(cross_entropy(logit, False) for logit in MASK_LOGITS.flatten().tolist()) / 4
    film = (cross_entropy(1.5, True) + cross_entropy(-0.7, False)) / 2
    loss = PneumothoraxLoss()(logits_of(MASK_LOGITS, 1.5, -0.7), label)
    assert loss.item() == pytest.approx((first + second) / 2 + 0.1 * film, rel=1e-5)


def test_even_odds_cost_the_logarithm_of_two():
    assert PneumothoraxLoss()(torch.zeros(3, 2, 4, 6), torch.ones(3, 1, 4, 6)).item() == pytest.approx(1.1 * log(2))


@pytest.mark.parametrize(
    ("label", "expected"),
    [(MASK, 2.962651 + 0.01 * log(1 + 2.718281828**-1)), (0 * MASK, 2.954417 + 0.01 * log(1 + 2.718281828))],
    ids=["pneumothorax", "none"],
)
def test_lovasz_takes_a_hundredth_of_the_class(label, expected):
    loss = PneumothoraxLoss(lovasz=True)
    assert loss(logits_of(MASK_LOGITS, 1.0), label[None, None]).item() == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize(
    ("lovasz", "stages", "hinge_in"),
    [(False, "both", set()), (True, "both", {1, 2}), (True, "first", {1})],
)
def test_lovasz_in_both_stages_or_in_the_first(lovasz, stages, hinge_in):
    logits, label = logits_of(MASK_LOGITS, 1.0), MASK[None, None]
    plain, hinge = PneumothoraxLoss()(logits, label), PneumothoraxLoss(lovasz=True)(logits, label)
    loss = PneumothoraxLoss(lovasz=lovasz, lovasz_stages=stages)
    for stage in (1, 2):
        loss.stage = stage
        assert loss(logits, label) == (hinge if stage in hinge_in else plain)


def test_wrong_name_of_the_stages_is_told():
    with pytest.raises(ValueError, match="lovasz_stages must be 'both' or 'first', got 'second'"):
        PneumothoraxLoss(lovasz=True, lovasz_stages="second")


@pytest.mark.parametrize(("lovasz", "weight"), [(False, 0.1), (True, 0.01)])
def test_films_of_known_class_teach_the_class_alone(lovasz, weight):
    logits = logits_of(MASK_LOGITS, 1.5, -0.7).requires_grad_()
    loss = PneumothoraxLoss(lovasz=lovasz)(logits, torch.tensor([1, 0]))
    expected = weight * (cross_entropy(1.5, True) + cross_entropy(-0.7, False)) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert logits.grad[:, 1].any()
    assert not logits.grad[:, 0].any()


def test_masks_of_any_type_and_brightness():
    torch.manual_seed(0)
    logits, label = torch.randn(2, 2, 4, 6), (torch.rand(2, 1, 4, 6) > 0.5).long()
    expected = PneumothoraxLoss(lovasz=True)(logits, label)
    for same in (label.bool(), label.to(torch.uint8) * 255, label.float()):
        assert PneumothoraxLoss(lovasz=True)(logits, same) == expected


@pytest.mark.parametrize("shape", [(2, 4, 6), (2, 1, 6, 4), (2, 2, 4, 6), (1, 1, 4, 6), (3,), (2, 1)], ids=str)
def test_wrong_label_shape_is_named(shape):
    expected = r"must have shape \(2, 1, 4, 6\) to match logits, or \(2,\) for the class alone, got \("
    with pytest.raises(ValueError, match=expected + ", ".join(map(str, shape))):
        PneumothoraxLoss()(torch.zeros(2, 2, 4, 6), torch.zeros(shape))


@pytest.mark.parametrize("lovasz", [False, True])
def test_gradient(lovasz):
    torch.manual_seed(0)
    logits = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    label = torch.zeros(2, 1, 3, 4)
    label[0, 0, 1, 2:] = 1
    assert gradcheck(PneumothoraxLoss(lovasz=lovasz), (logits, label))


@pytest.mark.parametrize("lovasz", [False, True])
def test_half_precision_is_computed_in_single(lovasz):
    torch.manual_seed(0)
    logits, label = torch.randn(2, 2, 4, 6).bfloat16(), torch.ones(2, 1, 4, 6)
    loss = PneumothoraxLoss(lovasz=lovasz)
    assert loss(logits, label) == loss(logits.float(), label)
