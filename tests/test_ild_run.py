"""The bundle of tissue patterns from a scan to its numbers, with a small network that is not trained."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from conftest import run_inference
from pulmozoo.cli import bundle_folder
from pulmozoo.phantom.cohort import write_cohort
from test_bundles import run_configs

NAMES = ["healthy", "ground_glass", "micronodules", "consolidation", "reticulation", "honeycombing"]


@pytest.fixture(scope="module")
def small_ild(small_copy_of):
    return small_copy_of(bundle_folder("ild"))


@pytest.fixture(scope="module")
def lobes(chest_ct, tmp_path_factory):
    """Lobes of the chest as the lobe bundle would leave them: lower lobes below, in halves of the scan's width."""
    image = nib.load(chest_ct)
    ct = np.asarray(image.dataobj)
    lobes = np.zeros(ct.shape, dtype=np.uint8)
    lobes[4:18, 6:30, 4:18], lobes[4:18, 6:30, 18:34] = 4, 3  # x runs to the left
    lobes[26:40, 6:30, 4:18], lobes[26:40, 6:30, 18:34] = 2, 1
    folder = tmp_path_factory.mktemp("lobes") / "chest"
    folder.mkdir()
    nib.save(nib.Nifti1Image(lobes, image.affine), folder / "chest_seg.nii.gz")
    return folder.parent


def results_of(folder):
    results = json.loads((folder / "chest" / "results.json").read_text(encoding="utf-8"))
    labels = nib.load(folder / "chest" / results["files"]["labels"])
    return results["numbers"], labels


def test_a_bare_ct_is_labelled_in_its_lungs(small_ild, chest_ct, tmp_path):
    assert run_inference(small_ild, chest_ct, tmp_path).code == 0
    numbers, labels = results_of(tmp_path)
    image = nib.load(chest_ct)
    assert labels.shape == image.shape
    assert np.allclose(labels.affine, image.affine)
    voxels = np.asarray(labels.dataobj)
    counts = np.bincount(voxels.ravel(), minlength=7)[1:]
    assert 0.05 < counts.sum() / voxels.size < 0.6
    assert [numbers[f"{name}_percent"] for name in NAMES] == pytest.approx(100 * counts / counts.sum(), abs=0.01)
    assert numbers["disease_percent"] == pytest.approx(100 - numbers["healthy_percent"], abs=0.02)
    assert not [key for key in numbers if "lobe" in key]
    assert (tmp_path / "chest" / "overlay.png").stat().st_size > 10_000


def test_lobe_labels_give_numbers_of_each_lobe(small_ild, chest_ct, lobes, tmp_path):
    assert run_inference(small_ild, chest_ct, tmp_path, lobe_labels=str(lobes)).code == 0
    numbers, labels = results_of(tmp_path)
    truth = np.asarray(nib.load(lobes / "chest" / "chest_seg.nii.gz").dataobj)
    voxels = np.asarray(labels.dataobj)
    assert np.array_equal(voxels > 0, truth > 0)
    healthy = (voxels[truth == 1] == 1).mean()
    assert numbers["left_upper_lobe_healthy_percent"] == pytest.approx(100 * healthy, abs=0.01)
    assert numbers["right_middle_lobe_healthy_percent"] is None


def test_a_given_mask_is_taken_as_it_is(small_ild, chest_ct, lobes, tmp_path):
    """Solid tissue that it holds is labelled, which no segmentation by density would."""
    image = nib.load(chest_ct)
    mask = np.zeros(image.shape, dtype=np.uint8)
    mask[8:20, 8:28, 5:30], mask[26:38, 8:28, 5:30] = 2, 1
    nib.save(nib.Nifti1Image(mask, image.affine), tmp_path / "mask.nii.gz")
    assert (np.asarray(image.dataobj)[mask > 0] > -100).any()
    assert run_inference(small_ild, chest_ct, tmp_path / "OUT", lung_masks=str(tmp_path / "mask.nii.gz")).code == 0
    _, labels = results_of(tmp_path / "OUT")
    assert np.array_equal(np.asarray(labels.dataobj) > 0, mask > 0)


def test_an_empty_mask_is_a_sentence(small_ild, chest_ct, tmp_path):
    image = nib.load(chest_ct)
    nib.save(nib.Nifti1Image(np.zeros(image.shape, dtype=np.uint8), image.affine), tmp_path / "mask.nii.gz")
    outcome = run_inference(small_ild, chest_ct, tmp_path / "OUT", lung_masks=str(tmp_path / "mask.nii.gz"))
    assert outcome.code == 1
    assert "the lung mask is empty: expected the lungs of this CT" in outcome.said
    assert [path.name for path in (tmp_path / "OUT").iterdir()] == ["results.csv"]


def test_a_cohort_is_learnt_from_and_evaluated(small_ild, tmp_path, monkeypatch):
    """What ``pulmozoo phantom --disease ild`` writes trains the bundle, and is evaluated on all of the truth."""
    data = write_cohort(tmp_path / "DATA", 1, seed=1, spacing_mm=(6.0, 6.0, 9.0), disease="ild").parent
    (entry,) = json.loads((data / "datalist.json").read_text(encoding="utf-8"))["training"]
    assert {key: folder.split("/")[0] for key, folder in entry.items()} == {
        "image": "images",
        "label": "annotations",
        "lobes": "labels",
        **{key: key for key in ("airways", "vessels", "ild_patterns")},
    }
    configs = small_ild / "configs"
    monkeypatch.syspath_prepend(str(small_ild))
    run_configs([configs / "train.json"], data, tmp_path / "train")
    assert (tmp_path / "train" / "last.pt").is_file()
    evaluation = [configs / "train.json", configs / "evaluate.json"]
    run_configs(evaluation, data, tmp_path / "evaluate", split="training", truth="ild_patterns")
    rows = list(csv.DictReader((tmp_path / "evaluate" / "scores.csv").open()))
    full = np.asarray(nib.load(data / entry["ild_patterns"]).dataobj)
    pixels = [float(rows[-1][f"{name}_pixels"]) for name in NAMES]
    assert pixels == np.bincount(full.ravel(), minlength=7)[1:].tolist()


@pytest.mark.parametrize(("preset", "varied"), [("phantom", True), ("paper", False)])
def test_scans_are_varied_for_synthetic_chests_alone(preset, varied):
    """The paper mirrors and turns its crops, which moves densities but makes no new ones; annotations stay whole."""
    parser = ConfigParser()
    parser.read_config(str(bundle_folder("ild") / "configs" / "train.json"))
    parser["preset"] = preset
    augmentation = parser.get_parsed_content("augmentation").set_random_state(0)
    image = torch.rand(1, 20, 24)
    lungs = torch.zeros(1, 20, 24)
    lungs[:, 3:17, 2:9], lungs[:, 3:17, 14:22] = 1, 2
    data = {"image": torch.cat([image, lungs])[:, None], "label": (4 * (lungs > 0))[:, None], "crops": [(0, 1), (0, 2)]}
    crops = [augmentation(data) for _ in range(12)]
    assert {tuple(crop["label"][0].unique().tolist()) for crop in crops} == {(0, 4)}
    assert any(not torch.isin(crop["image"], image).all() for crop in crops) == varied
