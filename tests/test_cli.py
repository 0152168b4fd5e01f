"""The ``pulmozoo`` command, called as the console script calls it."""

import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import pytest
import torch

from conftest import labels_by_density, network_of, run_inference
from pulmozoo import cli
from pulmozoo.bundle.errors import BadInput
from pulmozoo.bundle.weights_file import sha256
from pulmozoo.cli import bundle_folder, main
from pulmozoo.files import write_json
from pulmozoo.phantom import gallery, realism
from toy_chest import toy_chest


class Ended(NamedTuple):
    """What a command left behind: ``said`` is the sentence it stopped with, or standard error."""

    code: int
    printed: str
    said: str


@pytest.fixture
def pulmozoo(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Ended]]:
    """Run ``pulmozoo`` with arguments in this process, whose search path and logging stay as they are."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    monkeypatch.setattr(sys, "path", sys.path[:])

    def call(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["pulmozoo", *map(str, arguments)])
        capsys.readouterr()
        code: object = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        printed, said = capsys.readouterr()
        return Ended(code, printed, said) if isinstance(code, int) else Ended(1, printed, str(code))

    yield call
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def checkpoint(small_bundle, tmp_path) -> Path:
    """What training leaves: the network in full precision beside other states."""
    state = {name: value.float() for name, value in labels_by_density(network_of(small_bundle, seed=5)).items()}
    torch.save({"network": state, "optimizer": {"lr": 0.1}, "epoch": 3, "iteration": 9}, tmp_path / "last.pt")
    return tmp_path / "last.pt"


def test_the_command_is_installed():
    (script,) = entry_points(group="console_scripts", name="pulmozoo")
    assert script.load() is main


def test_a_bundle_is_found_by_each_of_its_names(bundle, monkeypatch):
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    monkeypatch.chdir(bundle)
    for name in (metadata["name"], metadata["short_name"], str(bundle), "."):
        assert bundle_folder(name) == bundle


def test_a_bundle_that_does_not_exist():
    with pytest.raises(
        BadInput, match=r"there is no bundle 'lobs': choose one of .*lobes.*, or give a bundle's folder"
    ):
        bundle_folder("lobs")


def test_run_writes_and_shows_the_results(pulmozoo, small_bundle, chest_ct, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "IN").mkdir()
    shutil.copy(chest_ct, "IN/a.nii.gz")
    ended = pulmozoo("run", small_bundle, "IN", "OUT", "--device", "cpu", "--output_postfix", "lobes")
    assert ended.code == 0, ended.said
    numbers = json.loads((tmp_path / "OUT/a/results.json").read_text())["numbers"]
    rows = {line[:20].strip(): line[20:].split() for line in ended.printed.splitlines()}
    of = ("volume_ml", "mean_hu", "laa950_percent", "laa910_percent", "perc15_hu")
    assert rows["left upper lobe"] == [str(numbers[f"left_upper_lobe_{quantity}"]) for quantity in of]
    assert rows["right upper lobe"] == ["0.0", "-", "-", "-", "-"]
    assert "OUT/a/a_lobes.nii.gz\n" in ended.printed
    assert f"sha256 {sha256(small_bundle / 'models' / 'model.pt')}\n" in ended.printed
    assert (tmp_path / "OUT/a/a_lobes.nii.gz").is_file()
    shown = pulmozoo("show", "OUT")
    assert shown.code == 0
    assert shown.printed.strip() in ended.printed


def test_run_shows_what_was_done_although_a_scan_failed(pulmozoo, small_bundle, chest_ct, tmp_path):
    (tmp_path / "IN").mkdir()
    shutil.copy(chest_ct, tmp_path / "IN" / "a.nii.gz")
    (tmp_path / "IN" / "b.nii.gz").write_bytes(b"no image")
    ended = pulmozoo("run", small_bundle, tmp_path / "IN", tmp_path / "OUT", "--device", "cpu")
    assert ended.code == 3
    assert "left upper lobe" in ended.printed


def test_yardstick_runs_the_bundle_on_changed_scans_and_measures(pulmozoo, small_bundle, chest_ct, tmp_path):
    (tmp_path / "IN").mkdir()
    shutil.copy(chest_ct, tmp_path / "IN" / "a.nii.gz")
    (tmp_path / "IN" / "b.nii.gz").write_bytes(b"no image")
    ended = pulmozoo("yardstick", tmp_path / "IN", tmp_path / "OUT", "--bundle", small_bundle, "--device", "cpu")
    assert ended.code == 3
    a, b = json.loads((tmp_path / "OUT" / "yardstick.json").read_text())
    assert a["weights_sha256"] == sha256(small_bundle / "models" / "model.pt")
    assert a["flipped_mean_dice"] == 1
    assert 0 < a["resampled_least_dice"] < 1
    assert not a["fissures_measurable"]
    assert b["status"] == "failed"
    again = pulmozoo("yardstick", tmp_path / "IN", tmp_path / "AGAIN", "--results", tmp_path / "OUT/lobes/as_is")
    assert f"a: measured\nb: {tmp_path / 'IN' / 'b.nii.gz'}" in again.printed
    (row, _) = json.loads((tmp_path / "AGAIN" / "yardstick.json").read_text())
    assert row == {name: value for name, value in a.items() if not name.startswith(("noise", "resampled", "flipped"))}


def test_run_of_an_unknown_bundle(pulmozoo, chest_ct, tmp_path):
    ended = pulmozoo("run", "lobs", chest_ct, tmp_path / "OUT")
    assert ended.code == 1
    assert ended.said.startswith("pulmozoo: there is no bundle 'lobs': choose one of ")
    assert not (tmp_path / "OUT").exists()


def test_run_of_a_scan_that_is_not_there(pulmozoo, small_bundle, tmp_path):
    ended = pulmozoo("run", small_bundle, tmp_path / "no.nii.gz", tmp_path / "OUT")
    assert ended.code == 1
    assert ended.said.startswith(f"pulmozoo: {tmp_path / 'no.nii.gz'} does not exist: expected a CT file")
    assert not (tmp_path / "OUT").exists()


def test_run_takes_folders_whose_names_are_numbers(pulmozoo, small_bundle, chest_ct, tmp_path, monkeypatch):
    # Fire turns 12 into an integer; patients are often numbered.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "12").mkdir()
    shutil.copy(chest_ct, "12/a.nii.gz")
    ended = pulmozoo("run", small_bundle, "12", "34", "--device", "cpu")
    assert ended.code == 0, ended.said
    assert (tmp_path / "34/a/a_seg.nii.gz").is_file()


def test_phantom_writes_a_cohort(pulmozoo, tmp_path):
    ended = pulmozoo("phantom", tmp_path, "--count", "2", "--seed", "4", "--spacing_mm", "(12.0, 12.0, 9.0)")
    assert ended.code == 0, ended.said
    datalist = json.loads((tmp_path / "datalist.json").read_text())
    assert len(datalist["training"]) == 2
    for files in datalist["training"]:
        image, label = (nib.load(tmp_path / files[key]) for key in ("image", "label"))
        assert image.header.get_zooms() == (12, 12, 9)
        assert image.shape == label.shape


def test_phantom_gallery_and_realism_beside_a_scan(pulmozoo, tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "thorax", toy_chest)
    monkeypatch.setattr(realism, "thorax", toy_chest)
    toy, chest_ct = toy_chest(0, (62, 54, 46), (5.6, 5.2, 7.0)), tmp_path / "chest.nii.gz"
    nib.save(nib.Nifti1Image(toy["ct_hu"].numpy(), toy["affine"].numpy()), chest_ct)
    ended = pulmozoo("phantom-gallery", tmp_path / "page.png", "--count", "1", "--scans", chest_ct)
    assert (ended.code, ended.printed) == (0, f"{tmp_path / 'page.png'}\n")
    ended = pulmozoo("phantom-realism", tmp_path / "out", "--count", "2", "--scans", chest_ct)
    assert (ended.code, ended.printed) == (0, f"{tmp_path / 'out' / 'realism.md'}\n")
    assert (tmp_path / "out" / "realism.md").read_text().count("\n## ") == 2


def test_phantom_gallery_and_realism_say_what_is_wrong(pulmozoo, tmp_path):
    ended = pulmozoo("phantom-gallery", tmp_path / "page.jpg")
    assert (ended.code, ended.said.split(": ")[-1]) == (1, "expected the name of the picture; add .png")
    ended = pulmozoo("phantom-realism", tmp_path / "out", "--count", "1", "--scans", tmp_path)
    assert (ended.code, ended.said.split(": ")[1]) == (1, "count is 1")


def test_phantom_of_nobody(pulmozoo, tmp_path):
    ended = pulmozoo("phantom", tmp_path, "--count", "0")
    assert ended.code == 1
    assert "count and workers must be at least 1" in ended.said


def test_adopt_makes_a_bundle_that_runs(pulmozoo, small_bundle, checkpoint, chest_ct, tmp_path):
    new = tmp_path / "mine"
    ended = pulmozoo(
        *("adopt", checkpoint, "phantom", new, "--bundle", small_bundle),
        *("--trained_on", "ten scans", "--score", "IoU 0.9"),
    )
    assert ended.code == 0, ended.said
    assert ended.printed == f"{new / 'models' / 'model.pt'}\n"
    weights = json.loads((new / "configs" / "metadata.json").read_text())["weights"]
    assert (weights["tier"], weights["preset"]) == ("yours", "phantom")
    assert (weights["trained_on"], weights["score"]) == ("ten scans", "IoU 0.9")
    assert weights["sha256"] == sha256(new / "models" / "model.pt") != sha256(small_bundle / "models" / "model.pt")
    adopted = torch.load(new / "models" / "model.pt", weights_only=True)
    trained = torch.load(checkpoint, weights_only=True)["network"]
    assert all(torch.equal(adopted[name].float(), value.half().float()) for name, value in trained.items())
    assert run_inference(new, chest_ct, tmp_path / "OUT").code == 0


def test_adopt_changes_the_preset_in_all_files_together(pulmozoo, small_bundle, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(small_bundle, source)
    for name in ("inference.json", "train.json"):
        config = json.loads((source / "configs" / name).read_text())
        config["presets"]["narrow"] = {**config["presets"]["phantom"], "width": 0.2}
        write_json(source / "configs" / name, config)
    torch.save(network_of(source, "narrow").state_dict(), tmp_path / "narrow.pt")
    ended = pulmozoo("adopt", tmp_path / "narrow.pt", "narrow", tmp_path / "new", "--bundle", source)
    assert ended.code == 0, ended.said
    configs = [json.loads(path.read_text()) for path in sorted((tmp_path / "new" / "configs").glob("*.json"))]
    assert {config["preset"] for config in configs if "presets" in config} == {"narrow"}
    assert {config["weights"]["preset"] for config in configs if "weights" in config} == {"narrow"}


def another_network(path: Path) -> None:
    torch.save(torch.nn.Conv3d(1, 1, 3).state_dict(), path)


def no_state_dict(path: Path) -> None:
    torch.save({"epoch": 3}, path)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def no_checkpoint(path: Path) -> None:
    path.write_text("<html>404: not found</html>")


def pickled_code(path: Path) -> None:
    torch.save({"network": Path("a pickled object, not a tensor")}, path)


def gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (gone, "does not exist: expected a checkpoint"),
        (another_network, "belong to another network: scan_unet"),
        (no_state_dict, "holds no state dict"),
        (truncated, "last.pt"),
        (no_checkpoint, "last.pt"),
        (pickled_code, "last.pt"),
    ],
)
def test_adopt_of_what_cannot_be_used_writes_nothing(pulmozoo, small_bundle, checkpoint, tmp_path, spoil, sentence):
    spoil(checkpoint)
    ended = pulmozoo("adopt", checkpoint, "phantom", tmp_path / "mine", "--bundle", small_bundle)
    assert ended.code == 1
    assert ended.said.startswith("pulmozoo: ")
    assert sentence in ended.said
    assert not (tmp_path / "mine").exists()


def test_adopt_of_an_unknown_preset(pulmozoo, small_bundle, checkpoint, tmp_path):
    ended = pulmozoo("adopt", checkpoint, "fantom", tmp_path / "mine", "--bundle", small_bundle)
    assert (ended.code, ended.said) == (
        1,
        "pulmozoo: there is no preset 'fantom': choose one of phantom, paper, released",
    )


def test_adopt_keeps_a_folder_that_is_there(pulmozoo, small_bundle, checkpoint, tmp_path):
    (tmp_path / "mine").mkdir()
    ended = pulmozoo("adopt", checkpoint, "phantom", tmp_path / "mine", "--bundle", small_bundle)
    assert ended.code == 1
    assert "exists already" in ended.said
    assert list((tmp_path / "mine").iterdir()) == []


def test_import_weights_refuses_another_file(pulmozoo, tmp_path, monkeypatch):
    monkeypatch.setenv("PULMOZOO_HOME", str(tmp_path / "home"))
    (tmp_path / "best.pth").write_bytes(b"not the authors'")
    ended = pulmozoo("import-weights", "lobes", "--checkpoint", tmp_path / "best.pth")
    assert ended.code == 1
    assert "best.pth has git blob id" in ended.said
    assert not list(tmp_path.glob("home/*"))


@pytest.mark.parametrize(("fit", "code"), [(True, 0), (False, 1)])
def test_verify_ends_as_the_checks_do(pulmozoo, tmp_path, monkeypatch, fit, code):
    checked = []

    def found(source: Path) -> bool:
        checked.append(source)
        return fit

    monkeypatch.setattr(cli, "print_checks", found)
    assert pulmozoo("verify", "lobes").code == code
    assert pulmozoo("verify", tmp_path / "lobes.zip").code == code
    assert checked == [bundle_folder("lobes"), tmp_path / "lobes.zip"]
