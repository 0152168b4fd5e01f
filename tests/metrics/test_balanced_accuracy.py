import pytest
import torch
from torch.nn import functional as F

from pulmozoo.metrics.balanced_accuracy import Confusiond, annotated_confusion, balanced_accuracy

LABEL = torch.tensor([[1, 1, 1, 1], [2, 2, 3, 0]])[None]
GUESS = torch.tensor([[1, 1, 1, 2], [2, 1, 3, 3]])[None]
CONFUSION = [[3, 1, 0], [1, 1, 0], [0, 0, 1]]


def test_confusion_by_hand():  # the pixel that is not annotated counts nowhere
    assert annotated_confusion(GUESS, LABEL, 3).tolist() == CONFUSION


def test_no_lung_counts_as_healthy():
    guess = GUESS.clone()
    guess[0, 1, 2] = 0
    assert annotated_confusion(guess, LABEL, 3).tolist() == [[3, 1, 0], [1, 1, 0], [1, 0, 0]]


def test_label_maps_and_logits_have_the_same_confusion():
    logits = F.one_hot(GUESS[0] - 1, 3).movedim(-1, 0).float()
    for guess in (GUESS, logits):
        data = Confusiond("pred", "label", classes=3)({"pred": guess, "label": LABEL})
        assert data["confusion"].tolist() == CONFUSION


def test_balanced_accuracy_by_hand():  # 3/4, 1/2 and 1/1
    assert balanced_accuracy(torch.tensor(CONFUSION)) == pytest.approx(2.25 / 3)


def test_classes_without_pixels_are_left_out():
    wider = torch.zeros(4, 4, dtype=torch.int64)
    wider[:3, :3] = torch.tensor(CONFUSION)
    wider[0, 3] = 4  # 3/8, 1/2 and 1/1
    assert balanced_accuracy(wider) == pytest.approx(1.875 / 3)
    with pytest.raises(ValueError, match="no pixel is annotated"):
        balanced_accuracy(torch.zeros(3, 3))


def test_shapes_must_match():
    with pytest.raises(ValueError, match=r"the shape of the guess \(1, 2, 4\), got \(2, 4\)"):
        annotated_confusion(GUESS, LABEL[0], 3)
