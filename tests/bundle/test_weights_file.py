import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pulmozoo.bundle.errors import BadInput
from pulmozoo.bundle.weights_file import check_preset, load_strictly, read_metadata, read_weights, sha256


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


@pytest.fixture
def path(tmp_path, network) -> Path:
    torch.save(network.state_dict(), tmp_path / "model.pt")
    return tmp_path / "model.pt"


def said(path: Path) -> str:
    with pytest.raises(BadInput) as caught:
        read_weights(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


class Attack:
    """Unpickled carelessly, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.marker}",)


def test_sha256_by_hand(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, example B.1
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_state_dict_comes_back(path, network):
    state = read_weights(path)
    assert list(state) == list(network.state_dict())
    assert all(torch.equal(state[name], tensor) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("name", ["nowhere.pt", "."], ids=["file", "folder"])
def test_missing_weights(tmp_path, name):
    assert "are missing: expected a state dict there; the network never runs untrained" in said(tmp_path / name)


@pytest.mark.parametrize("kept", [0, 1, 100, 700, -1])
def test_truncated_weights(path, kept):
    path.write_bytes(path.read_bytes()[:kept])
    assert "truncated" in said(path) or "damaged" in said(path)


def test_text_is_no_weights_file(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "damaged" in said(path) or "no PyTorch file" in said(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_the_file_is_not_executed(tmp_path, path, legacy):
    marker = tmp_path / "executed"
    if legacy:
        path.write_bytes(pickle.dumps({"weight": Attack(marker)}, protocol=2))
        pickle.loads(path.read_bytes())  # the attack is a real one
        assert marker.exists()
        marker.unlink()
    else:
        torch.save({"weight": Attack(marker)}, path)
    assert "hold more than tensors, or are damaged" in said(path)
    assert "code in the file was not executed" in said(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "content",
    [torch.ones(3), [torch.ones(3)], {}, {"network": {"weight": torch.ones(3)}}, {"weight": torch.ones(3), "epoch": 4}],
    ids=["tensor", "list", "empty", "nested", "with a number"],
)
def test_anything_but_a_bare_state_dict_is_refused(path, content):
    torch.save(content, path)
    assert "are no bare state dict: expected only names and tensors" in said(path)


def test_half_precision_fills_a_network(path, network):
    half = {
        name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in read_weights(path).items()
    }
    other = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    load_strictly(other, half, path)
    for name, tensor in other.state_dict().items():
        assert tensor.dtype == network.state_dict()[name].dtype
        assert torch.allclose(tensor, network.state_dict()[name], rtol=1e-3)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"1.running_var": None}, "another network: 1.running_var is missing"),
        ({"2.weight": torch.ones(1)}, "another network: 2.weight has no place in it"),
        (
            {"0.weight": torch.ones(4, 2)},
            r"another network or preset: 0.weight has shape \(4, 2\), expected \(3, 2\)",
        ),
        ({"1.num_batches_tracked": torch.ones(1)}, r"1.num_batches_tracked has shape \(1,\), expected \(\)"),
    ],
    ids=["missing", "surplus", "shape", "scalar"],
)
def test_weights_that_do_not_fit_change_nothing(path, network, change, sentence):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state: dict[str, Tensor] = {name: tensor + 1 for name, tensor in before.items()} | change
    with pytest.raises(BadInput, match=sentence):
        load_strictly(network, {name: tensor for name, tensor in state.items() if tensor is not None}, path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_preset_of_the_weights_decides(tmp_path):
    (tmp_path / "configs").mkdir()
    metadata = {"name": "some_bundle", "weights": {"preset": "small"}}
    (tmp_path / "configs" / "metadata.json").write_text(json.dumps(metadata))
    assert read_metadata(tmp_path) == metadata
    check_preset(tmp_path, "small")
    with pytest.raises(BadInput, match=r"belong to preset 'small', asked for was 'paper': run with --preset small, or"):
        check_preset(tmp_path, "paper")
    (tmp_path / "configs" / "metadata.json").write_text(json.dumps({"name": "some_bundle"}))
    with pytest.raises(BadInput, match="belong to preset None"):
        check_preset(tmp_path, "small")
