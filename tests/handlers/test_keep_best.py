from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from pulmozoo.handlers.keep_best import KeepBest
from pulmozoo.handlers.score_table import ScoreTable


def train(path: Path, scores_by_epoch: list[float], start: int = 0, patience: int | None = None) -> int:
    """One weight that counts the epochs, and a validation with the scores given; ``start`` epochs lie behind.

    Returns the last epoch.
    """
    network, table = nn.Linear(1, 1, bias=False), ScoreTable(path.parent / "scores.csv")

    def step(engine: Engine, batch: int) -> None:
        nn.init.constant_(network.weight, engine.state.epoch)
        table.rows = [{"scan": "a", "dice": scores_by_epoch[engine.state.epoch - 1]}]

    trainer = Engine(step)
    KeepBest(path, network, table, "dice", patience).attach(trainer)
    if start:
        trainer.load_state_dict({"epoch": start, "epoch_length": 1, "max_epochs": len(scores_by_epoch)})
        trainer.run([0])
    else:
        trainer.run([0], max_epochs=len(scores_by_epoch))
    return trainer.state.epoch


def kept(path: Path) -> tuple[int, float, float]:
    state = torch.load(path, weights_only=True)
    return state["epoch"], state["score"], state["network"]["weight"].item()


@pytest.mark.parametrize(
    ("scores", "epoch"), [([0.1, 0.5, 0.3], 2), ([0.4, 0.4], 1), ([0.1, 0.2], 2)], ids=["middle", "equal", "last"]
)
def test_the_first_epoch_with_the_highest_score_is_kept(tmp_path, scores, epoch):
    train(tmp_path / "best.pt", scores)
    assert kept(tmp_path / "best.pt") == (epoch, max(scores), epoch)
    assert [path.name for path in tmp_path.iterdir()] == ["best.pt"]


def test_a_resumed_training_remembers_the_best_epoch_before(tmp_path):
    train(tmp_path / "best.pt", [0.5])
    train(tmp_path / "best.pt", [0.5, 0.4], start=1)
    assert kept(tmp_path / "best.pt") == (1, 0.5, 1)


def test_a_new_training_forgets_an_older_one(tmp_path):
    train(tmp_path / "best.pt", [0.9])
    train(tmp_path / "best.pt", [0.2])
    assert kept(tmp_path / "best.pt") == (1, pytest.approx(0.2), 1)


def test_without_scores_nothing_is_written(tmp_path):
    table = ScoreTable(tmp_path / "scores.csv")
    trainer = Engine(lambda engine, batch: None)
    KeepBest(tmp_path / "best.pt", nn.Linear(1, 1), table, "dice").attach(trainer)
    trainer.run([0], max_epochs=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("patience", "last"), [(1, 2), (2, 5), (3, 6), (None, 6)])
def test_a_training_stops_when_no_epoch_is_better_for_long(tmp_path, patience, last):
    assert train(tmp_path / "best.pt", [0.3, 0.3, 0.4, 0.2, 0.1, 0.4], patience=patience) == last


def test_the_patience_of_a_resumed_training_counts_the_epochs_before(tmp_path):
    train(tmp_path / "best.pt", [0.5])
    assert train(tmp_path / "best.pt", [0.5, 0.4, 0.4, 0.4], start=1, patience=2) == 3


@pytest.mark.parametrize(("least_gain", "epochs"), [(0.0, 5), (0.1, 3)])
def test_small_gains_are_kept_but_do_not_prolong_a_training(tmp_path, least_gain, epochs):
    """Gains of 2 to 4 % of the score; nothing is gained in epoch 5."""
    scores = [0.5, 0.52, 0.53, 0.55, 0.54, 0.54]
    network, table = nn.Linear(1, 1), ScoreTable(tmp_path / "scores.csv")

    def step(engine: Engine, batch: int) -> None:
        table.rows = [{"scan": "a", "dice": scores[engine.state.epoch - 1]}]

    trainer = Engine(step)
    patience = 2 if least_gain else 1
    KeepBest(tmp_path / "best.pt", network, table, "dice", patience, least_gain).attach(trainer)
    trainer.run([0], max_epochs=len(scores))
    assert trainer.state.epoch == epochs
    assert kept_score(tmp_path / "best.pt") == max(scores[:epochs])


def kept_score(path: Path) -> float:
    return float(torch.load(path, weights_only=True)["score"])


@pytest.mark.parametrize(
    ("patience", "start", "last", "best"), [(1, 0, 4, 2), (2, 0, 4, 2), (3, 0, 6, 2), (1, 3, 6, 4)], ids=str
)
def test_only_epochs_that_validated_count(tmp_path, patience, start, last, best):
    """A validation every second epoch; the table keeps its scores until the next. Epochs up to ``start`` do not count:
    stage 2 of the lobes' network has not learnt anything then."""
    network, table = nn.Linear(1, 1), ScoreTable(tmp_path / "scores.csv")
    scores = {2: 0.5, 4: 0.4, 6: 0.3, 8: 0.2}

    def step(engine: Engine, batch: int) -> None:
        if engine.state.epoch in scores:
            table.rows = [{"scan": "a", "dice": scores[engine.state.epoch]}]

    trainer = Engine(step)
    KeepBest(tmp_path / "best.pt", network, table, "dice", patience, interval=2, start=start).attach(trainer)
    trainer.run([0], max_epochs=8)
    assert trainer.state.epoch == last
    assert torch.load(tmp_path / "best.pt", weights_only=True)["epoch"] == best
