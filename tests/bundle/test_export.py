"""Exported files answer as the network does, and metadata say of each format whether it works."""

import json
import re
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from monai.data import load_net_with_metadata
from torch import Tensor, nn

from pulmozoo.bundle import export as exporting
from pulmozoo.bundle.errors import BadInput
from pulmozoo.bundle.export import FORMATS, FREE, export_network, open_axes, seeded_image, trained_network
from pulmozoo.bundle.weights_file import read_metadata
from pulmozoo.cli import export
from pulmozoo.files import write_json

IMAGE = {"num_channels": 1, "spatial_shape": ["8", "8*n", "*"], "value_range": [-1, 3]}


class Scaled(nn.Module):
    """The image times a weight; ``wrong`` counts the batch in a way that a trace keeps as a number."""

    def __init__(self, wrong: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.wrong = wrong

    def forward(self, image: Tensor) -> Tensor:
        return image * self.weight * (len(image) if self.wrong else 1)


class TwoImages(Scaled):
    """Takes batches of two only, once traced."""

    def forward(self, image: Tensor) -> Tensor:
        return image.reshape(len(image), -1) * self.weight


@pytest.fixture
def toy(tmp_path) -> Path:
    """A bundle whose network multiplies by 2.5."""
    return toy_bundle(tmp_path / "toy", "Scaled", wrong=False)


def toy_bundle(folder: Path, network: str, *, wrong: bool) -> Path:
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    network_def = {"_target_": f"{__name__}.{network}", "wrong": wrong}
    write_json(
        folder / "configs" / "inference.json",
        {"preset": "one", "presets": {"one": {}, "two": {}}, "network_def": network_def},
    )
    write_json(
        folder / "configs" / "metadata.json",
        {"name": "toy", "weights": {"preset": "one"}, "network_data_format": {"inputs": {"image": IMAGE}}},
    )
    torch.save({"weight": torch.tensor(2.5).half()}, folder / "models" / "model.pt")
    return folder


def answer_of(file: Path, image: Tensor) -> tuple[Tensor, dict[str, Any]]:
    """What a file answers and says, read without pulmozoo."""
    if file.suffix == ".ts":
        network, metadata, _ = load_net_with_metadata(str(file))
        return network(image), metadata
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {"image": image.numpy()})
    return torch.from_numpy(answer), json.loads(session.get_modelmeta().custom_metadata_map["metadata.json"])


@pytest.mark.parametrize("ending", FORMATS)
def test_each_bundle_exports_as_its_metadata_say(bundle, small_copy_of, tmp_path, ending):
    small = small_copy_of(bundle)
    metadata = read_metadata(small)
    assert set(metadata["exports"]) == set(FORMATS.values())
    reason = metadata["exports"][FORMATS[ending]]
    if reason != FREE:
        with pytest.raises(BadInput, match=re.escape(reason)):
            export_network(small, tmp_path / f"network{ending}")
        assert not list(tmp_path.iterdir())
        return
    done = export_network(small, tmp_path / f"network{ending}")
    assert [path.name for path in tmp_path.iterdir()] == [f"network{ending}"]
    image = metadata["network_data_format"]["inputs"]["image"]
    another = seeded_image(image, batch=3, steps=(2, 2, 3))
    assert another.shape not in done.shapes
    with torch.inference_mode():
        answer, said = answer_of(done.path, another)
        expected = trained_network(small, metadata["weights"]["preset"])(another)
    span = (expected.max() - expected.min()).item()
    assert (answer - expected).abs().max() <= 1e-4 * span
    assert said["exported"]["preset"] == metadata["weights"]["preset"]
    assert said["network_data_format"] == metadata["network_data_format"]


def test_inputs_by_hand():
    image = seeded_image(IMAGE, batch=2, steps=(2, 3, 4))
    assert image.shape == (2, 1, 8, 24, 36)
    assert -1 <= image.min() < -0.9
    assert 2.9 < image.max() <= 3
    assert open_axes(IMAGE) == {0: "batch", 3: "height", 4: "width"}
    film = {**IMAGE, "spatial_shape": ["32*n", "32*n"]}
    assert seeded_image(film, batch=1, steps=(3, 2, 2)).shape == (1, 1, 96, 64)
    assert open_axes(film) == {0: "batch", 2: "height", 3: "width"}


def test_an_onnx_file_names_what_it_takes(toy, tmp_path):
    done = export_network(toy, tmp_path / "toy.onnx")
    (taken,) = onnx.load(done.path).graph.input
    sizes = [axis.dim_param or axis.dim_value for axis in taken.type.tensor_type.shape.dim]
    assert (taken.name, sizes) == ("image", ["batch", 1, 8, "height", "width"])
    answer, _ = answer_of(done.path, torch.full((3, 1, 8, 2, 5), 2.0))
    assert torch.equal(answer, torch.full((3, 1, 8, 2, 5), 5.0))


def test_a_file_that_answers_otherwise_is_not_kept(tmp_path):
    target = tmp_path / "out" / "toy.ts"
    target.parent.mkdir()
    target.write_text("of before")
    # Traced with two images, the file doubles a single one too: up to 3 * 2.5 too much, where two span -5 to 15.
    with pytest.raises(BadInput, match=r"the torchscript file answers up to 7\.5 differently, where answers span 20:"):
        export_network(toy_bundle(tmp_path / "toy", "Scaled", wrong=True), target)
    assert target.read_text() == "of before"
    assert [path.name for path in target.parent.iterdir()] == ["toy.ts"]


def test_a_file_that_takes_one_batch_only_is_not_kept(tmp_path):
    source = toy_bundle(tmp_path / "toy", "TwoImages", wrong=False)
    with pytest.raises(BadInput, match=r"expected \(1, "):
        export_network(source, tmp_path / "out" / "toy.ts")
    assert not list((tmp_path / "out").iterdir())


def test_a_format_that_metadata_rule_out(toy, tmp_path):
    metadata = read_metadata(toy)
    write_json(toy / "configs" / "metadata.json", {**metadata, "exports": {"onnx": "no operator for it"}})
    with pytest.raises(BadInput, match="toy cannot be exported to onnx: no operator for it"):
        export_network(toy, tmp_path / "toy.onnx")
    assert export_network(toy, tmp_path / "toy.ts").difference == 0


def test_what_cannot_be_written_is_said(toy, tmp_path, monkeypatch):
    with pytest.raises(BadInput, match=r"toy.pth ends in neither \.ts nor \.onnx: name the file by the format"):
        export_network(toy, tmp_path / "toy.pth")
    with pytest.raises(BadInput, match="belong to preset 'one', asked for was 'two'"):
        export_network(toy, tmp_path / "toy.ts", "two")
    monkeypatch.setattr(exporting, "has_onnxscript", False)
    with pytest.raises(BadInput, match=re.escape("pip install 'pulmozoo[export]'")):
        export_network(toy, tmp_path / "toy.onnx")
    (toy / "models" / "model.pt").unlink()
    with pytest.raises(BadInput, match=r"model.pt are missing"):
        export_network(toy, tmp_path / "toy.ts")
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]


def test_the_command_compares_and_times(toy, tmp_path, capsys):
    export(str(toy), str(tmp_path / "toy.ts"), time_at=(1, 1, 8, 16, 16))
    compared, timed = capsys.readouterr().out.splitlines()
    assert compared.startswith(
        f"{tmp_path / 'toy.ts'}: at most 0.0e+00 from the network, whose answers span 10, at (2,"
    )
    assert re.fullmatch(r"\(1, 1, 8, 16, 16\) in float32: \d\.\d{3} s, PyTorch \d\.\d{3} s", timed)
