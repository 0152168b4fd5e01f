import hashlib
import re
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from torch import Tensor, nn

from pulmozoo.bundle.errors import BadInput
from pulmozoo.networks.pneumothorax import ResNet34
from pulmozoo.weights import imagenet
from pulmozoo.weights.imagenet import RESNET34, ImageNetEncoder, load_imagenet
from pulmozoo.weights.published_file import home

WIDTHS, DEPTHS = (64, 128, 256, 512), (3, 4, 6, 3)


def norm_shapes(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.{part}": (channels,) for part in ("running_mean", "running_var", "weight", "bias")}


def torchvision_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes in torchvision's file, which is so old that its batch norms do not count their batches."""
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7), **norm_shapes("bn1", 64)}
    before = 64
    for layer, (width, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True), start=1):
        for block in range(depth):
            name = f"layer{layer}.{block}"
            for number, channels in ((1, before), (2, width)):
                shapes |= {f"{name}.conv{number}.weight": (width, channels, 3, 3)}
                shapes |= norm_shapes(f"{name}.bn{number}", width)
            if before != width:
                shapes |= {f"{name}.downsample.0.weight": (width, before, 1, 1)}
                shapes |= norm_shapes(f"{name}.downsample.1", width)
            before = width
    return shapes | {"fc.weight": (1000, 512), "fc.bias": (1000,)}


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """Every tensor of its own value, which takes no more room than that."""
    shapes = torchvision_shapes().items()
    return {name: torch.tensor(float(index)).expand(shape) for index, (name, shape) in enumerate(shapes)}


@pytest.fixture(scope="module")
def file(state, tmp_path_factory) -> Path:
    """In the format of its time, with parameters where others have tensors."""
    path = tmp_path_factory.mktemp("imagenet") / "resnet34.pth"
    parameters = {name: nn.Parameter(tensor) if "running" not in name else tensor for name, tensor in state.items()}
    torch.save(parameters, path, _use_new_zipfile_serialization=False)
    return path


@pytest.fixture
def encoder() -> ResNet34:
    return ResNet34(1.0)


def holds(encoder: ResNet34, state: dict[str, Tensor]) -> bool:
    own = encoder.state_dict()
    return all(torch.equal(own[name], tensor) for name, tensor in state.items() if not name.startswith("fc."))


def test_file_has_the_parameters_of_resnet34(state):
    learnt = sum(tensor.numel() for name, tensor in state.items() if "running" not in name)
    assert learnt == 21_797_672  # of torchvision's model, 1000 classes
    assert learnt - 1000 * 513 == 21_284_672


def test_every_tensor_but_the_classifier_finds_its_place(encoder, state, file):
    names = {name for name in state if not name.startswith("fc.")}
    assert names == {name for name in encoder.state_dict() if not name.endswith("num_batches_tracked")}
    load_imagenet(encoder, file)
    assert holds(encoder, state)
    assert all(parameter.requires_grad for parameter in encoder.parameters())


def test_newer_files_count_their_batches(encoder, tmp_path):
    network = ResNet34(1.0)
    network.bn1.num_batches_tracked += 7
    torch.save(network.state_dict(), tmp_path / "new.pth")
    load_imagenet(encoder, tmp_path / "new.pth")
    assert encoder.bn1.num_batches_tracked == 7
    assert holds(encoder, network.state_dict())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"layer2.0.conv1.weight": None}, "layer2.0.conv1.weight is missing"),
        (
            {"layer1.0.downsample.0.weight": torch.zeros(64, 64, 1, 1)},
            "layer1.0.downsample.0.weight has no place in it",
        ),
        ({"layer3.5.bn2.bias": torch.zeros(3)}, r"layer3.5.bn2.bias has shape \(3,\), expected \(256,\)"),
    ],
    ids=["missing", "surplus", "shape"],
)
def test_file_of_another_network_changes_nothing(encoder, state, tmp_path, change, reason):
    changed = {name: tensor for name, tensor in (state | change).items() if tensor is not None}
    torch.save(changed, tmp_path / "other.pth")
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    with pytest.raises(BadInput, match=rf"other\.pth belong to another network.*{reason}"):
        load_imagenet(encoder, tmp_path / "other.pth")
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


def test_narrow_encoder_is_told_that_the_file_is_for_width_1(file):
    with pytest.raises(BadInput, match="fit an encoder of width 1, got one with 16 channels instead of 64 in its stem"):
        load_imagenet(ResNet34(0.25), file)


def test_file_that_holds_no_weights(encoder, tmp_path):
    torch.save({"conv1.weight": print}, tmp_path / "harmful.pth")
    with pytest.raises(BadInput, match=r"harmful\.pth hold more than tensors"):
        load_imagenet(encoder, tmp_path / "harmful.pth")
    with pytest.raises(BadInput, match=r"nowhere\.pth are missing"):
        load_imagenet(encoder, tmp_path / "nowhere.pth")


def start(handler: ImageNetEncoder, times: int = 1) -> None:
    engine = Engine(lambda engine, batch: None)
    handler.attach(engine)
    for _ in range(times):
        engine.run([0], max_epochs=1)


def test_local_file_is_taken_at_the_first_start(encoder, state, file, caplog):
    caplog.set_level("INFO")
    handler = ImageNetEncoder(encoder, str(file))
    start(handler)
    assert holds(encoder, state)
    assert f"encoder from {file}, sha256 {hashlib.sha256(file.read_bytes()).hexdigest()}" in caplog.text
    nn.init.zeros_(encoder.conv1.weight)
    start(handler)
    assert not encoder.conv1.weight.any()


def test_published_file_is_torchvisions():
    kind, digest = RESNET34.identity
    assert (kind, len(digest)) == ("sha256", 64)
    assert RESNET34.url == f"https://download.pytorch.org/models/resnet34-{digest[:8]}.pth"


def test_download_is_told_by_its_digest(encoder, state, file, monkeypatch, tmp_path):
    """The address of a local file stands for torchvision's."""
    monkeypatch.setenv("PULMOZOO_HOME", str(tmp_path))
    offered = RESNET34._replace(url=file.as_uri(), identity=("sha256", hashlib.sha256(file.read_bytes()).hexdigest()))
    monkeypatch.setattr(imagenet, "RESNET34", offered)
    start(ImageNetEncoder(encoder, "download"))
    assert holds(encoder, state)
    assert [path.name for path in home().iterdir()] == ["imagenet_resnet34.pth"]


def test_download_that_is_not_torchvisions_file_leaves_nothing(encoder, file, monkeypatch, tmp_path):
    monkeypatch.setenv("PULMOZOO_HOME", str(tmp_path))
    monkeypatch.setattr(imagenet, "RESNET34", RESNET34._replace(url=file.as_uri()))
    with pytest.raises(BadInput, match=f"{re.escape(file.as_uri())} has sha256 .*, expected {RESNET34.identity[1]}"):
        start(ImageNetEncoder(encoder, "download"))
    assert list(home().iterdir()) == []


def test_failed_download_says_how_to_do_without(encoder, monkeypatch, tmp_path):
    monkeypatch.setenv("PULMOZOO_HOME", str(tmp_path))
    monkeypatch.setattr(imagenet, "RESNET34", RESNET34._replace(url="http://127.0.0.1:9/resnet34.pth"))
    with pytest.raises(BadInput, match=r"resnet34\.pth could not be downloaded .* pass it with --pretrained FILE"):
        start(ImageNetEncoder(encoder, "download"))
