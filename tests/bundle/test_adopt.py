import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pulmozoo.bundle import adopt as adopting
from pulmozoo.bundle.adopt import adopt
from pulmozoo.bundle.errors import BadInput
from pulmozoo.bundle.weights_file import check_preset, load_strictly, read_weights, sha256
from pulmozoo.files import write_json

DESCRIPTION = {"tier": "yours", "trained_on": "ten scans", "command": "pulmozoo adopt", "score": "Dice 0.9"}
SIZES = {"small": 3, "large": 5}


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def source(tmp_path) -> Path:
    """A bundle whose network is a batch norm of 3 or 5 channels; its weights are those of the preset ``small``."""
    folder = tmp_path / "bundle"
    network = {"_target_": "torch.nn.BatchNorm1d", "num_features": "$@presets[@preset]['size']"}
    presets = {name: {"size": size} for name, size in SIZES.items()}
    for name in ("inference", "train"):
        config = {"preset": "small", "presets": presets, "seed": 3, "network_def": network}
        write_json(folder / "configs" / f"{name}.json", config)
    metadata = {"name": "some_bundle", "version": "0.1.0", "data_source": "phantoms", "eval_metrics": {"dice": 0.8}}
    metadata["weights"] = {"tier": "phantom", "preset": "small"}
    write_json(folder / "configs" / "metadata.json", metadata)
    (folder / "LICENSE").write_text("licence")
    (folder / "out").mkdir()
    (folder / "out" / "last.pt").write_text("large")
    (folder / "models").mkdir()
    torch.save(nn.BatchNorm1d(3).state_dict(), folder / "models" / "model.pt")
    return folder


@pytest.fixture
def trained() -> nn.BatchNorm1d:
    """A network of the preset ``large`` after some training."""
    network = nn.BatchNorm1d(5)
    nn.init.normal_(network.weight)
    network(torch.randn(4, 5, generator=torch.Generator().manual_seed(0)))
    return network


@pytest.fixture
def checkpoint(tmp_path, trained) -> Path:
    optimizer = torch.optim.Adam(trained.parameters()).state_dict()
    torch.save({"network": trained.state_dict(), "optimizer": optimizer, "epoch": 3}, tmp_path / "last.pt")
    return tmp_path / "last.pt"


def test_weights_are_half_precision_and_hold_no_code(tmp_path, source, checkpoint, trained):
    weights = adopt(checkpoint, source, tmp_path / "new", "large", DESCRIPTION)
    assert weights == tmp_path / "new" / "models" / "model.pt"
    state = torch.load(weights, weights_only=True)
    assert {name: tensor.dtype for name, tensor in state.items()} == {
        "weight": torch.float16,
        "bias": torch.float16,
        "running_mean": torch.float16,
        "running_var": torch.float16,
        "num_batches_tracked": torch.int64,
    }
    network = nn.BatchNorm1d(5)
    load_strictly(network, read_weights(weights), weights)
    for name, tensor in network.state_dict().items():
        assert torch.allclose(tensor, trained.state_dict()[name], rtol=1e-3)


def test_preset_and_metadata_change_with_the_weights(tmp_path, source, checkpoint):
    before = content_of(source)
    out = tmp_path / "new"
    weights = adopt(checkpoint, source, out, "large", DESCRIPTION)
    for name in ("inference", "train"):
        assert read_json(out / "configs" / f"{name}.json") == {
            **read_json(source / "configs" / f"{name}.json"),
            "preset": "large",
        }
    metadata = read_json(out / "configs" / "metadata.json")
    assert metadata == {
        "name": "some_bundle",
        "version": "0.1.0",
        "data_source": "ten scans",
        "weights": {**DESCRIPTION, "preset": "large", "sha256": sha256(weights)},
    }
    check_preset(out, "large")
    assert (out / "LICENSE").read_text() == "licence"
    assert not (out / "out").exists()
    assert content_of(source) == before


def test_bundle_may_be_changed_in_place(source, checkpoint):
    adopt(checkpoint, source, source, "large", DESCRIPTION)
    check_preset(source, "large")
    assert read_json(source / "configs" / "train.json")["preset"] == "large"
    assert (source / "out" / "last.pt").exists()


@pytest.mark.parametrize("in_place", [False, True])
def test_bundle_without_training_config_or_weights(tmp_path, source, checkpoint, in_place):
    (source / "configs" / "train.json").unlink()
    (source / "models" / "model.pt").unlink()
    (source / "models").rmdir()
    out = source if in_place else tmp_path / "new"
    assert adopt(checkpoint, source, out, "large", DESCRIPTION).is_file()
    assert not (out / "configs" / "train.json").exists()


@pytest.mark.parametrize("in_place", [False, True])
def test_a_full_disk_leaves_the_bundle_as_it_was(tmp_path, source, checkpoint, in_place, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = content_of(tmp_path)
    monkeypatch.setattr(adopting, "write_json", full)
    with pytest.raises(OSError, match="No space left"):
        adopt(checkpoint, source, source if in_place else tmp_path / "new", "large", DESCRIPTION)
    assert content_of(tmp_path) == before


@pytest.mark.parametrize("wrapped", [None, "network", "model"])
def test_checkpoint_is_a_state_dict_or_holds_one(tmp_path, source, trained, wrapped):
    state = trained.state_dict()
    torch.save({wrapped: state, "epoch": 1} if wrapped else state, tmp_path / "some.pt")
    weights = adopt(tmp_path / "some.pt", source, tmp_path / "new", "large", DESCRIPTION)
    assert list(read_weights(weights)) == list(state)


@pytest.mark.parametrize("value", [1e5, float("nan")])
def test_weights_that_half_precision_cannot_hold_are_refused(tmp_path, source, trained, value):
    torch.save({**trained.state_dict(), "bias": torch.full((5,), value)}, tmp_path / "some.pt")
    with pytest.raises(BadInput, match="not finite, or too large for half precision"):
        adopt(tmp_path / "some.pt", source, tmp_path / "new", "large", DESCRIPTION)
    assert not (tmp_path / "new").exists()


def test_existing_folder_is_refused(tmp_path, source, checkpoint):
    (tmp_path / "new").mkdir()
    with pytest.raises(BadInput, match=r"new exists already: expected a folder that does not"):
        adopt(checkpoint, source, tmp_path / "new", "large", DESCRIPTION)
    assert not list((tmp_path / "new").iterdir())


@pytest.mark.parametrize(
    ("preset", "sentence"),
    [
        ("small", r"last.pt belong to another network or preset: weight has shape \(5,\), expected \(3,\)"),
        ("medium", "there is no preset 'medium': choose one of small, large"),
    ],
)
@pytest.mark.parametrize("in_place", [False, True])
def test_wrong_preset_leaves_nothing(tmp_path, source, checkpoint, preset, sentence, in_place):
    before = content_of(tmp_path)
    with pytest.raises(BadInput, match=sentence):
        adopt(checkpoint, source, source if in_place else tmp_path / "new", preset, DESCRIPTION)
    assert content_of(tmp_path) == before


def test_missing_checkpoint_leaves_nothing(tmp_path, source):
    with pytest.raises(BadInput, match=r"nowhere.pt does not exist: expected a checkpoint"):
        adopt(tmp_path / "nowhere.pt", source, tmp_path / "new", "large", DESCRIPTION)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("content", [[1], {}, {"network": {}}, {"epoch": 3}], ids=str)
def test_checkpoint_without_a_state_dict_leaves_nothing(tmp_path, source, content):
    torch.save(content, tmp_path / "some.pt")
    with pytest.raises(BadInput, match=r"some.pt holds no state dict: expected one, or one under 'network' or 'model'"):
        adopt(tmp_path / "some.pt", source, tmp_path / "new", "large", DESCRIPTION)
    assert not (tmp_path / "new").exists()


def test_truncated_checkpoint_leaves_nothing(tmp_path, source, checkpoint):
    checkpoint.write_bytes(checkpoint.read_bytes()[:-40])
    with pytest.raises(BadInput, match="truncated"):
        adopt(checkpoint, source, tmp_path / "new", "large", DESCRIPTION)
    assert not (tmp_path / "new").exists()


def test_other_settings_of_the_training_go_into_the_configs(tmp_path, source):
    for name in ("inference", "train"):
        path = source / "configs" / f"{name}.json"
        config = read_json(path)
        write_json(path, {**config, "affine": True, "network_def": {**config["network_def"], "affine": "@affine"}})
    torch.save(nn.BatchNorm1d(5, affine=False).state_dict(), tmp_path / "plain.pt")
    with pytest.raises(BadInput, match="weight is missing"):
        adopt(tmp_path / "plain.pt", source, tmp_path / "new", "large", DESCRIPTION)
    adopt(tmp_path / "plain.pt", source, tmp_path / "new", "large", DESCRIPTION, {"affine": False})
    for name in ("inference", "train"):
        config = read_json(tmp_path / "new" / "configs" / f"{name}.json")
        assert (config["preset"], config["affine"]) == ("large", False)


def test_a_setting_that_the_bundle_does_not_have_is_refused(tmp_path, source, checkpoint):
    with pytest.raises(BadInput, match="has no setting 'wide'"):
        adopt(checkpoint, source, tmp_path / "new", "large", DESCRIPTION, {"wide": True})
    assert not (tmp_path / "new").exists()
