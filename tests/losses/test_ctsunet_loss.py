import pytest
import torch
from monai.losses import GeneralizedDiceLoss
from torch import Tensor

from pulmozoo.losses.ctsunet import CTSULoss, border_map, hardest_cross_entropy

SHAPE = (8, 10, 12)


@pytest.fixture
def label() -> Tensor:
    """All six labels in a batch of two scans with unequal axes."""
    label = torch.zeros(2, 1, *SHAPE)
    label[:, :, 1:4, 2:8, 1:6], label[:, :, 4:7, 2:8, 1:6] = 1, 2
    label[:, :, 1:3, 2:8, 7:11], label[:, :, 5:7, 2:8, 7:11], label[:, :, 3:5, 2:8, 7:11] = 3, 4, 5
    return label


def sure(label: Tensor, sign: float = 1.0) -> Tensor:
    """Logits that are certain of the label and of its border, or with -1 of anything else."""
    lobes = torch.nn.functional.one_hot(label[:, 0].long(), 6).movedim(-1, 1).float()
    return sign * 20 * torch.cat([2 * lobes - 1, 2 * border_map(label) - 1], dim=1)


# Three classes on four voxels; the voxels of each class give the weights 1/4, 1 and 1.
TRUTH = torch.tensor([[[1.0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]])
GUESS = torch.tensor([[[0.8, 0.6, 0.1, 0.2], [0.1, 0.3, 0.7, 0.2], [0.1, 0.1, 0.2, 0.6]]])


@pytest.mark.parametrize(("smooth", "expected"), [(0.0, 0.368421), (0.1, 0.361502)])
def test_generalised_dice_by_hand(smooth, expected):
    """1 - 2 (1.4/4 + 0.7 + 0.6) / (3.7/4 + 2.3 + 2) = 1 - 3.3/5.225."""
    ours = CTSULoss(smooth=smooth)
    assert expected == pytest.approx(1 - (3.3 + smooth) / (5.225 + smooth), abs=1e-6)
    for loss in (ours.lobes, ours.border):
        bare = GeneralizedDiceLoss(w_type=loss.w_type, smooth_nr=loss.smooth_nr, smooth_dr=loss.smooth_dr)
        assert bare(GUESS, TRUTH).item() == pytest.approx(expected, abs=1e-6)


def test_lobe_term_by_hand():
    """The same numbers as logits: softmax of the logarithm of probabilities gives them back."""
    lobes = CTSULoss(smooth=0.0).lobes
    assert lobes(GUESS.log(), TRUTH.argmax(dim=1, keepdim=True)).item() == pytest.approx(0.368421, abs=1e-6)


def test_border_term_by_hand():  # one class: 1 - 2 (0.8 + 0.6) / (1.7 + 2), whatever the weight
    border = CTSULoss(smooth=0.0).border
    assert border(GUESS[:, :1].logit(), TRUTH[:, :1]).item() == pytest.approx(1 - 2.8 / 3.7, abs=1e-6)


@pytest.mark.parametrize(("share", "expected"), [(0.3, 0.9986), (0.5, 0.7459), (1.0, 0.4151), (0.01, 1.6094)], ids=str)
def test_hardest_cross_entropy_by_hand(share, expected):
    """Ten voxels whose label has the probabilities .2 .5 .5 .6 .8 .9 .9 .9 .9 1: the three largest costs are -ln .2
    = 1.6094 and twice -ln .5 = 0.6931; then come 0.5108, 0.2231, four of 0.1054 and 0."""
    right = torch.tensor([0.9, 0.5, 1.0, 0.2, 0.9, 0.6, 0.9, 0.5, 0.8, 0.9])
    label = torch.tensor([0, 1, 0, 0, 1, 1, 0, 1, 0, 0])
    guess = torch.where(label == 0, right, 1 - right)
    logits = torch.stack([guess, 1 - guess]).clamp(min=1e-20).log().reshape(1, 2, 1, 2, 5)
    loss = hardest_cross_entropy(logits, label.reshape(1, 1, 1, 2, 5), share)
    assert loss.item() == pytest.approx(expected, abs=1e-4)


def test_only_the_hardest_voxels_are_learnt_from():
    logits = torch.zeros(1, 6, 1, 2, 5)
    logits[:, 0, :, 1] = 3
    logits.requires_grad_()
    hardest_cross_entropy(logits, torch.zeros(1, 1, 1, 2, 5), share=0.3).backward()
    learnt = logits.grad.any(dim=1)
    assert learnt[0, 0, 0].sum() == 3
    assert not learnt[0, 0, 1].any()


def test_border_is_two_voxels_thick():
    row = torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, 2, 2])
    label = row.expand(1, 1, 4, 5, 10)
    assert border_map(label)[0, 0, 2, 3].tolist() == [0, 0, 1, 1, 0, 0, 1, 1, 0, 0]


@pytest.mark.parametrize("axis", [2, 3, 4])
def test_border_of_a_block_by_hand(axis):
    """A slab of two voxels: its neighbours on both sides and itself, and nothing along the other axes."""
    label = torch.zeros(1, 1, 7, 8, 9)
    label.narrow(axis, 3, 2).fill_(4)
    expected = torch.zeros_like(label)
    expected.narrow(axis, 2, 4).fill_(1)
    assert torch.equal(border_map(label), expected)


def test_border_at_the_edge_of_the_volume():
    row = torch.tensor([3.0, 0, 0, 0, 5]).expand(1, 1, 3, 3, 5)
    assert border_map(row)[0, 0, 1, 1].tolist() == [1, 1, 0, 1, 1]
    assert not border_map(torch.full((1, 1, 2, 3, 4), 5)).any()


def test_border_takes_labels_of_any_type():
    label = torch.randint(6, (1, 1, 5, 6, 7))
    for kind in (torch.uint8, torch.int64, torch.float32):
        assert torch.equal(border_map(label.to(kind)), border_map(label))


def test_loss_is_a_scalar_with_gradient(label):
    torch.manual_seed(0)
    scan, patch = torch.randn(2, 7, *SHAPE, requires_grad=True), torch.randn(2, 7, 4, 4, 4, requires_grad=True)
    prediction = {"scan_logits": scan, "patch_logits": patch, "patch_label": label[..., 2:6, 1:5, 4:8]}
    loss = CTSULoss(cross_entropy=1.0)(prediction, label)
    assert loss.shape == ()
    loss.backward()
    for logits in (scan, patch):
        assert logits.grad.isfinite().all()
        assert all(logits.grad[:, channel].any() for channel in range(7))


@pytest.mark.parametrize("smooth", [0.0, 0.1])
@pytest.mark.parametrize("cross_entropy", [0.0, 1.0])
def test_right_prediction_costs_least(label, smooth, cross_entropy):
    loss = CTSULoss(smooth, cross_entropy)
    right, unsure, wrong = (loss({"scan_logits": sure(label, sign)}, label).item() for sign in (1, 0, -1))
    assert right == pytest.approx(0, abs=1e-5)
    assert right < unsure < wrong


def test_a_whole_scan_outweighs_the_smoothing():
    """The weights of the Dice terms are 1 / voxels squared: a smoothing of 0.1 would hide a wrong answer."""
    label = torch.zeros(1, 1, 64, 64, 64)
    label[..., 8:56, 8:56, 8:30], label[..., 8:56, 8:56, 34:56] = 1, 3
    right, wrong = (CTSULoss()({"scan_logits": sure(label, sign)}, label).item() for sign in (1, -1))
    assert right == pytest.approx(0, abs=1e-3)
    assert wrong > 1.9  # both terms at their worst, 1 each


def test_both_stages_and_all_terms_are_summed(label):
    torch.manual_seed(0)
    scan, patch_label = torch.randn(2, 7, *SHAPE), label[..., 2:6, 1:5, 4:8]
    patch = torch.randn(2, 7, 4, 4, 4)
    loss = CTSULoss(cross_entropy=0.5)
    first, second = loss({"scan_logits": scan}, label), loss({"scan_logits": patch}, patch_label)
    both = loss({"scan_logits": scan, "patch_logits": patch, "patch_label": patch_label}, label)
    assert both.item() == pytest.approx((first + second).item())
    dice = loss.lobes(scan[:, :6], label) + loss.border(scan[:, 6:], border_map(label))
    entropy = torch.nn.functional.cross_entropy(scan[:, :6], label[:, 0].long())
    assert first.item() == pytest.approx((dice + 0.5 * entropy).item())
    hardest = hardest_cross_entropy(scan[:, :6], label, 0.3)
    second_training = CTSULoss(cross_entropy=1.0, hardest=0.3)({"scan_logits": scan}, label)
    assert second_training.item() == pytest.approx((dice + hardest).item())
    assert hardest > entropy


def test_scan_without_lobes_has_a_finite_loss():
    label = torch.zeros(1, 1, *SHAPE)
    logits = torch.randn(1, 7, *SHAPE, requires_grad=True)
    loss = CTSULoss(cross_entropy=1.0)({"scan_logits": logits}, label)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


def test_half_precision_is_computed_in_single(label):
    logits = torch.randn(2, 7, *SHAPE).bfloat16()
    loss = CTSULoss()
    assert loss({"scan_logits": logits}, label) == loss({"scan_logits": logits.float()}, label)
