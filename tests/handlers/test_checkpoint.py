import json
import logging
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from pulmozoo.bundle.errors import BadInput
from pulmozoo.bundle.weights_file import sha256
from pulmozoo.handlers.checkpoint import StrictCheckpointLoader, TrainedLoader


def start(handler: StrictCheckpointLoader | TrainedLoader) -> None:
    engine = Engine(lambda engine, batch: None)
    handler.attach(engine)
    engine.run([0])


@pytest.fixture
def bundle(tmp_path) -> Path:
    """A bundle of one weight, whose limits the metadata name."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "models").mkdir()
    torch.save({"weight": torch.tensor([[3.0]])}, tmp_path / "models" / "model.pt")
    weights = {"preset": "small", "limits": "not learnt yet", "sha256": sha256(tmp_path / "models" / "model.pt")}
    (tmp_path / "configs" / "metadata.json").write_text(json.dumps({"weights": weights}))
    return tmp_path


def test_limits_of_the_bundles_own_weights_are_logged(bundle, caplog):
    network = nn.Linear(1, 1, bias=False)
    with caplog.at_level(logging.WARNING):
        start(StrictCheckpointLoader(bundle / "models" / "model.pt", network, bundle, "small"))
    assert network.weight.item() == 3
    assert caplog.messages == ["beware: not learnt yet"]


def test_other_weights_have_limits_of_their_own(bundle, caplog):
    torch.save({"weight": torch.tensor([[4.0]])}, bundle / "mine.pt")
    with caplog.at_level(logging.WARNING):
        start(StrictCheckpointLoader(bundle / "mine.pt", nn.Linear(1, 1, bias=False), bundle, "small"))
    assert caplog.messages == []


def test_a_training_is_loaded_whole_or_not_at_all(tmp_path):
    network = nn.Linear(1, 1, bias=False)
    torch.save({"network": {"weight": torch.tensor([[5.0]])}, "epoch": 3}, tmp_path / "last.pt")
    start(TrainedLoader(tmp_path / "last.pt", network))
    assert network.weight.item() == 5
    with pytest.raises(BadInput, match="belong to another network: bias is missing"):
        start(TrainedLoader(tmp_path / "last.pt", nn.Linear(1, 1)))
    with pytest.raises(BadInput, match="does not exist: expected a checkpoint"):
        start(TrainedLoader(tmp_path / "best.pt", network))


def test_one_part_of_a_training(tmp_path):
    network = nn.Linear(1, 1, bias=False)
    tensors = {"encoder.weight": torch.tensor([[5.0]]), "decoder.weight": torch.zeros(2, 2)}
    torch.save({"network": tensors}, tmp_path / "last.pt")
    start(TrainedLoader(tmp_path / "last.pt", network, part="encoder."))
    assert network.weight.item() == 5
    with pytest.raises(BadInput, match="belong to another network: weight is missing"):
        start(TrainedLoader(tmp_path / "last.pt", network, part="centre."))
