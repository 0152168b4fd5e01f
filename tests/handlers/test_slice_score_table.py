import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor

from pulmozoo.handlers.plateau import PlateauDecay
from pulmozoo.handlers.slice_score_table import SliceScoreTable
from pulmozoo.metrics.slice_histograms import BINS

PIXEL_CM2 = 0.04


def histogram(hit: int, missed: int, false: int, healthy: int) -> torch.Tensor:
    """Of a slice that is certain of everything: probability 0.9 or 0.1."""
    counts = torch.zeros(2, BINS, dtype=torch.long)
    counts[0, 90], counts[0, 10], counts[1, 90], counts[1, 10] = hit, missed, false, healthy
    return counts


@pytest.fixture
def table(tmp_path: Path) -> SliceScoreTable:
    """Two slices with lesion, 75 and 25 pixels large, and one without."""
    scores = SliceScoreTable(tmp_path / "scores.csv", threshold=0.5, class_weights=[0.0, 1.0])
    engine: Any = SimpleNamespace(state=SimpleNamespace())
    scores.start(engine)
    slices = [histogram(60, 15, 15, 300), histogram(5, 20, 0, 300), histogram(0, 0, 4, 96)]
    image = MetaTensor(torch.zeros(1, 8, 4, 4), meta={"filename_or_obj": "/data/chest.nii.gz"})
    engine.state.batch = [{"image": image, "slice": 7 + i, "pixel_cm2": PIXEL_CM2} for i in range(3)]
    engine.state.output = [{"histogram": counts} for counts in slices]
    scores.add(engine)
    scores.write(engine)
    return scores


def test_means_are_weighted_by_area(table):
    first, second = 120 / (75 + 75), 10 / (25 + 5)
    mean = table.mean()
    assert mean["dice"] == pytest.approx(0.75 * first + 0.25 * second)
    assert mean["jaccard"] == pytest.approx(0.75 * 60 / 90 + 0.25 * 5 / 25)
    assert mean["mean_accuracy"] == pytest.approx(0.75 * (0.8 + 300 / 315) / 2 + 0.25 * (0.2 + 1) / 2)
    assert mean["dice_sd"] == pytest.approx((first - second) * (0.75 * 0.25) ** 0.5)
    assert mean["dice_se"] == pytest.approx(mean["dice_sd"] * (0.75**2 + 0.25**2) ** 0.5)
    assert mean["false_percent"] == pytest.approx(4.0)


def test_the_threshold_that_would_be_best(table):
    """Everything at 0.1 and above: 75 of 75 + 315 false, 25 of 25 + 300 false; so 0.11 to 0.9 is better."""
    mean = table.mean()
    assert 0.1 < mean["best_threshold"] <= 0.9
    assert mean["best_dice"] == pytest.approx(mean["dice"])
    assert 0 < mean["loss"] < 1


def test_a_row_a_slice_and_the_mean_at_the_end(table, tmp_path):
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["scan"] for row in rows] == ["chest.nii.gz"] * 3 + ["mean"]
    assert [row["slice"] for row in rows] == ["7", "8", "9", ""]
    assert [float(row["area_cm2"]) for row in rows[:3]] == pytest.approx([75 * PIXEL_CM2, 25 * PIXEL_CM2, 0])
    assert rows[2]["dice"] == ""
    assert float(rows[3]["dice"]) == pytest.approx(table.mean()["dice"])


def test_nothing_was_scored(tmp_path):
    assert SliceScoreTable(tmp_path / "scores.csv", 0.5, [0.1, 0.9]).mean() == {}


def test_the_rate_falls_when_the_loss_does_not():
    losses = iter([0.5, 0.4, 0.6, 0.6, 0.6, None])
    scores: Any = SimpleNamespace(mean=lambda: {"loss": next(losses)})
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.2, patience=2)
    rates: list[float] = []
    trainer = Engine(lambda engine, batch: None)
    PlateauDecay(scheduler, scores, interval=2).attach(trainer)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: rates.append(optimizer.param_groups[0]["lr"]))
    trainer.run([0], max_epochs=13)
    assert rates[1::2] == pytest.approx([1.0, 1.0, 1.0, 1.0, 0.2, 0.2])
