"""Grading emphysema from scan to files: where the lungs come from, and what is said of masks that do not fit."""

import csv
import json
import shutil
import sys
from collections.abc import Callable
from math import log
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from conftest import halved, network_of, put_weights, run_inference
from pulmozoo.cli import bundle_folder
from pulmozoo.files import write_json
from pulmozoo.phantom import thorax

VOXEL_ML = 8.0 * 7.5 * 7.0 / 1000


@pytest.fixture(scope="module")
def small(small_copy_of: Callable[[Path], Path]) -> Path:
    return small_copy_of(bundle_folder("emphysema"))


@pytest.fixture(scope="module")
def lobes() -> np.ndarray:
    """The true lobes of ``chest_ct``."""
    return thorax(seed=1, shape=(44, 36, 40), spacing_mm=(8.0, 7.5, 7.0))["lobes"].numpy()


@pytest.fixture
def given(chest_ct: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write a label map on the grid of ``chest_ct``, or on another one."""

    def write(labels: np.ndarray, name: str = "mask.nii.gz", affine: np.ndarray | None = None) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(
            nib.Nifti1Image(labels.astype(np.uint8), nib.load(chest_ct).affine if affine is None else affine), path
        )
        return path

    return write


def numbers_of(output_dir: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((output_dir / "chest" / "results.json").read_text(encoding="utf-8"))
    numbers: dict[str, Any] = results["numbers"]
    return numbers


def test_a_bare_ct(small, chest_ct, tmp_path):
    assert run_inference(small, chest_ct, tmp_path).code == 0
    labels = nib.load(tmp_path / "chest" / "chest_seg.nii.gz")
    scan = nib.load(chest_ct)
    assert labels.shape == scan.shape
    assert np.allclose(labels.affine, scan.affine)
    assert set(np.unique(labels.dataobj)) <= {0, 1, 2}
    numbers = numbers_of(tmp_path)
    assert {"cle_score", "pse_grade", "cle_percent", "pse_gated_percent", "left_lung_cle_percent"} <= numbers.keys()
    assert {"lungs_laa950_percent", "lungs_laa910_percent", "lungs_perc15_hu", "lungs_volume_ml"} <= numbers.keys()
    assert "kernel_warning" in numbers
    assert not any("lobe" in key for key in numbers)


def test_lobes_of_the_lobe_bundle(small, chest_ct, lobes, given, tmp_path):
    given(lobes, "LOBES/chest/chest_seg.nii.gz")
    assert run_inference(small, chest_ct, tmp_path / "OUT", lobe_labels=str(tmp_path / "LOBES")).code == 0
    numbers = numbers_of(tmp_path / "OUT")
    for label, name in ((1, "left_upper_lobe"), (5, "right_middle_lobe")):
        assert numbers[f"{name}_volume_ml"] == pytest.approx(VOXEL_ML * (lobes == label).sum(), abs=0.01)
        assert numbers[f"{name}_pse_percent"] is not None
    assert numbers["right_lung_volume_ml"] == pytest.approx(VOXEL_ML * (lobes > 2).sum(), abs=0.01)


def test_one_lung_alone(small, chest_ct, lobes, given, tmp_path):
    mask = given((lobes > 2) * 2)
    assert run_inference(small, chest_ct, tmp_path / "OUT", lung_masks=str(mask)).code == 0
    numbers = numbers_of(tmp_path / "OUT")
    assert numbers["lungs_volume_ml"] == numbers["right_lung_volume_ml"]
    assert numbers["left_lung_volume_ml"] == 0
    assert numbers["left_lung_cle_percent"] is None
    assert numbers["right_lung_cle_percent"] == pytest.approx(numbers["cle_percent"])
    found = np.asarray(nib.load(tmp_path / "OUT" / "chest" / "chest_seg.nii.gz").dataobj)
    assert not found[lobes <= 2].any()


def soft_tissue(chest_ct: Path) -> np.ndarray:
    return np.asarray(nib.load(chest_ct).dataobj) > 0


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        ("empty", "the lung mask is empty: expected the lungs of this CT"),
        ("body", "expected lung, below -300; does the mask belong to this CT?"),
        ("smaller", "lies on another grid than the CT (44 x 36 x 40): expected one grid"),
        ("elsewhere", "lies on another grid than the CT (44 x 36 x 40): expected one grid"),
        ("missing", "expected a file, or a folder with chest.nii.gz"),
    ],
)
def test_masks_that_do_not_fit(small, chest_ct, lobes, given, tmp_path, mask, said):
    affine = nib.load(chest_ct).affine
    moved = affine.copy()
    moved[2, 3] += 70
    makers: dict[str, Callable[[], Path]] = {
        "empty": lambda: given(np.zeros_like(lobes)),
        "body": lambda: given(soft_tissue(chest_ct)),
        "smaller": lambda: given(lobes[2:]),
        "elsewhere": lambda: given(lobes, affine=moved),
        "missing": lambda: given(lobes, "masks/other.nii.gz").parent,
    }
    outcome = run_inference(small, chest_ct, tmp_path / "OUT", lung_masks=str(makers[mask]()))
    assert outcome.code == 1
    assert said in outcome.said
    assert [path.name for path in (tmp_path / "OUT").rglob("*")] == ["results.csv"]


def test_other_lungs_do_a_scan_again(small, chest_ct, lobes, given, tmp_path):
    assert run_inference(small, chest_ct, tmp_path / "OUT").code == 0
    mask = str(given(lobes > 0))
    for _ in range(2):
        assert run_inference(small, chest_ct, tmp_path / "OUT", lung_masks=mask).code == 0
    assert numbers_of(tmp_path / "OUT")["lungs_volume_ml"] == pytest.approx(VOXEL_ML * (lobes > 0).sum(), abs=0.01)
    assert "already done" in (tmp_path / "OUT" / "results.csv").read_text()


@pytest.mark.parametrize(("preset", "weight"), [("phantom", 100), ("paper", 0), ("released", 0)])
def test_only_the_phantom_preset_learns_from_what_is_painted(preset, weight):
    parser = ConfigParser()
    parser.read_config(str(bundle_folder("emphysema") / "configs" / "train.json"))
    parser["preset"] = preset
    assert parser.get_parsed_content("train#criterion").painted_weight == weight


def test_a_training_reads_a_scan_once_and_varies_it(small, data_for):
    parser = ConfigParser()
    parser.read_config(str(small / "configs" / "train.json"))
    parser.update(
        {"dataset_dir": str(data_for(bundle_folder("emphysema"))), "bundle_root": str(small), "cache_rate": 1.0}
    )
    dataset = parser.get_parsed_content("train#dataset")
    for entry in dataset.data:
        entry["image"] = "gone"
    first, second = (dataset[0] for _ in range(2))
    assert not torch.equal(first["image"], second["image"])
    assert set(first["painted"].unique().tolist()) <= {0, 1, 2}


def test_evaluation_of_a_training(small, chest_ct, lobes, given, tmp_path, monkeypatch):
    """Weights of a training give their own scores; those of the bundle are not asked for."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    network = network_of(small)
    for head, share in ((network.cle_head, 0.4), (network.pse_head, 0.02)):
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.constant_(head.bias, log(share / (1 - share)))
    torch.save({"network": network.state_dict()}, tmp_path / "best.pt")
    entry = {"image": str(chest_ct), "lung_mask": str(given(lobes > 0)), "cle_score": 5, "pse_score": 0}
    write_json(tmp_path / "datalist.json", {"test": [entry]})
    configs = [str(small / "configs" / name) for name in ("train.json", "evaluate.json")]
    options = {"dataset_dir": str(tmp_path), "output_dir": str(tmp_path / "OUT"), "device": "cpu"}
    workflow = ConfigWorkflow(
        config_file=configs,
        workflow_type="train",
        logging_file=False,
        checkpoint=str(tmp_path / "best.pt"),
        weights_path=str(tmp_path / "there_is_none.pt"),
        **options,
    )
    workflow.initialize()
    workflow.run()
    with (tmp_path / "OUT" / "scores.csv").open(newline="", encoding="utf-8") as file:
        row, _ = csv.DictReader(file)
    assert float(row["cle_percent"]) == pytest.approx(40, abs=0.5)
    assert float(row["pse_percent"]) == pytest.approx(2, abs=0.1)
    agreement = json.loads((tmp_path / "OUT" / "agreement.json").read_text(encoding="utf-8"))
    assert (agreement["cle"]["accuracy"], agreement["pse"]["accuracy"]) == (1, 0)
    assert {path.name for path in (tmp_path / "OUT").glob("*.png")} == {"agreement_cle.png", "agreement_pse.png"}


def test_probability_maps(small, chest_ct, tmp_path):
    assert run_inference(small, chest_ct, tmp_path, probability_maps=True).code == 0
    maps = [
        np.asarray(nib.load(tmp_path / "chest" / f"chest_{name}_emphysema_probability.nii.gz").dataobj).astype(int)
        for name in ("centrilobular", "paraseptal")
    ]
    labels = np.asarray(nib.load(tmp_path / "chest" / "chest_seg.nii.gz").dataobj)
    present = labels > 0
    assert ((maps[0] + maps[1])[present] >= 127).all()
    assert (maps[1][labels == 2] >= maps[0][labels == 2]).all()


def test_classification_gives_scores_and_maps(small, chest_ct, tmp_path):
    graded = tmp_path / small.name
    shutil.copytree(small, graded)
    for name in ("inference.json", "train.json"):
        config = json.loads((graded / "configs" / name).read_text(encoding="utf-8"))
        write_json(graded / "configs" / name, {**config, "regression": False})
    put_weights(graded, halved(network_of(graded)))
    assert run_inference(graded, chest_ct, tmp_path / "OUT").code == 0
    numbers = numbers_of(tmp_path / "OUT")
    assert "cle_score" in numbers
    assert "cle_percent" not in numbers
    assert (tmp_path / "OUT" / "chest" / "overlay.png").exists()
