from math import log

import pytest
import torch

from pulmozoo.losses.lungnet import (
    LungNetLoss,
    annotated_cross_entropy,
    median_frequency_weights,
    unlabelled_entropy,
)

# Fact sheet, section 3: three annotated pixels and one that is not, 3 classes.
PROB = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.4, 0.3], [0.1, 0.1, 0.8], [0.5, 0.3, 0.2]])
LOGITS = PROB.log().T.reshape(1, 3, 2, 2)
LABEL = torch.tensor([1, 2, 3, 0]).reshape(1, 1, 2, 2)
LUNG = torch.ones(1, 1, 2, 2)
TARGET = torch.cat([LABEL, LUNG], dim=1)
WEIGHTS = (1.0, 2.0, 0.5)


def test_worked_values():
    assert annotated_cross_entropy(LOGITS, LABEL, WEIGHTS).item() == pytest.approx(0.657380, abs=1e-6)
    assert unlabelled_entropy(LOGITS, LABEL, LUNG).item() == pytest.approx(1.029653, abs=1e-6)
    assert LungNetLoss(WEIGHTS)(LOGITS, TARGET).item() == pytest.approx(0.694607, abs=1e-6)
    assert LungNetLoss(WEIGHTS, unlabelled_weight=0)(LOGITS, TARGET).item() == pytest.approx(0.657380, abs=1e-6)


def test_cross_entropy_by_hand():
    expected = -(1 * log(0.7) + 2 * log(0.4) + 0.5 * log(0.8)) / 3.5
    assert annotated_cross_entropy(LOGITS, LABEL, WEIGHTS).item() == pytest.approx(expected, abs=1e-6)


def test_constant_logits_do_not_matter():
    shifted = LOGITS + 7
    assert LungNetLoss(WEIGHTS)(shifted, TARGET).item() == pytest.approx(0.694607, abs=1e-5)


def test_what_is_outside_the_lung_and_not_annotated_does_not_count():
    """Four more pixels of the highest entropy around the crop, and an annotation outside the lung that stays."""
    wider = torch.nn.functional.pad(LOGITS, [2, 0])
    label, lung = torch.nn.functional.pad(LABEL, [2, 0]), torch.nn.functional.pad(LUNG, [2, 0])
    lung[..., 0, 2] = 0
    assert LungNetLoss(WEIGHTS)(wider, torch.cat([label, lung], dim=1)).item() == pytest.approx(0.694607, abs=1e-6)


def test_image_without_annotation_and_image_without_unlabelled_lung():
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    nothing = torch.zeros_like(LABEL)
    assert annotated_cross_entropy(logits, nothing, WEIGHTS).item() == 0
    assert unlabelled_entropy(logits, LABEL, torch.zeros_like(LUNG)).item() == 0
    LungNetLoss(WEIGHTS)(logits, torch.zeros_like(TARGET)).backward()
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_volumes_are_pixels_too():
    loss = LungNetLoss(WEIGHTS)
    volume = [given.unsqueeze(2).expand(-1, -1, 5, -1, -1) for given in (LOGITS, TARGET)]
    assert loss(*volume).item() == pytest.approx(0.694607, abs=1e-6)


def test_weights_are_median_frequencies():
    assert median_frequency_weights([40, 10, 20]) == [0.5, 2, 1]
    assert median_frequency_weights([40, 0, 10]) == [25 / 40, 0, 2.5]
    with pytest.raises(ValueError, match="no class has annotated pixels"):
        median_frequency_weights([0, 0])


def test_gradient():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    label = torch.tensor([[[[0, 1, 2], [3, 0, 0]]], [[[0, 0, 0], [1, 1, 3]]]])
    lung = torch.tensor([[[[1, 1, 1], [1, 1, 0]]], [[[1, 0, 1], [1, 0, 1]]]])
    assert torch.autograd.gradcheck(annotated_cross_entropy, (logits, label, WEIGHTS))
    assert torch.autograd.gradcheck(unlabelled_entropy, (logits, label, lung))


@pytest.mark.parametrize("target", [TARGET[0], TARGET[:, :1], TARGET[..., :1]])
def test_shapes_must_match(target):
    with pytest.raises(ValueError, match=r"target must have shape \(1, 2, 2, 2\) to match logits, got"):
        LungNetLoss(WEIGHTS)(LOGITS, target)
