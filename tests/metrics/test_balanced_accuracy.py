import pytest
import torch
from monai.handlers import IgniteMetricHandler
from torch.nn import functional as F

from pulmozoo.losses.lungnet import median_frequency_weights
from pulmozoo.metrics.balanced_accuracy import (
    BalancedAccuracy,
    annotated_confusion,
    balanced_accuracy,
    weighted_accuracy,
)

LABEL = torch.tensor([[1, 1, 1, 1], [2, 2, 3, 0]])[None, None]
GUESS = torch.tensor([[1, 1, 1, 2], [2, 1, 3, 3]])[None, None]
CONFUSION = [[3, 1, 0], [1, 1, 0], [0, 0, 1]]


def logits_of(guess: torch.Tensor, classes: int = 3) -> torch.Tensor:
    return F.one_hot(guess[:, 0] - 1, classes).movedim(-1, 1).float()


def test_confusion_by_hand():  # the pixel that is not annotated counts nowhere
    assert annotated_confusion(logits_of(GUESS), LABEL).tolist() == CONFUSION


def test_balanced_accuracy_by_hand():  # 3/4, 1/2 and 1/1
    assert balanced_accuracy(torch.tensor(CONFUSION)) == pytest.approx(2.25 / 3)


def test_classes_without_pixels_are_left_out():
    wider = torch.zeros(4, 4, dtype=torch.int64)
    wider[:3, :3] = torch.tensor(CONFUSION)
    wider[0, 3] = 4  # 3/8, 1/2 and 1/1
    assert balanced_accuracy(wider) == pytest.approx(1.875 / 3)
    with pytest.raises(ValueError, match="no pixel is annotated"):
        balanced_accuracy(torch.zeros(3, 3))


def test_weighted_accuracy_by_hand():  # (3 + 2 * 1 + 0.5 * 1) / (4 + 2 * 2 + 0.5 * 1)
    assert weighted_accuracy(torch.tensor(CONFUSION), torch.tensor([1, 2, 0.5])) == pytest.approx(5.5 / 8.5)


def test_weighted_by_its_own_median_frequencies_it_is_balanced():
    confusion = torch.tensor([[50, 3, 7], [2, 9, 1], [100, 0, 900]])
    weights = torch.tensor(median_frequency_weights(confusion.sum(dim=1).tolist()))
    assert weighted_accuracy(confusion, weights) == pytest.approx(balanced_accuracy(confusion))


def test_images_are_pooled():
    """One image has one pixel of class 2, wrong; the mean over images would be another."""
    metric = BalancedAccuracy()
    metric(logits_of(GUESS), LABEL)
    metric(list(logits_of(GUESS[..., :1, :1])), list(LABEL[..., 1:, :1]))
    assert metric.confusion().tolist() == [[3, 1, 0], [2, 1, 0], [0, 0, 1]]
    assert metric.aggregate() == pytest.approx((3 / 4 + 1 / 3 + 1) / 3)
    metric.reset()
    with pytest.raises(ValueError, match="no image was given"):
        metric.aggregate()


def test_handler_of_monai_takes_it():
    handler = IgniteMetricHandler(metric_fn=BalancedAccuracy(), save_details=False)
    handler.reset()
    handler.update((list(logits_of(GUESS)), list(LABEL)))
    assert handler.compute() == pytest.approx(0.75)


def test_shapes_must_match():
    with pytest.raises(ValueError, match=r"label must have shape \(1, 1, 2, 4\) to match logits, got \(1, 2, 4\)"):
        annotated_confusion(logits_of(GUESS), LABEL[0])
