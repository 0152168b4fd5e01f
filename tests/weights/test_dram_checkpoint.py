"""The emphysema checkpoint: a stand-in of its exact form, from its names and shapes, as PyTorch Lightning writes it."""

import json
import sys
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from pulmozoo.bundle.errors import BadInput
from pulmozoo.bundle.weights_file import sha256
from pulmozoo.networks.dram import DRAM
from pulmozoo.weights import convert
from pulmozoo.weights.dram import our_name, released_network
from pulmozoo.weights.published import PUBLISHED
from pulmozoo.weights.published_file import check_identity, read_state_dict
from seeded import seeded_state_dict

BUNDLE = "emphysema_subtype_ct_grading"
EMPHYSEMA = PUBLISHED[BUNDLE]
GOLDEN = Path(__file__).parents[1] / "golden"
WIDTH_OF_STAND_IN = 16  # of 64 and more, so that the file is small


class AttributeDict(dict):
    """A dictionary of settings as Lightning has its own."""


def shapes_of(case: str) -> dict[str, list[int]]:
    """Names and shapes of a parity case, with the prefix that they have in the checkpoint."""
    shapes = json.loads((GOLDEN / f"dram_{case}.json").read_text())["checkpoint"]
    return {f"model.{name}": shape for name, shape in shapes.items()}


def small_state() -> dict[str, Tensor]:
    """All tensors of the checkpoint by name, none of them longer than 16 along an axis."""
    small = {name: [min(n, WIDTH_OF_STAND_IN) for n in shape] for name, shape in shapes_of("resnet34_reg").items()}
    return seeded_state_dict(small, seed=5, gains={})


class Harmful:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return exec, (f"open({str(self.mark)!r}, 'w').close()",)


def write_checkpoint(path: Path, state: dict[str, Tensor], **more: object) -> Path:
    """Save as Lightning 1.9 does, hyper-parameters as pickled objects, one class of a program that is not here."""
    module = sys.modules["lightning_that_is_not_here"] = ModuleType("lightning_that_is_not_here")
    module.AttributeDict = AttributeDict
    before, AttributeDict.__module__ = AttributeDict.__module__, module.__name__
    content = {
        "epoch": 87,
        "global_step": 67584,
        "pytorch-lightning_version": "1.9.1",
        "state_dict": OrderedDict(state),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 88}}}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(0.64)}},
        "optimizer_states": [{"state": {}, "param_groups": [{"lr": 1e-4}]}],
        "lr_schedulers": [{"gamma": 0.95, "_last_lr": [1e-6]}],
        "hparams_name": "args",
        "hyper_parameters": AttributeDict(args=Namespace(lr=1e-4, backbone="resnet34", root=Path("data"))),
        "arguments": Namespace(batch_size=1, more=Namespace(sizes=(128, 224, 288))),
        **more,
    }
    try:
        torch.save(content, path)
    finally:
        AttributeDict.__module__ = before
        del sys.modules[module.__name__]
    return path


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("conv1.weight", "stem.0.weight"),
        ("bn1.running_mean", "stem.1.running_mean"),
        ("layer1.0.conv1.weight", "layers.0.0.body.0.weight"),
        ("layer3.5.bn1.bias", "layers.2.5.body.1.bias"),
        ("layer4.2.conv2.weight", "layers.3.2.body.3.weight"),
        ("layer2.0.bn3.num_batches_tracked", "layers.1.0.body.7.num_batches_tracked"),
        ("us1.conv_blocks.0.0.bias", "up1.0.bias"),
        ("us2.conv_blocks.1.1.running_var", "up2.4.running_var"),
        ("us3.0.weight", "up3.0.weight"),
        ("us3.1.bias", "up3.1.bias"),
        ("fcs.0.weight", "cle_head.weight"),
        ("fcs.1.bias", "pse_head.bias"),
    ],
)
def test_names_with_and_without_the_prefix(name, ours):
    assert our_name(f"model.{name}") == our_name(name) == ours


@pytest.mark.parametrize("depth", [18, 34, 50])
@pytest.mark.parametrize("kind", ["reg", "cls"])
def test_every_tensor_finds_its_place(depth, kind):
    published = {name: torch.zeros(()).expand(shape) for name, shape in shapes_of(f"resnet{depth}_{kind}").items()}
    with torch.device("meta"):
        network = DRAM(depth=depth, regression=kind == "reg")
    converted = convert(BUNDLE, published, network)
    assert list(converted) == list(network.state_dict())
    assert len(converted) == len(published)
    if (depth, kind) == (34, "reg"):
        assert list(convert(BUNDLE, published)) == list(converted)
    else:
        with pytest.raises(BadInput, match=f"to fit the network of {BUNDLE}|no place in the network of {BUNDLE}|lacks"):
            convert(BUNDLE, published)


def test_released_network_is_the_regression_of_the_paper():
    with torch.device("meta"):
        network = released_network()
    assert sum(parameter.numel() for parameter in network.parameters()) == 64_789_730


def test_identity_is_pinned(tmp_path):
    path = write_checkpoint(tmp_path / "paper.ckpt", small_state())
    with pytest.raises(
        BadInput, match=r"has sha256 \w{64}, expected 41a3c1ac7460.*download https://media.*/paper.ckpt"
    ):
        check_identity(path, EMPHYSEMA, origin=path)
    check_identity(path, EMPHYSEMA._replace(identity=("sha256", sha256(path))), origin=path)
    assert (EMPHYSEMA.licence, EMPHYSEMA.preset, EMPHYSEMA.state_key) == ("MIT", "released", "state_dict")


def test_tensors_are_read_beside_pickled_settings(tmp_path):
    state = small_state()
    path = write_checkpoint(tmp_path / "paper.ckpt", state)
    with pytest.raises(ModuleNotFoundError, match="lightning_that_is_not_here"):
        torch.load(path, weights_only=False)
    read = read_state_dict(path, EMPHYSEMA)
    assert list(read) == list(state)
    assert all(torch.equal(read[name], tensor) for name, tensor in state.items())


def test_code_in_the_settings_is_not_executed(tmp_path):
    mark = tmp_path / "mark"
    content = {"state_dict": small_state(), "hyper_parameters": Namespace(lr=1e-4, extra=Harmful(mark))}
    torch.save(content, tmp_path / "paper.ckpt")
    assert list(read_state_dict(tmp_path / "paper.ckpt", EMPHYSEMA)) == list(content["state_dict"])
    assert not mark.exists()
    torch.load(tmp_path / "paper.ckpt", weights_only=False)
    assert mark.exists()
