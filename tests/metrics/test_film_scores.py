import numpy as np
import pytest
import torch
from PIL import Image

from pulmozoo.handlers.film_score_table import FilmScoreTable
from pulmozoo.metrics.film_scores import FilmScoresd, accuracy, area_under_curve, best_postprocessing, film_dice
from pulmozoo.transforms.film_truth import LoadFilmTruthd


def mask(*pixels: int) -> torch.Tensor:
    made = torch.zeros(1, 4, 4)
    made.view(-1)[list(pixels)] = 1
    return made


@pytest.mark.parametrize(
    ("found", "truth", "dice"),
    [((1, 2, 3), (2, 3, 4, 5, 6), 0.5), ((), (), 1.0), ((1,), (), 0.0), ((), (1,), 0.0), ((1, 2), (1, 2), 1.0)],
)
def test_dice_by_hand(found, truth, dice):
    assert film_dice(mask(*found), mask(*truth) * 255) == dice


def test_masks_of_two_shapes_are_named():
    with pytest.raises(ValueError, match=r"one shape, got \(1, 4, 4\) and \(4, 4\)"):
        film_dice(mask(), mask()[0])


def test_accuracy_by_hand():
    assert accuracy([0.5, 0.9, 0.2, 0.6], [1, 1, 0, 0]) == 0.75
    assert accuracy([0.5, 0.9, 0.2, 0.6], [1, 1, 0, 0], threshold=0.7) == 0.75


def test_auc_by_hand():
    """Pairs of (with, without): 0.9 beats both, 0.4 beats 0.1 and ties with 0.4."""
    assert area_under_curve([0.9, 0.4, 0.4, 0.1], [1, 1, 0, 0]) == pytest.approx(3.5 / 4)


def test_auc_needs_both_kinds():
    with pytest.raises(ValueError, match=r"with \(1\) and without \(0\) a pneumothorax, got \[1\]"):
        area_under_curve([0.1, 0.9], [1, 1])


def test_the_search_finds_the_threshold_and_the_smallest_part():
    """Truth is a square of 0.6 on one film; a speck of 0.9 lies on both, a halo of 0.4 around the square."""
    probabilities, truths = torch.zeros(2, 2, 16, 16), torch.zeros(2, 1, 16, 16)
    probabilities[0, 0, 3:11, 3:11] = 0.4
    probabilities[0, 0, 4:10, 4:10] = 0.6
    probabilities[:, 0, 13:15, 13:15] = 0.9
    truths[0, 0, 4:10, 4:10] = 1
    best = best_postprocessing(list(probabilities), list(truths), thresholds=(0.3, 0.5, 0.7), min_areas_px=(0, 4, 40))
    assert best == (0.5, 4, 1.0)


def scored(truth: torch.Tensor) -> dict[str, object]:
    probabilities = torch.stack([torch.zeros(4, 4), torch.full((4, 4), 0.75)])
    data = {"pred": mask(1, 2, 3), "probabilities": probabilities, "label": truth, "result": {"side": "left"}}
    result: dict[str, object] = FilmScoresd("pred", "label")(data)["result"]
    return result


def test_the_transform_adds_the_scores():
    assert scored(mask(2, 3, 4, 5, 6)) == {"side": "left", "dice": 0.5, "probability": 0.75, "truth": 1}
    assert scored(mask()) == {"side": "left", "dice": 0.0, "probability": 0.75, "truth": 0}


@pytest.mark.parametrize("truth", [0, 1])
def test_a_film_of_which_only_the_class_is_known_has_no_dice(truth):
    assert scored(torch.tensor(truth)) == {"side": "left", "dice": None, "probability": 0.75, "truth": truth}


def test_the_truth_is_a_mask_or_a_number(tmp_path):
    pixels = np.zeros((3, 5), dtype=np.uint8)
    pixels[0, 4] = 255
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    loaded = LoadFilmTruthd("label")({"label": str(tmp_path / "mask.png")})["label"]
    assert loaded.shape == (1, 5, 3)
    assert loaded[0, 4, 0] == 255
    assert LoadFilmTruthd("label")({"label": 1})["label"].shape == ()


def test_the_table_ends_with_what_holds_for_all_films(tmp_path):
    table = FilmScoreTable(tmp_path / "scores.csv")
    assert table.mean() == {}
    table.rows = [
        {"scan": "a", "dice": 0.5, "probability": 0.9, "truth": 1},
        {"scan": "b", "dice": None, "probability": 0.6, "truth": 0},
        {"scan": "c", "dice": 1.0, "probability": 0.3, "truth": 0},
    ]
    mean = table.mean()
    assert (mean["dice"], mean["auc"]) == (0.75, 1.0)
    assert mean["accuracy"] == pytest.approx(2 / 3)
    table.rows = table.rows[:1]
    assert table.mean()["auc"] is None
