from math import log

import pytest
import torch
from torch import Tensor

from pulmozoo.losses.dram import (
    DRAMLoss,
    GradeLoss,
    class_weights,
    interval_loss,
    intervals,
    overlap_loss,
    painted_loss,
    segmentation_loss,
    stretched,
)
from pulmozoo.metrics.emphysema_scores import CLE, PSE

# Share, ends of the interval, loss of the published program, loss of the paper (fact sheet, section 3).
WORKED = [
    (0.03, 0.05, 0.1, 0.045234, 0.001400),
    (0.2, 0.05, 0.1, 0.115476, 0.015000),
    (0.07, 0.05, 0.1, 0.0, 0.0),
    (0.02, 0.0, 0.0, 0.716418, 0.000400),
    (0.02, 0.0, 0.01, 0.117233, 0.000200),
    (0.1, 0.3, 1.0001, 0.435929, 0.180020),
]
TRUTH = torch.tensor([[1.0, 0, 0, 1, 0, 0, 0, 0]])
GUESS = torch.tensor([[0.8, 0.3, 0.1, 0.4, 0.05, 0.6, 0.2, 0.9]])
LUNG = torch.tensor([[1, 1, 1, 1, 1, 1, 0, 0]])


@pytest.mark.parametrize(("share", "lower", "upper", "published", "paper"), WORKED)
def test_interval_loss_by_hand(share, lower, upper, published, paper):
    values = [torch.tensor(value, dtype=torch.float64) for value in (share, lower, upper)]
    assert interval_loss(*values).item() == pytest.approx(published, abs=5e-7)
    assert interval_loss(*values, paper=True).item() == pytest.approx(paper, abs=1e-9)


@pytest.mark.parametrize("paper", [False, True])
def test_nothing_is_learnt_inside_the_interval(paper):
    share = torch.tensor([0.04, 0.07, 0.12], requires_grad=True)
    interval_loss(share, torch.tensor(0.05), torch.tensor(0.1), paper=paper).sum().backward()
    assert share.grad[0] < 0
    assert share.grad[1] == 0
    assert share.grad[2] > 0


def test_stretching_by_hand():  # 0.7338 * 0.1 ** 0.2578 = 0.7338 * 0.552332
    assert stretched(torch.tensor([0.1, 1.0, 0.0])).tolist() == pytest.approx([0.405301, 0.7338, 0], abs=1e-6)


@pytest.mark.parametrize(("lower", "upper"), [(0.0, 0.0), (0.05, 0.1)])
def test_share_of_nothing_has_a_finite_gradient(lower, upper):
    share = torch.zeros(1, requires_grad=True)
    interval_loss(share, torch.tensor(lower), torch.tensor(upper)).sum().backward()
    assert share.grad.isfinite().all()


def test_intervals_of_the_scores():
    scores = torch.tensor([0, 2, 5])
    lower, upper = intervals(scores, CLE, paper=True)
    assert lower.tolist() == pytest.approx([0, 0.05, 0.3])
    assert upper.tolist() == pytest.approx([0.01, 0.1, 1.0001])
    lower, upper = intervals(scores, CLE)
    assert lower.tolist() == pytest.approx([0, 0.05, 0.3])
    assert upper.tolist() == pytest.approx([0, 0.1, 1.0001])  # the published program wants none at all for score 0
    assert intervals(torch.tensor([1, 2]), PSE)[1].tolist() == pytest.approx([0.05, 1.0001])


def test_segmentation_by_hand():
    assert segmentation_loss(GUESS[0], TRUTH[0], LUNG[0]).item() == pytest.approx(0.562573, abs=1e-6)


def test_overlap_by_hand():  # 2 (0.8 + 0.4) / (3.35 + 2)
    maps = torch.stack([GUESS, TRUTH], dim=1)
    assert overlap_loss(maps, torch.ones(1, 1, 8)).item() == pytest.approx(0.448598, abs=1e-6)
    # In the lung alone: 2 (0.8 + 0.4) / (2.25 + 2).
    assert overlap_loss(maps, LUNG[:, None]).item() == pytest.approx(2.4 / 4.25, abs=1e-6)


def test_segmentation_of_a_batch_by_hand():
    low, guess, lungs = torch.zeros(2, 1, 2, 2, 2), torch.full((2, 1, 2, 2, 2), 0.3), torch.zeros(2, 1, 2, 2, 2)
    low[0, 0, 0, 0], guess[0, 0, 0], lungs[0] = 1, 0.6, 1
    assert segmentation_loss(guess, low, lungs).item() == pytest.approx(0.403574, abs=1e-6)


def test_class_weights_of_the_papers_development_set():
    assert class_weights([782, 431, 478, 430, 275, 111]) == pytest.approx([0.2] * 5 + [0.436], abs=5e-4)
    assert class_weights([1145, 739, 623]) == pytest.approx([0.228, 0.353, 0.419], abs=5e-4)


@pytest.fixture
def painted() -> Tensor:
    """Two voxels in the corner are paraseptal emphysema, the opposite corner is centrilobular."""
    labels = torch.zeros(1, 1, 4, 4, 4, dtype=torch.uint8)
    labels[0, 0, 0, 0, :2], labels[0, 0, 3, 3, 3] = 2, 1
    return labels


def test_painted_loss_by_hand(painted):
    """A density of a half costs log 2 whatever the truth, of PSE four times; the corner's cell has 2 of 8 painted."""
    lungs = torch.ones_like(painted)
    even = torch.zeros(1, 2, 2, 2, 2)
    assert painted_loss(even, painted, lungs).item() == pytest.approx(5 * log(2))
    sure = even.clone()
    sure[0, 1, 0, 0, 0] = log(3)  # density 3/4
    wanted = -(0.25 * log(3 / 4) + 0.75 * log(1 / 4))
    assert painted_loss(sure, painted, lungs).item() == pytest.approx((8 * log(2) + 4 * (7 * log(2) + wanted)) / 8)
    lungs[0, 0, 0, 0, 1] = 0  # one of seven voxels of lung is left
    wanted = -(1 / 7 * log(3 / 4) + 6 / 7 * log(1 / 4))
    assert painted_loss(sure, painted, lungs).item() == pytest.approx((8 * log(2) + 4 * (7 * log(2) + wanted)) / 8)
    lungs[0, 0, 2:] = 0  # of eight cells four have their own voxel in the lungs
    assert painted_loss(sure, painted, lungs).item() == pytest.approx((4 * log(2) + 4 * (3 * log(2) + wanted)) / 4)


def test_where_nobody_painted_nothing_is_learnt(painted):
    lungs = torch.ones(2, 1, 4, 4, 4)
    logits = torch.randn(2, 2, 2, 2, 2, requires_grad=True)
    both = torch.cat([painted, torch.full_like(painted, 255)])
    loss = painted_loss(logits, both, lungs)
    loss.backward()
    assert logits.grad[0].all()
    assert not logits.grad[1].any()
    assert loss.item() == pytest.approx(painted_loss(logits[:1], painted, lungs[:1]).item())
    assert painted_loss(logits[1:], both[1:], lungs[1:]).item() == 0


def test_the_whole_loss_counts_what_is_painted_by_its_weight(truth):
    truth["painted"] = torch.ones_like(truth["lung"])
    logits = logits_of(0.2, 0.03)
    more = DRAMLoss(painted_weight=10)(logits, truth) - DRAMLoss()(logits, truth)
    assert more.item() == pytest.approx(-10 * (log(0.2) + 4 * log(0.97)), rel=1e-5)


@pytest.mark.parametrize("paper", [False, True])
def test_gradients_are_those_of_the_functions(paper):
    torch.manual_seed(0)
    maps = torch.rand(2, 2, 2, 3, 4, dtype=torch.float64) * 0.4 + 0.05
    lungs, low = torch.rand(2, 1, 2, 3, 4) > 0.3, (torch.rand(2, 1, 2, 3, 4) > 0.5).double()
    shares = torch.tensor([0.03, 0.2, 0.004], dtype=torch.float64, requires_grad=True)
    lower, upper = (torch.tensor(ends, dtype=torch.float64) for ends in ([0.05, 0.05, 0.0], [0.1, 0.1, 0.0]))

    def of_shares(values: Tensor) -> Tensor:
        return interval_loss(values, lower, upper, paper=paper)

    def of_maps(values: Tensor) -> tuple[Tensor, Tensor]:
        return overlap_loss(values, lungs), segmentation_loss(values.sum(dim=1, keepdim=True), low, lungs)

    assert torch.autograd.gradcheck(of_shares, shares)
    assert torch.autograd.gradcheck(of_maps, maps.requires_grad_())


# The whole


@pytest.fixture
def truth() -> dict[str, Tensor]:
    """Two scans: mild centrilobular with a fifth of low attenuation, and one without emphysema but dark as well."""
    torch.manual_seed(0)
    lung, image_hu = torch.zeros(2, 1, 8, 12, 16, dtype=torch.uint8), torch.full((2, 1, 8, 12, 16), -850.0)
    lung[:, :, 2:6, 2:10, 2:7], lung[:, :, 2:6, 2:10, 9:14] = 1, 2
    image_hu[torch.rand(image_hu.shape) < 0.2] = -980
    return {"lung": lung, "image_hu": image_hu, "cle_score": torch.tensor([2, 0]), "pse_score": torch.tensor([1, 0])}


def logits_of(cle: float, pse: float) -> Tensor:
    """Logits of even maps, the same in both scans."""
    return torch.tensor([cle, pse]).logit().reshape(1, 2, 1, 1, 1).repeat(2, 1, 4, 6, 8)


def test_whole_loss_by_hand(truth):
    """Even maps of 0.2 and 0.03: of the intervals only those of score 0 and the too large CLE count."""
    inside = truth["lung"][:, :, ::2, ::2, ::2] > 0
    low = (truth["image_hu"][:, :, ::2, ::2, ::2] < -950) & inside
    low[1] = False  # a scan without emphysema has no low attenuation area to learn
    voxels, dark = inside.sum(), low.sum()
    assert dark > 2
    weights = torch.where(low, 0.3, 0.7)
    entropy = -torch.where(low, torch.tensor(0.23).log(), torch.tensor(0.77).log())
    segmentation = (entropy * weights * torch.where(inside, 0.85, 1.0)).sum() / weights.sum()
    overlap = 2 * 0.006 / 0.23
    assert overlap_loss(logits_of(0.2, 0.03).sigmoid(), inside).item() == pytest.approx(overlap, rel=1e-4)
    paper = 0.015 + 0.2 * 0.19 + 0.03 * 0.02 + overlap + segmentation.item()
    assert DRAMLoss(paper=True)(logits_of(0.2, 0.03), truth).item() == pytest.approx(paper, rel=1e-5)
    v20, v3 = stretched(torch.tensor([0.2, 0.03])).tolist()
    program = 0.115476 + 10 * v20**2 + 10 * v3**2 + 2 * overlap + segmentation.item()
    assert DRAMLoss()(logits_of(0.2, 0.03), truth).item() == pytest.approx(program, rel=1e-5)
    weighted = DRAMLoss(cle_weights=[0.2, 1, 0.5, 1, 1, 1], pse_weights=[0.4, 1, 1])
    expected = 0.5 * 0.115476 + 0.2 * 10 * v20**2 + 0.4 * 10 * v3**2 + 2 * overlap + segmentation.item()
    assert weighted(logits_of(0.2, 0.03), truth).item() == pytest.approx(expected, rel=1e-5)
    assert voxels == 2 * 2 * 4 * (3 + 2)


@pytest.mark.parametrize("paper", [False, True])
def test_right_maps_cost_least(truth, paper):
    """Centrilobular in the low attenuation area, nothing paraseptal, nothing in the scan without emphysema."""
    truth["pse_score"][:] = 0
    low = ((truth["image_hu"] < -950) & (truth["lung"] > 0))[:, :, ::2, ::2, ::2]
    low[1] = False
    right = torch.cat([low, torch.zeros_like(low)], dim=1) * 2.0 - 1
    share = low[0].sum() / (truth["lung"][0, :, ::2, ::2, ::2] > 0).sum()
    truth["cle_score"][0] = CLE.score(share.item())
    loss = DRAMLoss(paper=paper)
    costs = [loss(sign * 12 * right, truth).item() for sign in (1, 0, -1)]
    assert costs == sorted(costs)
    assert costs[0] < 0.05  # the stretched share of even 6e-6 is 0.03


@pytest.mark.parametrize("loss", [DRAMLoss(), DRAMLoss(paper=True), GradeLoss()], ids=["program", "paper", "grades"])
def test_loss_is_a_scalar_with_gradient_also_in_half_precision(truth, loss):
    torch.manual_seed(0)
    channels = 9 if isinstance(loss, GradeLoss) else 2
    logits = torch.randn(2, channels, 4, 6, 8, requires_grad=True)
    value = loss(logits, truth)
    assert value.shape == ()
    value.backward()
    assert logits.grad.isfinite().all()
    assert all(logits.grad[:, channel].any() for channel in range(channels))
    half = logits.detach().bfloat16()
    assert loss(half, truth) == loss(half.float(), truth)


def test_scan_without_lung_is_told(truth):
    truth["lung"][1] = 0
    with pytest.raises(ValueError, match="the lung mask is empty"):
        DRAMLoss()(logits_of(0.2, 0.03), truth)


def test_grade_loss_by_hand():
    """Even logits: log 6 + log 3, however weighted; sure of the first scan alone: log 6 and log 3 of the second."""
    scores = {"cle_score": torch.tensor([1, 5]), "pse_score": torch.tensor([0, 2])}
    logits = torch.zeros(2, 9, 2, 2, 2)
    even = torch.tensor([6.0, 3.0]).log()
    weights = [0.25, 0.25, 0.25, 0.25, 0.25, 0.75], [0.25, 0.5, 0.75]
    assert GradeLoss(*weights)(logits, scores).item() == pytest.approx(even.sum().item())
    logits[0, 1], logits[0, 6] = 50, 50
    assert GradeLoss()(logits, scores).item() == pytest.approx(even.sum().item() / 2)
    assert GradeLoss(*weights)(logits, scores).item() == pytest.approx(even.sum().item() * 0.75)
