import pytest
import torch
from ignite.engine import Engine
from torch import nn

from pulmozoo.handlers.resume import Resume
from pulmozoo.handlers.sparse_start import SparseStart


def test_maps_begin_near_the_density():
    head = nn.Conv3d(8, 1, kernel_size=1)
    engine = Engine(lambda engine, batch: None)
    SparseStart([head], density=0.1).attach(engine)
    engine.run([0], max_epochs=1)
    assert head.bias.item() == pytest.approx(-2.1972246)  # log(1 / 9)
    assert head(torch.zeros(1, 8, 2, 2, 2)).sigmoid().mean().item() == pytest.approx(0.1)


def test_a_training_that_resumes_keeps_its_weights(tmp_path):
    head = nn.Conv3d(8, 1, kernel_size=1)

    def step(engine: Engine, batch: int) -> None:
        nn.init.constant_(head.bias, head.bias.item() + 1)

    for epochs in (2, 3):
        trainer = Engine(step)
        SparseStart([head], density=0.5).attach(trainer)
        Resume(tmp_path / "last.pt", {"network": head}).attach(trainer)
        trainer.run([0], max_epochs=epochs)
    assert head.bias.item() == 3
