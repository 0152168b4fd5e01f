from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn

from pulmozoo.bundle.errors import BadInput
from pulmozoo.handlers import tracking
from pulmozoo.handlers.progress import TrainingProgress
from pulmozoo.handlers.score_table import ScoreTable
from pulmozoo.handlers.tracking import Tracking

# Three epochs: the loss is the epoch, the rate halves after each, and every second epoch has a validation.
CURVES = {
    "loss": [(1, 1.0), (2, 2.0), (3, 3.0)],
    "learning_rate": [(1, 0.5), (2, 0.25), (3, 0.125)],
    "val_dice": [(2, pytest.approx(0.2))],
}


def train(kind: str, folder: Path) -> None:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.5)
    table = ScoreTable(folder / "scores.csv")

    def step(engine: Engine, batch: int) -> dict[str, torch.Tensor]:
        table.rows = [{"scan": "a", "dice": 0.1 * engine.state.epoch, "auc": None}]
        return {"loss": torch.tensor(float(engine.state.epoch))}

    def halve(engine: Engine) -> None:
        optimizer.param_groups[0]["lr"] /= 2

    trainer = Engine(step)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, halve)
    TrainingProgress().attach(trainer)
    Tracking(kind, folder, folder / "a_bundle", optimizer, table, interval=2).attach(trainer)
    trainer.run([0, 0], max_epochs=3)


def test_curves_in_tensorboard(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="needs tensorboard")
    train("tensorboard", tmp_path / "train")
    found = events.EventAccumulator(str(tmp_path / "train" / "tensorboard")).Reload()
    names = found.Tags()["scalars"]
    curves = {name: [(event.step, event.value) for event in found.Scalars(name)] for name in names}
    assert curves == CURVES


def test_curves_in_mlflow(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    train("mlflow", tmp_path / "train")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'train' / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("a_bundle").experiment_id])
    assert (run.info.run_name, run.info.status) == ("train", "FINISHED")
    histories = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    assert {name: [(each.step, each.value) for each in history] for name, history in histories.items()} == CURVES


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    def nothing(module: str) -> tuple[None, bool]:
        return None, False

    monkeypatch.setattr(tracking, "optional_import", nothing)
    with pytest.raises(BadInput, match="curves by mlflow need a package that is missing: pip install mlflow"):
        train("mlflow", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_another_kind_is_refused(tmp_path):
    with pytest.raises(BadInput, match="called 'wandb': choose one of tensorboard, mlflow, none"):
        train("wandb", tmp_path)
