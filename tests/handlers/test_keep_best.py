from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from pulmozoo.handlers.keep_best import KeepBest
from pulmozoo.handlers.score_table import ScoreTable


def train(path: Path, scores_by_epoch: list[float], start: int = 0) -> None:
    """One weight that counts the epochs, and a validation with the scores given; ``start`` epochs lie behind."""
    network, table = nn.Linear(1, 1, bias=False), ScoreTable(path.parent / "scores.csv")

    def step(engine: Engine, batch: int) -> None:
        nn.init.constant_(network.weight, engine.state.epoch)
        table.rows = [{"scan": "a", "dice": scores_by_epoch[engine.state.epoch - 1]}]

    trainer = Engine(step)
    KeepBest(path, network, table, "dice").attach(trainer)
    if start:
        trainer.load_state_dict({"epoch": start, "epoch_length": 1, "max_epochs": len(scores_by_epoch)})
        trainer.run([0])
    else:
        trainer.run([0], max_epochs=len(scores_by_epoch))


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
