import shutil
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from monai.data import DataLoader

from conftest import network_of
from pulmozoo.bundle.errors import BadInput
from pulmozoo.bundle.weights_file import check_preset, read_metadata, sha256
from pulmozoo.handlers.replace_weights import ReplaceWeights
from pulmozoo.handlers.score_table import ScoreTable


@pytest.fixture
def bundle_copy(small_bundle, tmp_path) -> Path:
    """A small bundle of this test's own."""
    return Path(shutil.copytree(small_bundle, tmp_path / small_bundle.name))


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def finish(handler: ReplaceWeights, *, epochs: int = 3, scans: int = 4) -> None:
    """A training that changes nothing, on so many scans, with the handler at its end."""
    trainer = Engine(take_no_step)
    handler.attach(trainer)
    trainer.run(DataLoader([{}] * scans), max_epochs=epochs)


def take_no_step(engine: Engine, batch: object) -> None:
    return None


def scores_of(tmp_path: Path, *values: float | None) -> ScoreTable:
    table = ScoreTable(tmp_path / "scores.csv")
    table.rows = [{"scan": str(number), "mean_iou": value} for number, value in enumerate(values)]
    return table


def test_weights_and_metadata_change_together(bundle_copy, tmp_path):
    before = read_metadata(bundle_copy)
    network = network_of(bundle_copy, seed=7)
    finish(ReplaceWeights(network, str(bundle_copy), "phantom", scores_of(tmp_path, 0.5, 0.25)), epochs=3, scans=4)
    weights = bundle_copy / "models" / "model.pt"
    state = torch.load(weights, weights_only=True)
    assert all(torch.equal(state[name], value.half()) for name, value in network.state_dict().items())
    check_preset(bundle_copy, "phantom")
    after = read_metadata(bundle_copy)["weights"]
    assert (after["tier"], after["sha256"]) == ("yours", sha256(weights))
    assert after["trained_on"] == f"{before['weights']['trained_on']}; then 4 scans of yours, 3 epochs"
    assert after["score"] == "mean_iou 0.375 (mean of 2 scans held back)"
    assert [path.name for path in (bundle_copy / "models").iterdir()] == ["model.pt"]


def test_score_of_no_scan(bundle_copy, tmp_path):
    finish(ReplaceWeights(network_of(bundle_copy), bundle_copy, "phantom", scores_of(tmp_path)))
    assert read_metadata(bundle_copy)["weights"]["score"] == "none: no scan was held back"


def test_weights_beyond_half_precision_leave_the_bundle_as_it_was(bundle_copy, tmp_path):
    before = content_of(bundle_copy)
    network = network_of(bundle_copy)
    torch.nn.init.constant_(next(network.parameters()), 1e5)
    with pytest.raises(BadInput, match="too large for half precision"):
        finish(ReplaceWeights(network, bundle_copy, "phantom", scores_of(tmp_path)))
    assert content_of(bundle_copy) == before


def test_training_that_is_stopped_leaves_the_bundle_as_it_was(bundle_copy, tmp_path):
    before = content_of(bundle_copy)
    trainer = Engine(stop)
    ReplaceWeights(network_of(bundle_copy, seed=7), bundle_copy, "phantom", scores_of(tmp_path)).attach(trainer)
    with pytest.raises(InterruptedError):
        trainer.run(DataLoader([{}]), max_epochs=1)
    assert content_of(bundle_copy) == before


def stop(engine: Engine, batch: object) -> None:
    raise InterruptedError
