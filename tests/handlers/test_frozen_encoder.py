from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler
from torch import Tensor, nn

from pulmozoo.handlers.frozen_encoder import FrozenEncoder, frozen_parameters
from pulmozoo.handlers.learning_rate import phased_cosine
from pulmozoo.handlers.resume import Resume
from pulmozoo.losses.pneumothorax import PneumothoraxLoss
from pulmozoo.networks.pneumothorax import PneumothoraxUNet

STAGE_1, EPOCHS = 2, 4
FILMS = torch.rand(2, 2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
BATCHES = [{"image": films, "label": (films[:, :1] > 0.8).float()} for films in FILMS]


def curve(epoch: int) -> float:
    return phased_cosine(epoch, phases=(0, STAGE_1), max_epochs=EPOCHS, lowest=(0.2, 0.1), ahead=True)


class Training:
    """Both stages of the paper's training in one run of MONAI's trainer, on a narrow network."""

    def __init__(self, folder: Path | None = None, stage_1: int = STAGE_1) -> None:
        torch.manual_seed(0)
        self.network = PneumothoraxUNet(width=0.125)
        self.loss = PneumothoraxLoss(lovasz=True, lovasz_stages="first")
        self.optimizer = torch.optim.RAdam(self.network.parameters(), lr=1e-3)
        scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, curve)
        self.trainer = SupervisedTrainer(
            device=torch.device("cpu"),
            max_epochs=EPOCHS,
            train_data_loader=BATCHES,
            network=self.network,
            optimizer=self.optimizer,
            loss_function=self.loss,
            decollate=False,
        )
        FrozenEncoder(self.network.encoder, self.optimizer, self.loss, stage_1).attach(self.trainer)
        LrScheduleHandler(scheduler, print_lr=False).attach(self.trainer)
        self.after = [self.state()]
        self.stages: list[int] = []
        self.steps: list[dict[str, float]] = []
        self.trainer.add_event_handler(Events.EPOCH_COMPLETED, self.record)
        if folder is not None:
            parts = {"network": self.network, "optimizer": self.optimizer, "scheduler": scheduler}
            Resume(folder / "last.pt", parts).attach(self.trainer)

    def state(self) -> dict[str, Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self.network.named_parameters()}

    def record(self, engine: Engine) -> None:
        self.after.append(self.state())
        self.stages.append(self.loss.stage)
        name_of = {parameter: name for name, parameter in self.network.named_parameters()}
        self.steps.append({name_of[key]: value["step"].item() for key, value in self.optimizer.state.items()})

    def changed(self, epoch: int) -> set[str]:
        """What the epoch, counted from 1, has changed."""
        before, after = self.after[epoch - 1 : epoch + 1]
        return {name for name in after if not torch.equal(before[name], after[name])}

    def run(self, until: int | None = None) -> "Training":
        """Train; after ``until`` epochs the next one is cut off in its middle."""
        if until is not None:
            self.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=until * len(BATCHES) + 1), kill)
        self.trainer.run()
        return self


def kill(engine: Engine) -> None:
    raise InterruptedError


@pytest.fixture(scope="module")
def whole() -> Training:
    return Training().run()


def test_convolutions_are_frozen_and_batch_norms_are_not():
    encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Conv2d(4, 5, 1, bias=False)))
    assert [tuple(parameter.shape) for parameter in frozen_parameters(encoder)] == [(4, 3, 3, 3), (4,), (5, 4, 1, 1)]


def test_stage_1_keeps_the_encoders_convolutions_and_nothing_else(whole):
    every = set(whole.after[0])
    frozen = {name for name in every if name.startswith("encoder.") and whole.after[0][name].ndim == 4}
    assert len(frozen) == 36  # 33 of the residual network's 34 layers, the last being fc, and three shortcuts
    assert [whole.changed(epoch) for epoch in (1, 2, 3, 4)] == [every - frozen, every - frozen, every, every]


def test_stage_2_starts_with_a_fresh_optimiser(whole):
    every, batches = set(whole.after[0]), len(BATCHES)
    assert [set(steps.values()) for steps in whole.steps] == [{batches}, {2 * batches}, {batches}, {2 * batches}]
    assert set(whole.steps[2]) == every


def test_loss_knows_its_stage(whole):
    assert whole.stages == [1, 1, 2, 2]


@pytest.mark.parametrize("killed_after", [1, 2, 3])
def test_resumed_training_ends_as_one_that_never_stopped(whole, tmp_path, killed_after):
    with pytest.raises(InterruptedError):
        Training(tmp_path).run(until=killed_after)
    resumed = Training(tmp_path).run()
    assert resumed.stages == whole.stages[killed_after:]
    assert resumed.trainer.state.epoch == EPOCHS
    for name, parameter in resumed.after[-1].items():
        assert torch.equal(parameter, whole.after[-1][name]), name


def test_without_stage_1_everything_learns_from_the_start():
    training = Training(stage_1=0)
    with pytest.raises(InterruptedError):
        training.run(until=1)
    assert training.stages == [2]
    assert training.changed(1) == set(training.after[0])
