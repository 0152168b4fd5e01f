"""Cross-validation of a small network on three small chests, and what it makes of tables it is given."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from pulmozoo.bundle import cross_validate as module
from pulmozoo.bundle.cross_validate import (
    Setting,
    confusion_of,
    cross_validate,
    datalist_of,
    draw_curve,
    folds_of,
    of_values,
    of_variants,
    own_scores,
    row_of,
    write_data,
)
from pulmozoo.bundle.errors import BadInput
from pulmozoo.cli import bundle_folder, main
from pulmozoo.datasets.annotated_slices import AnnotatedSlice, subjects
from pulmozoo.files import write_text
from pulmozoo.phantom.cohort import write_cohort
from test_bundles import run_configs

ILD = bundle_folder("ild")
PNEUMOTHORAX = bundle_folder("pneumothorax")
PARASEPTAL = bundle_folder("paraseptal")


@pytest.fixture(scope="module")
def chests(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chests")
    return write_cohort(folder, 3, seed=1, spacing_mm=(8.0, 8.0, 12.0), disease="ild").parent


@pytest.fixture
def data(tmp_path):
    """A datalist of ten scans, of which the fold is known."""
    entries = [{"image": f"{number}.nii.gz", "label": f"{number}.nii.gz", "fold": number % 5} for number in range(10)]
    datalist = {"training": entries[:6], "validation": entries[6:8], "test": entries[8:]}
    (tmp_path / "datalist.json").write_text(json.dumps(datalist))
    return tmp_path


@pytest.fixture
def runs(monkeypatch):
    """What is run, in this process instead of one of its own."""
    done = []

    def run(bundle, configs, options):
        done.append(configs)
        folders = {key: options[key] for key in ("dataset_dir", "output_dir")}
        rest = {key: value for key, value in options.items() if key not in folders}
        run_configs([bundle / name for name in configs], *folders.values(), **rest)

    monkeypatch.setattr(module, "run", run)
    return done


def test_every_scan_is_tested_once_and_never_trained_on_then(data):
    parts = folds_of(data, 5, seed=0)
    tested = []
    for fold in range(5):
        names = {split: {entry["image"] for entry in part} for split, part in datalist_of(parts, fold).items()}
        assert [len(names[split]) for split in ("training", "validation", "test")] == [6, 2, 2]
        assert len(names["training"] | names["validation"] | names["test"]) == 10
        tested += names["test"]
    assert len(set(tested)) == len(tested) == 10


def test_folds_that_are_not_given_are_drawn_by_the_seed(data):
    listed = json.loads((data / "datalist.json").read_text())
    for part in listed.values():
        for entry in part:
            del entry["fold"]
    (data / "datalist.json").write_text(json.dumps(listed))
    once, again, other = (folds_of(data, 5, seed) for seed in (0, 0, 1))
    assert once == again != other
    assert [len(part) for part in once] == [2] * 5


@pytest.fixture
def slices(tmp_path):
    """Eight subjects with two annotated slices each."""
    lines = [
        f"s{number},images/{number}.nii.gz,,labels/{number}.nii.gz,{index},training,1.5"
        for number in range(8)
        for index in (3, 9)
    ]
    (tmp_path / "slices.csv").write_text("\n".join([",".join(AnnotatedSlice._fields), *lines]))
    return tmp_path


def test_annotated_slices_are_parted_by_subject(slices, tmp_path):
    parts = folds_of(slices, 4, seed=0)
    assert parts == folds_of(slices, 4, seed=0) != folds_of(slices, 4, seed=1)
    write_data(tmp_path / "fold_3", datalist_of(parts, 3))
    found = {split: subjects(tmp_path / "fold_3", split) for split in ("training", "validation", "test")}
    assert [len(part) for part in found.values()] == [4, 2, 2]
    assert all(subject["slices"] == [3, 9] for part in found.values() for subject in part)
    images = {subject["image"] for part in found.values() for subject in part}
    assert images == {str(tmp_path / "images" / f"{number}.nii.gz") for number in range(8)}


def test_the_threshold_is_that_of_the_slices_that_validate(slices, tmp_path, monkeypatch):
    done = []

    def run(bundle, configs, options):
        done.append((options["output_dir"].name, options.get("split"), options.get("threshold"), len(configs)))
        write_text(options["output_dir"] / "scores.csv", "scan,slice,dice,best_threshold\na,1,0.5,\nmean,,0.5,0.37\n")

    monkeypatch.setattr(module, "run", run)
    settings = of_variants(PARASEPTAL, ["own", "patch_baseline"], {})
    rows = cross_validate(PARASEPTAL, slices, tmp_path / "OUT", settings, folds=4, seed=0, only=[0])
    assert done == [
        ("train", None, None, 1),
        ("validation", "validation", None, 2),
        ("test", None, 0.37, 2),
        ("validation", "validation", None, 3),  # the baseline has nothing to train
        ("test", None, 0.37, 3),
    ]
    assert [(row["setting"], row["parameters"] > 0, row["dice"]) for row in rows] == [
        ("own", True, 0.5),
        ("patch_baseline", False, 0.5),
    ]
    assert Image.open(tmp_path / "OUT" / "boxes.png").size[1] > 100


def test_a_spread_over_slices_is_no_score_of_its_own():
    assert own_scores(["dice", "dice_sd", "dice_se", "loss"]) == ["dice", "loss"]


def test_a_number_of_folds_that_the_data_does_not_have(data):
    with pytest.raises(BadInput, match=r"expected 4 folds, 0 to 3, got \[0, 1, 2, 3, 4\] in .*datalist.json"):
        folds_of(data, 4, seed=0)


def test_data_without_a_list(tmp_path):
    with pytest.raises(BadInput, match=r"datalist\.json does not exist: expected a MONAI datalist"):
        folds_of(tmp_path, 5, seed=0)


def test_a_variant_that_there_is_not():
    with pytest.raises(BadInput, match="there is no variant 'unett': choose from own, exponential, ild_cnn"):
        of_variants(ILD, ["own", "unett"], {})


def test_all_is_every_combination_of_the_variants():
    names = [setting.name for setting in of_variants(PNEUMOTHORAX, ["all"], {})]
    assert names[:2] + names[-1:] == ["own", "aspp", "aspp+hypercolumns+lovasz+scse"]
    assert len(set(names)) == len(names) == 16


def test_variants_are_joined():
    (both,) = of_variants(PNEUMOTHORAX, ["aspp+scse"], {"width": 1})
    assert both == Setting("aspp+scse", ("configs/variants/aspp.json", "configs/variants/scse.json"), {"width": 1})
    assert module.parameters_of(PNEUMOTHORAX, both._replace(options={"preset": "paper"})) == 26_569_998


def test_only_the_folds_that_are_asked_for(data, tmp_path, monkeypatch):
    trained = []

    def train_and_test(bundle, folder, setting):
        trained.append(folder.name)
        (folder / "test").mkdir()
        (folder / "test" / "scores.csv").write_text("scan,dice\nmean,0.5\n")

    monkeypatch.setattr(module, "train_and_test", train_and_test)
    settings = of_variants(PNEUMOTHORAX, ["own"], {})
    for only, total in ([0], 1), ([0, 3], 2), (None, 5):
        (row,) = cross_validate(PNEUMOTHORAX, data, tmp_path, settings, folds=5, seed=0, only=only)
        assert row["folds"] == total
    assert trained == ["fold_0", "fold_3", "fold_1", "fold_2", "fold_4"]
    with pytest.raises(BadInput, match=r"expected folds from 0 to 4, got \[5\]"):
        cross_validate(PNEUMOTHORAX, data, tmp_path, settings, folds=5, seed=0, only=[5])


def test_names_that_begin_with_a_digit_are_parted_too(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["pulmozoo", "cross-validate", "paraseptal", "IN", str(tmp_path), "own,2d_nett"])
    with pytest.raises(SystemExit, match="there is no variant '2d_nett'"):
        main()


def test_values_that_are_missing(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["pulmozoo", "cross-validate", "ild", "IN", str(tmp_path), "--vary=amp"])
    with pytest.raises(SystemExit, match="what amp is to be is missing"):
        main()


def test_each_setting_is_trained_and_tested_on_each_fold_once(small_copy_of, chests, runs, tmp_path, monkeypatch):
    bundle = small_copy_of(ILD)
    monkeypatch.syspath_prepend(str(bundle))
    settings = of_values("unlabelled_weight", [0, 0.1], {"max_epochs": 1})
    rows = cross_validate(bundle, chests, tmp_path, settings, folds=3, seed=0)
    assert len(runs) == 2 * 3 * 2
    assert [row["setting"] for row in rows] == ["unlabelled_weight_0", "unlabelled_weight_0.1"]
    folds = [tmp_path / "unlabelled_weight_0" / f"fold_{fold}" / "test" for fold in range(3)]
    found = []
    for folder in folds:
        *_, last = csv.DictReader((folder / "scores.csv").open())
        found.append(float(last["balanced_accuracy"]))
    assert rows[0]["balanced_accuracy"] == pytest.approx(np.mean(found))
    assert rows[0]["balanced_accuracy_sd"] == pytest.approx(np.std(found))
    assert (tmp_path / "cross_validation.csv").read_text().count("\n") == 3
    assert Image.open(tmp_path / "unlabelled_weight_0" / "confusion.png").size == (600, 600)

    (folds[1] / "scores.csv").unlink()
    assert cross_validate(bundle, chests, tmp_path, settings, folds=3, seed=0) == rows
    assert len(runs) == 2 * 3 * 2 + 2  # a training that is done ends at once; the test is done again


def test_means_are_over_folds_and_confusion_over_pixels(tmp_path):
    for fold, (score, counts) in enumerate([("0.5", "1,1\nb,0,2"), ("0.7", "5,3\nb,0,0")]):
        folder = tmp_path / str(fold)
        folder.mkdir()
        (folder / "scores.csv").write_text(f"scan,balanced_accuracy,a_recall\nx,0.1,\nmean,{score},\n")
        (folder / "scores_confusion.csv").write_text(f"truth,a,b\na,{counts}\n")
    tested = [tmp_path / "0", tmp_path / "1"]
    row = row_of("own", 7, tested)
    assert row == {
        "setting": "own",
        "parameters": 7,
        "folds": 2,
        "balanced_accuracy": pytest.approx(0.6),
        "balanced_accuracy_sd": pytest.approx(0.1),
    }
    names, shares = confusion_of(tested)
    assert names == ["a", "b"]
    assert shares.tolist() == [[0.6, 0.4], [0.0, 1.0]]


def test_parameters_are_those_of_the_setting():
    bare = [module.parameters_of(ILD, Setting("own", (), {"preset": preset})) for preset in ("paper", "phantom")]
    assert bare[0] == 130_056 > bare[1]
    (segnet,) = of_variants(ILD, ["segnet"], {})
    assert module.parameters_of(ILD, segnet) == 29_445_318


def test_a_curve_is_drawn(tmp_path):
    rows = [{"setting": "w", "auc": 0.6, "auc_sd": 0.1}, {"setting": "v", "auc": 0.8, "auc_sd": 0.1}]
    draw_curve(rows, "unlabelled_weight", [0, 0.1], tmp_path / "curve.png")
    grey = np.asarray(Image.open(tmp_path / "curve.png").convert("L"))
    assert grey.shape == (420, 600)
    assert 0.01 < (grey < 200).mean() < 0.5
