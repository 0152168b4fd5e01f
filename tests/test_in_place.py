"""Training a bundle in place, through the overrides that MONAI Label's trainer gives to ``monai.bundle.run``."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser, run

from conftest import network_of, run_inference
from pulmozoo.bundle.weights_file import read_metadata, sha256


@pytest.fixture
def served(bundle, small_copy_of, tmp_path, monkeypatch) -> Path:
    """A small copy of each bundle, as MONAI Label would have it in its app folder."""
    monkeypatch.setattr(sys, "path", [str(tmp_path / bundle.name), *sys.path])
    return Path(shutil.copytree(small_copy_of(bundle), tmp_path / bundle.name))


@pytest.fixture
def scans(training_data) -> list[dict[str, str]]:
    files = json.loads((training_data / "datalist.json").read_text())["training"]
    return [{key: str(training_data / entry[key]) for key in ("image", "label")} for entry in files]


def train_as_monai_label(served: Path, training: list[Any], held_back: list[Any], **more: Any) -> None:
    """MONAI Label 0.8.5, ``BundleTrainTask``: a loader goes before the handlers, the rest are overrides."""
    parser = ConfigParser()
    parser.read_config(str(served / "configs" / "train.json"))
    handlers = parser["train#handlers"]
    assert all(handler.get("_target_") != "CheckpointLoader" for handler in handlers)
    loader = {
        "_target_": "CheckpointLoader",
        "load_path": str(served / "models" / "model.pt"),
        "load_dict": {"model": "$@network"},
        "strict": False,
    }
    run(
        run_id="",  # as 3D Slicer leaves it; MONAI then evaluates the whole config, "run" in the end
        meta_file=str(served / "configs" / "metadata.json"),
        config_file=str(served / "configs" / "train.json"),
        logging_file=False,
        **{
            "bundle_root": str(served),
            "train#trainer#max_epochs": 2,
            "train#dataset#data": training,
            "device": "cpu",
            "train#handlers": [loader, *handlers],
            "validate#dataset#data": held_back,
            **more,
        },
    )


def test_new_weights_are_in_the_bundle_and_run(served, scans, example, tmp_path):
    before = read_metadata(served)["weights"]
    old = torch.load(served / "models" / "model.pt", weights_only=True)
    train_as_monai_label(served, scans[:1], scans[1:])
    new = torch.load(served / "models" / "model.pt", weights_only=True)
    network_of(served).load_state_dict(new, strict=True)
    assert any(not torch.equal(value, new[name]) for name, value in old.items())
    after = read_metadata(served)["weights"]
    assert (after["tier"], after["preset"]) == ("yours", before["preset"])
    assert after["sha256"] == sha256(served / "models" / "model.pt") != before["sha256"]
    assert after["trained_on"] == f"{before['trained_on']}; then 1 scans of yours, 2 epochs"
    assert after["score"].endswith("(mean of 1 scans held back)")
    head, *rows, mean = (served / "out" / "train" / "scores.csv").read_text().splitlines()
    assert {row.split(",")[0] for row in rows} == {Path(scans[1]["image"]).name}  # a row a scan, or a row a slice
    assert [line.split(",")[0] for line in (head, mean)] == ["scan", "mean"]
    assert run_inference(served, example, tmp_path / "OUT").code == 0
    results = json.loads((tmp_path / "OUT" / "chest" / "results.json").read_text())
    assert results["weights"]["sha256"] == after["sha256"]


def test_training_starts_from_the_weights_of_the_bundle(served, scans):
    before = torch.load(served / "models" / "model.pt", weights_only=True)
    train_as_monai_label(served, scans, [], **{"train#trainer#max_epochs": 1, "learning_rate": 0.0})
    after = torch.load(served / "models" / "model.pt", weights_only=True)
    parameters = dict(network_of(served).named_parameters())
    assert [name for name in parameters if not torch.equal(before[name], after[name])] == []
    assert read_metadata(served)["weights"]["score"] == "none: no scan was held back"


def test_an_earlier_training_of_the_copy_is_not_gone_on_with(served, scans):
    earlier = served / "out" / "train" / "last.pt"
    earlier.parent.mkdir(parents=True)
    torch.save({"network": network_of(served, seed=9).state_dict(), "epoch": 2, "iteration": 2}, earlier)
    written = earlier.read_bytes()
    before = sha256(served / "models" / "model.pt")
    train_as_monai_label(served, scans[:1], [])
    assert read_metadata(served)["weights"]["sha256"] != before
    assert earlier.read_bytes() == written


def test_a_training_on_a_dataset_leaves_the_bundle_as_it_was(served, training_data, tmp_path):
    before = {path: path.read_bytes() for path in served.rglob("*") if path.is_file()}
    run(
        config_file=str(served / "configs" / "train.json"),
        logging_file=False,
        **{"dataset_dir": str(training_data), "output_dir": str(tmp_path / "OUT"), "device": "cpu"},
    )
    assert {path: path.read_bytes() for path in served.rglob("*") if path.is_file()} == before
    assert [path.name for path in (tmp_path / "OUT").iterdir()] == ["last.pt"]
