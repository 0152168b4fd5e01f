import pytest
import torch
from torch.autograd import gradcheck

from pulmozoo.losses.lovasz import SymmetricLovaszHinge, jaccard_steps, lovasz_hinge, symmetric_lovasz_hinge

LOGITS = torch.tensor([[[2.0, -1.0], [0.5, -3.0]]])
TRUTH = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])


def test_jaccard_steps_by_hand():
    """Of two positives and two negatives go wrong +, -, -, +: the loss is 1/2, 2/3, 3/4 and 1."""
    steps = jaccard_steps(torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 0]]))
    assert steps[0].tolist() == pytest.approx([1 / 2, 1 / 6, 1 / 12, 1 / 4])
    assert steps[1].tolist() == [1, 0, 0, 0]  # an empty truth is missed as a whole by a single pixel


def test_one_sided_by_hand():
    """Errors 4, 1.5, 0 and -1 go through elu + 1 to 5, 2.5, 1 and exp(-1); steps 1/2, 1/6, 1/12 ... in their order."""
    assert (1 - LOGITS * (2 * TRUTH - 1)).flatten().sort(descending=True).values.tolist() == [4, 1.5, 0, -1]
    expected = 5 / 2 + 2.5 / 6 + 1 / 12 + torch.tensor(-1.0).exp().item() / 4
    assert lovasz_hinge(LOGITS, TRUTH).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("truth", "one_sided", "symmetric"),
    [(TRUTH, 3.091970, 2.962651), (torch.zeros_like(TRUTH), 4.0, 2.954417)],
    ids=["two pixels", "empty"],
)
def test_values_of_the_authors_program(truth, one_sided, symmetric):
    assert lovasz_hinge(LOGITS, truth).item() == pytest.approx(one_sided, abs=1e-6)
    assert symmetric_lovasz_hinge(LOGITS, truth).item() == pytest.approx(symmetric, abs=1e-6)
    assert SymmetricLovaszHinge()(LOGITS, truth).item() == pytest.approx(symmetric, abs=1e-6)


def test_images_count_alike_each_by_itself():
    both = symmetric_lovasz_hinge(LOGITS.repeat(2, 1, 1), torch.cat([TRUTH, torch.zeros_like(TRUTH)]))
    assert both.item() == pytest.approx((2.962651 + 2.954417) / 2, abs=1e-6)


def test_both_classes_count_alike():
    torch.manual_seed(0)
    logits, truth = torch.randn(2, 5, 7), (torch.rand(2, 5, 7) > 0.7).float()
    assert symmetric_lovasz_hinge(logits, truth).item() == pytest.approx(
        symmetric_lovasz_hinge(-logits, 1 - truth).item()
    )
    assert lovasz_hinge(logits, truth) != lovasz_hinge(-logits, 1 - truth)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0], ids=["empty", "some", "full"])
def test_gradient(share):
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    truth = (torch.rand(2, 3, 4) < share).double()
    assert gradcheck(SymmetricLovaszHinge(), (logits, truth))


def test_right_mask_costs_least():
    right, unsure, wrong = (
        symmetric_lovasz_hinge(sign * 10 * (2 * TRUTH - 1), TRUTH).item() for sign in (1.0, 0.0, -1.0)
    )
    assert right == pytest.approx(0, abs=1e-3)
    assert right < unsure < wrong
