"""How the lobe bundle trains: presets, validation, several processes."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser

from pulmozoo.bundle.errors import innermost_reason
from pulmozoo.files import write_json
from test_bundles import run_configs

PAD = {"augmentation#transforms": [{"_target_": "DivisiblePadd", "keys": ["image", "label"], "k": 16}]}


@pytest.fixture
def configs(small_bundle, monkeypatch) -> Path:
    """Those of the small copy."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    return small_bundle / "configs"


def parsed(configs: Path, *variants: str) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(
        [str(configs / "train.json"), *(str(configs / "variants" / f"{name}.json") for name in variants)]
    )
    return parser


def rates(parser: ConfigParser, epochs: int) -> list[float]:
    optimizer, scheduler = parser.get_parsed_content("train#optimizer"), parser.get_parsed_content("train#scheduler")
    found = []
    for _ in range(epochs):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_sgd_is_the_papers_first_training(configs):
    """Section IV-A: momentum 0.9, "10e-6"; four Dice terms; section III-D: two patches of 116 voxels."""
    parser = parsed(configs, "sgd")
    optimizer, loss = parser.get_parsed_content("train#optimizer"), parser.get_parsed_content("train#loss")
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.param_groups[0]["momentum"] == 0.9
    assert rates(parser, 4) == [1e-5] * 4
    assert (loss.cross_entropy, loss.hardest) == (0.0, 1.0)
    assert [parser[key] for key in ("patches", "patch", "scan_epochs", "val_interval")] == [2, 116, 0, 1]
    assert all("Rand" not in each["_target_"] for each in parser["augmentation"]["transforms"])


def test_half_of_the_chests_are_seen_in_part(configs):
    """Down to one lung: a network that has only seen two takes the left half of any view for a left lung."""
    cut = parsed(configs).get_parsed_content("augmentation").transforms[0].set_random_state(0)
    voxels = torch.arange(20 * 20 * 20).reshape(1, 20, 20, 20)
    views = [cut({"image": voxels.float(), "label": voxels}) for _ in range(60)]
    assert all(torch.equal(view["image"].long(), view["label"].long()) for view in views)
    widths = [view["label"].shape[3] for view in views]
    assert 20 < sum(view["label"].shape[1:] == voxels.shape[1:] for view in views) < 40
    assert min(widths) < 10
    assert max(view["label"][0, 0, 0, 0] % 20 for view in views) > 6  # of either side


def test_adam_is_that_of_the_published_settings(configs):
    parser = parsed(configs, "adam")
    assert isinstance(parser.get_parsed_content("train#optimizer"), torch.optim.Adam)
    assert rates(parser, 3) == pytest.approx([1e-4, 0.9e-4, 0.81e-4])
    assert parser.get_parsed_content("train#loss").cross_entropy == 0.0


def test_covid_goes_with_either(configs):
    for first in ("sgd", "adam"):
        loss = parsed(configs, first, "covid").get_parsed_content("train#loss")
        assert (loss.cross_entropy, loss.hardest) == (1.0, 0.3)


def with_validation(cohort: Path, target: Path, *splits: str) -> Path:
    """A copy of the cohort whose first subject is in the splits, too."""
    shutil.copytree(cohort, target)
    datalist = json.loads((target / "datalist.json").read_text())
    training = datalist["training"]
    write_json(target / "datalist.json", {"training": training, **{split: training[:1] for split in splits}})
    return target


def weights_in(path: Path) -> dict[str, torch.Tensor]:
    state: dict[str, Any] = torch.load(path, weights_only=True)
    counted = ("running_mean", "running_var", "num_batches_tracked")  # by batch norms, in each process for itself
    return {name: value for name, value in state.get("network", state).items() if not name.endswith(counted)}


def test_covid_starts_from_the_weights_given(configs, cohort, tmp_path):
    run = [configs / "train.json", configs / "variants" / "covid.json"]
    first, second = tmp_path / "first" / "last.pt", tmp_path / "second" / "last.pt"
    run_configs(run[:1], cohort, first.parent, seed=7)
    run_configs(run, cohort, second.parent, weights_path=str(first), learning_rate=0.0)
    start, end = weights_in(first), weights_in(second)
    assert all(torch.equal(value, end[name]) for name, value in start.items())
    with pytest.raises(RuntimeError) as stopped:  # MONAI's, around ours
        run_configs(run, cohort, tmp_path / "third", weights_path=str(tmp_path / "nowhere.pt"))
    assert innermost_reason(stopped.value) == f"{tmp_path / 'nowhere.pt'} does not exist: expected a checkpoint"
    assert not (tmp_path / "third").exists()


def test_a_training_that_gains_nothing_stops_early_and_keeps_its_best_epoch(configs, cohort, tmp_path):
    """A rate of 0 leaves the weights as they are, and batch norms forget their start: later epochs are no better."""
    data = with_validation(cohort, tmp_path / "data", "validation")
    steady = {"learning_rate": 0.0, "max_epochs": 9, "val_interval": 2, "patience": 2}
    workflow = run_configs([configs / "train.json"], data, tmp_path / "OUT", **steady)
    last = workflow.trainer.state.epoch
    best = torch.load(tmp_path / "OUT" / "best.pt", weights_only=True)
    assert last < 9
    assert last % 2 == best["epoch"] % 2 == 0
    assert last == best["epoch"] + 2
    assert (tmp_path / "OUT" / "scores.csv").exists()


def test_without_a_validation_split_there_is_no_validation(configs, cohort, tmp_path):
    data = with_validation(cohort, tmp_path / "data")
    run_configs([configs / "train.json"], data, tmp_path / "OUT", val_interval=1, patience=1)
    assert [path.name for path in (tmp_path / "OUT").iterdir()] == ["last.pt"]


def test_two_processes_have_the_loss_curve_of_one(configs, cohort, tmp_path, caplog):
    """Each of two processes takes one of two scans at a time; one process that adds up the gradients of both before it
    steps has the same losses (to 1 in 1000) and ends with the same weights (to 0.001).

    Without augmentation, and with a stage-2 patch that holds the whole scan, so that nothing is drawn at random.
    """
    alone, overlay = tmp_path / "alone", tmp_path / "same.json"
    same = {"presets#phantom#grid": {"spacing_mm": 16.0}, "train#handlers#1#patch": 124, "max_epochs": 3, **PAD}
    write_json(overlay, {**same, "learning_rate": 0.003})
    with caplog.at_level("INFO", "pulmozoo.handlers.progress"):
        run_configs([configs / "train.json", overlay], cohort, alone, **{"train#trainer#accumulation_steps": 2})
    expected = epoch_losses(caplog.text)
    assert len(expected) == 3
    assert expected[-1] < 0.98 * expected[0]
    files = [str(path) for path in (configs / "train.json", overlay, configs / "multi_gpu_train.json")]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "monai.bundle", "run", "--config_file", str(files), "--dataset_dir", str(cohort)]
    command += ["--output_dir", str(tmp_path / "together")]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, cwd=configs.parent, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert epoch_losses(ended.stdout) == pytest.approx(expected, rel=1e-3)
    one, two = (weights_in(folder / "last.pt") for folder in (alone, tmp_path / "together"))
    for name, value in one.items():
        assert torch.allclose(value, two[name], rtol=0, atol=1e-3), name


def epoch_losses(log: str) -> list[float]:
    """The mean loss of each epoch, one line an epoch whatever the number of processes."""
    return [float(loss) for loss in re.findall(r"epoch \d+ of \d+: loss ([\d.]+)", log)]
