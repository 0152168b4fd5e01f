import pytest
import torch

from pulmozoo.losses.weighted_dice import weighted_dice_loss
from pulmozoo.metrics.area_weighted import area_weighted, slice_scores
from pulmozoo.metrics.slice_histograms import (
    BINS,
    SliceHistogramd,
    best_threshold,
    scores_at_thresholds,
    slice_histogram,
    soft_dice_loss,
)


@pytest.fixture
def slices() -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Probability, truth and lung of three slices; the last has no lesion."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for size in (40, 12, 0):
        truth = torch.zeros(1, 1, 9, 13, dtype=torch.bool)
        truth.flatten()[:size] = True
        lung = torch.ones_like(truth)
        lung[..., 10:] = False
        noise = torch.rand(truth.shape, generator=generator)
        found.append((((noise + truth * 0.5) / 1.5).clamp(max=0.999), truth, lung))
    return found


def test_histogram_by_hand():
    """Lesion outside the lung is never found, the rest outside does not count."""
    probability = torch.tensor([0.005, 0.5, 0.999, 1.0, 0.7, 0.9])
    truth = torch.tensor([False, True, True, True, True, False])
    lung = torch.tensor([True, True, True, True, False, False])
    lesion, healthy = slice_histogram(probability, truth, lung)
    assert {at: count for at, count in enumerate(lesion.tolist()) if count} == {0: 1, 50: 1, 99: 2}
    assert {at: count for at, count in enumerate(healthy.tolist()) if count} == {0: 1}


@pytest.mark.parametrize("percent", [1, 37, 50, 100])
def test_scores_equal_those_of_the_masks(slices, percent):
    for probability, truth, lung in slices[:2]:
        scores = scores_at_thresholds(slice_histogram(probability, truth, lung)[None])
        bins = (probability * BINS).long()
        expected = slice_scores((bins >= percent) & lung, truth, lung)
        assert [values[0, percent].item() for values in scores] == pytest.approx(list(expected))


def test_lesion_that_fills_the_lung_has_no_specificity():
    whole = torch.ones(4, dtype=torch.bool)
    scores = scores_at_thresholds(slice_histogram(torch.tensor([0.2, 0.6, 0.8, 0.9]), whole, whole)[None])
    assert scores.mean_accuracy[0, 50].item() == 0.75


def test_the_best_threshold_is_the_best_of_all(slices):
    histograms = torch.stack([slice_histogram(*planes) for planes in slices])
    threshold, dice = best_threshold(histograms)
    areas = [40.0, 12.0]
    tried = {}
    for percent in range(1, BINS + 1):
        scores = [slice_scores(((p * BINS).long() >= percent) & lung, t, lung).dice for p, t, lung in slices[:2]]
        tried[percent / BINS] = area_weighted(scores, areas).mean
    assert dice == pytest.approx(max(tried.values()))
    assert tried[threshold] == pytest.approx(dice)


def test_loss_is_about_that_of_the_training(slices):
    """Inside the lungs, without the added 1, and with probabilities rounded to the middle of their bin."""
    histograms = torch.stack([slice_histogram(*planes) for planes in slices])
    logits, labels = (
        torch.cat([values[lung] for values, lung in parts])[None, None]
        for parts in ([(p.logit(), lung) for p, _, lung in slices], [(t, lung) for _, t, lung in slices])
    )
    for weights in ([0.0, 1.0], [0.1, 0.9]):
        outside = sum((t & ~lung).sum().item() for _, t, lung in slices)
        assert outside == 9 + 2
        expected = weighted_dice_loss(logits.double(), labels, weights, smooth=0.0).item()
        inside = torch.stack([slice_histogram(p, t & lung, lung) for p, t, lung in slices])
        assert soft_dice_loss(inside, weights) == pytest.approx(expected, abs=0.006)
        assert soft_dice_loss(histograms, weights) > soft_dice_loss(inside, weights)


def test_dictionary_form_takes_logits(slices):
    probability, truth, lung = slices[0]
    data = {"pred": probability.logit(), "label": truth.float(), "lung": lung.float()}
    assert torch.equal(SliceHistogramd()(data)["histogram"], slice_histogram(probability, truth, lung))
