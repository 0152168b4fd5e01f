import logging
import multiprocessing
import random
import re
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.handlers import LrScheduleHandler
from torch import nn

from pulmozoo.handlers.hard_patches import HardPatches
from pulmozoo.handlers.progress import TrainingProgress
from pulmozoo.handlers.resume import Resume

BATCH = {"image": torch.rand(1, 1, 2, 3, 4), "label": torch.ones(1, 1, 2, 3, 4, dtype=torch.uint8)}


def asked(patches: HardPatches, epochs: int) -> list[tuple[int, int, float]]:
    """Patches, their size and their share in each epoch of a training."""
    seen = []

    def step(engine: Engine, batch: dict[str, torch.Tensor]) -> None:
        image, label, (same_label, *options), named = engine.prepare_batch(batch, torch.device("cpu"))
        assert image.equal(batch["image"])
        assert same_label is label
        assert named == {}
        seen.append(tuple(options))

    trainer = Engine(step)
    patches.attach(trainer)
    trainer.run([BATCH], max_epochs=epochs)
    return seen


def test_share_falls_linearly_to_the_last_epoch():
    shares = [share for _, _, share in asked(HardPatches(), epochs=5)]
    assert shares == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])
    assert asked(HardPatches(patches=3, patch=132, last_share=0.5), epochs=2) == [(3, 132, 1.0), (3, 132, 0.5)]


def test_first_epochs_are_for_stage_1_alone():
    assert [patches for patches, _, _ in asked(HardPatches(scan_epochs=2), epochs=4)] == [0, 0, 2, 2]


def test_single_epoch_draws_from_everywhere():
    assert asked(HardPatches(), epochs=1) == [(2, 116, 1.0)]


def test_batch_is_handed_on_as_plain_tensors():
    batch = {key: MetaTensor(value) for key, value in BATCH.items()}
    image, label, *_ = HardPatches()(batch, torch.device("cpu"), dtype=torch.float64)
    assert not isinstance(image, MetaTensor)
    assert not isinstance(label, MetaTensor)
    assert image.dtype == torch.float64


class Training:
    """A deterministic training of one number, with everything in it that has a state."""

    def __init__(self, path: Path | None, max_epochs: int = 5) -> None:
        torch.manual_seed(0)
        self.network = nn.Linear(1, 1)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.1, momentum=0.9)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=max_epochs)
        self.parts = {"network": self.network, "optimizer": self.optimizer, "scheduler": self.scheduler}
        self.max_epochs = max_epochs
        self.rates: list[float] = []
        self.trainer = Engine(self.step)
        LrScheduleHandler(self.scheduler, print_lr=False).attach(self.trainer)
        if path is not None:  # last, so that it saves what the other handlers did at the end of the epoch
            Resume(path, self.parts).attach(self.trainer)

    def step(self, engine: Engine, batch: torch.Tensor) -> None:
        self.rates.append(self.optimizer.param_groups[0]["lr"])
        self.optimizer.zero_grad()
        (self.network(batch) - 3).square().mean().backward()
        self.optimizer.step()

    def run(self, until: int | None = None, scans: Sequence[float] = (1.0, -1.0)) -> "Training":
        """Train; after ``until`` epochs the next one is cut off in its middle."""
        if until is not None:
            self.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=until * 2 + 1), kill)
        self.trainer.run([torch.full((1, 1), scan) for scan in scans], max_epochs=self.max_epochs)
        return self


def kill(engine: Engine) -> None:
    raise InterruptedError


def test_resumed_training_ends_as_one_that_never_stopped(tmp_path):
    path = tmp_path / "new" / "last.pt"
    whole = Training(None).run()
    with pytest.raises(InterruptedError):
        Training(path).run(until=2)
    resumed = Training(path).run()
    assert (resumed.trainer.state.epoch, resumed.trainer.state.iteration) == (5, 10)
    assert resumed.rates == pytest.approx(whole.rates[4:])
    for ours, expected in zip(resumed.network.parameters(), whole.network.parameters(), strict=True):
        assert torch.equal(ours, expected)


def train_and_tell(path: Path, epochs: int, told: Connection) -> None:
    """Train until killed; say which epoch starts."""
    training = Training(path, max_epochs=epochs)

    def tell(engine: Engine) -> None:
        told.send(engine.state.epoch)
        time.sleep(0.002)

    training.trainer.add_event_handler(Events.EPOCH_STARTED, tell)
    training.run()


def test_kills_at_random_moments_lose_at_most_an_epoch(tmp_path):
    """A process that is ended by SIGKILL again and again, in an epoch or in saving it, ends as if it never had been."""
    path, epochs = tmp_path / "last.pt", 120
    moments, fork = random.Random(4), multiprocessing.get_context("fork")
    started, kills = 0, 0
    while started < epochs:
        told, teller = fork.Pipe(duplex=False)
        process = fork.Process(target=train_and_tell, args=(path, epochs, teller))
        process.start()
        teller.close()
        first = told.recv()
        assert first in (started, started + 1), "more than the epoch that ran was lost"
        time.sleep(moments.uniform(0, 0.3))
        process.kill()
        process.join()
        kills += process.exitcode != 0
        started = max([first, *rest_of(told)])
        saved = torch.load(path, weights_only=True)["epoch"] if path.exists() else 0
        assert saved >= started - 1
    assert kills > 1
    resumed, whole = Training(path, epochs).run(), Training(None, epochs).run()
    for ours, expected in zip(resumed.network.parameters(), whole.network.parameters(), strict=True):
        assert torch.equal(ours, expected)


def rest_of(told: Connection) -> list[int]:
    """What is left in a pipe whose other end is closed."""
    found = []
    try:
        while True:
            found.append(told.recv())
    except EOFError:
        return found


@pytest.mark.parametrize("scans", [(1.0,), (1.0, -1.0, 2.0)])
def test_resumed_training_may_have_other_scans(tmp_path, scans):
    Training(tmp_path / "last.pt", max_epochs=3).run()
    resumed = Training(tmp_path / "last.pt", max_epochs=5).run(scans=scans)
    assert resumed.trainer.state.epoch == 5
    assert len(resumed.rates) == 2 * len(scans)


def test_finished_training_has_nothing_to_do(tmp_path):
    finished = Training(tmp_path / "last.pt").run()
    again = Training(tmp_path / "last.pt").run()
    assert again.rates == []
    assert torch.equal(again.network.weight, finished.network.weight)


def test_one_whole_file_without_code_in_it(tmp_path):
    training = Training(tmp_path / "last.pt").run()
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    assert set(state) == {"network", "optimizer", "scheduler", "epoch", "iteration"}
    assert torch.equal(state["network"]["weight"], training.network.weight)


def progress_of(loss: Callable[[Engine], float], every: int = 50) -> Engine:
    trainer = Engine(lambda engine, batch: {"loss": torch.tensor(loss(engine), requires_grad=True)})
    TrainingProgress(every).attach(trainer)
    trainer.run([0, 1, 2, 3, 4], max_epochs=2)
    return trainer


def test_progress_tells_the_mean_loss(caplog):
    with caplog.at_level(logging.INFO, "pulmozoo.handlers.progress"):
        trainer = progress_of(lambda engine: float(engine.state.iteration), every=2)
    assert trainer.state.metrics == {"loss": 8.0}
    assert [re.sub(r", \d+ s$", "", record.getMessage()) for record in caplog.records] == [
        "epoch 1, step 2: loss 1.5000",
        "epoch 1, step 4: loss 3.5000",
        "epoch 1 of 2: loss 3.0000",
        "epoch 2, step 2: loss 6.5000",
        "epoch 2, step 4: loss 8.5000",
        "epoch 2 of 2: loss 8.0000",
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_loss_that_is_no_number_stops_the_training(value):
    with pytest.raises(FloatingPointError, match=rf"the loss is {value} in iteration 7: lower learning_rate"):
        progress_of(lambda engine: value if engine.state.iteration == 7 else 1.0)
