"""Each check of ``verify`` finds what it is there for, in bundles that are broken in one place; a sound one passes."""

import json
import re
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import put_weights
from pulmozoo.bundle.checks import probes, running
from pulmozoo.bundle.checks.verify import CHECKS, UNPACKS, ZIP_CHECKS, print_checks, verify
from pulmozoo.bundle.errors import BadInput
from pulmozoo.bundle.pack import own_files, pack, unpack, zip_bytes
from pulmozoo.files import write_json

NAME = "lung_lobe_ct_segmentation"
METADATA, INFERENCE, TRAINING = (f"configs/{name}.json" for name in ("metadata", "inference", "train"))
README = "docs/README.md"
PRED = "network_data_format#outputs#pred"
CODE = f"{NAME}_code"

Change = Callable[[Path], None]


def put(path: str, key: str, value: Any) -> Change:
    """Set an entry of a JSON file; ``#`` in the key goes one level down."""

    def change(bundle: Path) -> None:
        content = json.loads((bundle / path).read_text())
        *outer, last = key.split("#")
        node = content
        for each in outer:
            node = node[each]
        node[last] = value
        write_json(bundle / path, content)

    return change


def drop(path: str, key: str) -> Change:
    """Remove an entry of a JSON file."""

    def change(bundle: Path) -> None:
        content = json.loads((bundle / path).read_text())
        *outer, last = key.split("#")
        node = content
        for each in outer:
            node = node[each]
        del node[last]
        write_json(bundle / path, content)

    return change


def write(path: str, text: str) -> Change:
    def change(bundle: Path) -> None:
        (bundle / path).parent.mkdir(parents=True, exist_ok=True)
        (bundle / path).write_text(text)

    return change


def replace(path: str, old: str, new: str) -> Change:
    def change(bundle: Path) -> None:
        text = (bundle / path).read_text()
        assert old in text
        (bundle / path).write_text(text.replace(old, new))

    return change


def remove(path: str) -> Change:
    def change(bundle: Path) -> None:
        (bundle / path).unlink()

    return change


def rename_licence(bundle: Path) -> None:
    (bundle / "LICENSE").rename(bundle / "LICENSE.txt")


def grow(bundle: Path) -> None:
    with (bundle / "docs" / "atlas.nii").open("wb") as file:
        file.truncate(25 * 2**20 + 1)


def swap_sections(bundle: Path) -> None:
    replace(README, "## Authors", "## First")(bundle)
    replace(README, "## Tags", "## Authors")(bundle)
    replace(README, "## First", "## Tags")(bundle)


def put_neighbour(bundle: Path) -> None:
    other = f"{NAME}_fast"
    shutil.copytree(bundle, bundle.parent / other)
    put(METADATA, "name", other)(bundle.parent / other)


def large_file(**changes: str) -> Change:
    """A list of large files with one entry, which is in order but for the changes."""
    entry = {
        "path": "models/model.pt",
        "url": "https://example.org/model.pt",
        "hash_type": "sha256",
        "hash_val": "ab" * 32,
    }
    lines = [f"    {key}: '{value}'" for key, value in {**entry, **changes}.items()]
    return write("large_files.yml", "\n".join(["large_files:", "  -", *lines]) + "\n")


def with_weights(change_tensor: Callable[[torch.Tensor], Any]) -> Change:
    """Change the first tensor of the weights; the metadata follow."""

    def change(bundle: Path) -> None:
        state = torch.load(bundle / "models" / "model.pt", weights_only=True)
        name = next(iter(state))
        put_weights(bundle, {**state, name: change_tensor(state[name])})

    return change


def to_meta(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to("meta")


def to_infinity(tensor: torch.Tensor) -> torch.Tensor:
    return torch.full_like(tensor, torch.inf)


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.numpy()


def add_byte(bundle: Path) -> None:
    with (bundle / "models" / "model.pt").open("ab") as file:
        file.write(b"\0")


BROKEN: dict[str, tuple[str, Change, str]] = {
    "no terms of the data": (
        "required_files",
        remove("docs/data_license.txt"),
        r"there is no docs/data_license\.txt",
    ),
    "licence with a suffix": ("licence", rename_licence, "there is no LICENSE"),
    "licence of one's own": ("licence", write("LICENSE", "All rights reserved"), "not one that MONAI recognises"),
    "large file": ("file_sizes", grow, r"docs/atlas\.nii has 25\.0 MiB: expected at most 25"),
    "large file without hash": ("large_files", large_file(hash_val=""), r"models/model\.pt has no hash_val"),
    "large file outside": ("large_files", large_file(path="../model.pt"), "leads out of the bundle"),
    "large file by a weak hash": ("large_files", large_file(hash_type="crc32"), "has hash_type 'crc32'"),
    "large file with half a hash": ("large_files", large_file(hash_val="ab" * 16), "expected 64 hexadecimal digits"),
    "large files without list": ("large_files", write("large_files.json", "{}"), "no list 'large_files'"),
    "home folder": ("nothing_private", replace(README, "# ", "# /home/ada/bundle "), "README.md, line 1.*/home/ada"),
    "name with _v": ("name", put(METADATA, "name", "lung_vessel_ct_segmentation"), "no '_v'"),
    "name with capitals": ("name", put(METADATA, "name", "Lung_ct_segmentation"), "small letters"),
    "name without task": ("task_in_name", put(METADATA, "name", "lung_lobe_ct"), "has no task in it"),
    "name within another": ("name_apart", put_neighbour, f"'{NAME}_fast', overlap"),
    "version of two digits": ("version", put(METADATA, "version", "0.10.0"), "'0.10.0': expected three numbers"),
    "version without changelog": (
        "changelog",
        put(METADATA, "changelog", {"0.0.9": "first"}),
        r"nothing of \d\.\d\.\d",
    ),
    "no task": ("metadata_schema", drop(METADATA, "task"), "'task' is a required property"),
    "channels in words": ("metadata_schema", put(METADATA, f"{PRED}#num_channels", "7"), "'7' is not of type"),
    "no schema": ("metadata_schema", drop(METADATA, "schema"), "no key 'schema'"),
    "no references": ("metadata_keys", put(METADATA, "references", []), "has no references"),
    "range of versions": ("plain_versions", put(METADATA, "monai_version", ">=1.6"), "monai is '>=1.6'"),
    "optional packages": ("plain_versions", put(METADATA, "optional_packages_version", {}), "is outdated"),
    "module for a package": (
        "plain_versions",
        put(METADATA, "required_packages_version", {"PIL": "13.0.0"}),
        "'PIL' is no package name",
    ),
    "size of a third letter": (
        "spatial_shapes",
        put(METADATA, f"{PRED}#spatial_shape", ["16*n", "16*m", 16]),
        r"outputs#pred has the size '16\*m'",
    ),
    "output of another name": (
        "image_and_pred",
        replace(METADATA, '"pred": {', '"lobes": {'),
        r"are \('image', 'lobes'\)",
    ),
    "labels that are no texts": ("channel_definitions", put(METADATA, f"{PRED}#channel_def#0", 0), "expected a text"),
    "labels with a gap": ("channel_definitions", drop(METADATA, f"{PRED}#channel_def#2"), "expected 0, 1, 2"),
    "raw channel without words": (
        "raw_channels",
        drop(METADATA, "network_output_data_format#pred#channel_def#6"),
        "does not say what each",
    ),
    "use in the clinic": ("intended_use", put(METADATA, "intended_use", "Any."), "not for clinical use"),
    "weights of nowhere": ("weights_origin", put(METADATA, "weights#trained_on", ""), "has no trained_on"),
    "weights of an unknown tier": ("weights_origin", put(METADATA, "weights#tier", "best"), "is 'best'"),
    "card without a section": ("readme_sections", replace(README, "## Citation", "## How"), "no section 'Citation'"),
    "card in another order": ("readme_sections", swap_sections, "in another order: expected Authors, Tags"),
    "card without title": ("readme_sections", replace(README, "# Pulmonary", "Pulmonary"), "begin with a title"),
    "card without a command": (
        "readme_commands",
        replace(README, "configs/evaluate.json", "evaluate"),
        r"no command with configs/evaluate\.json",
    ),
    "card with a lost picture": (
        "readme_pictures",
        replace(README, "(overlay.jpg)", "(lost.jpg)"),
        "shows lost.jpg, which does not lie beside it",
    ),
    "card without memory": ("readme_statements", replace(README, "memory", "room"), "says nothing of: memory"),
    "indent of 2": (
        "json_indent",
        replace(METADATA, '    "name"', '  "name"'),
        r"metadata\.json is not formatted",
    ),
    "no JSON": ("json_indent", write(INFERENCE, "{"), r"inference\.json is no JSON"),
    "no inferer": ("inference_keys", drop(INFERENCE, "inferer"), "has no inferer"),
    "no output type": ("inference_keys", drop(INFERENCE, "output_dtype"), "has no output_dtype"),
    "no network": ("training_keys", drop(TRAINING, "network"), "has no network"),
    "half a validation": (
        "training_keys",
        put(TRAINING, "validate", {"handlers": []}),
        "validate#evaluator, validate#dataset",
    ),
    "handler by reference": (
        "training_handlers",
        put(TRAINING, "train#handlers", ["@stopwatch"]),
        "'@stopwatch' in train#handlers",
    ),
    "old entry": ("entry_lists", put(INFERENCE, "evaluating", []), "has the key 'evaluating'"),
    "entry that is no list": ("entry_lists", put(TRAINING, "run", "$@train#trainer.run()"), "run is no list"),
    "lambda": ("no_lambdas", put(INFERENCE, "amp", "$(lambda: True)()"), "a lambda"),
    "import": ("no_imports", put(INFERENCE, "amp", "$import os"), "an import"),
    "metadata in a config": ("no_metadata_references", put(INFERENCE, "amp", "$@_meta_#version"), "the metadata"),
    "file in a config": ("no_file_references", put(INFERENCE, "amp", "%train.json::amp"), "a reference to a file"),
    "absolute path": ("plain_strings", put(TRAINING, "dataset_dir", "/data/lungs"), "absolute path '/data/lungs'"),
    "code in initialize": ("plain_initialize", put(TRAINING, "initialize", ["$@network.eval()"]), "at most"),
    "root of another bundle": ("bundle_roots", put(TRAINING, "bundle_root#name", "other"), "bundle_root"),
    "other label order": ("label_names", put(INFERENCE, "label_names#1", "left lower lobe"), "label_names differ"),
    "other window in training": ("shared_blocks", put(TRAINING, "window_hu", [-1000, 400]), "window_hu differs"),
    "no network in one": ("shared_blocks", drop(INFERENCE, "network"), r"network is missing in .*inference\.json"),
    "other preset in training": ("one_preset", put(TRAINING, "preset", "paper"), "the presets differ"),
    "unknown preset": ("one_preset", drop(INFERENCE, "presets#phantom"), "no preset 'phantom'"),
    "setting of one preset only": ("presets", drop(INFERENCE, "presets#paper#tile"), "all have the same"),
    "expression in a preset": ("presets", put(INFERENCE, "presets#paper#tile", "$2 * 70"), r"hold '\$2 \* 70'"),
    "second weights": ("one_weights_file", write("models/a.pt", ""), r"models holds a\.pt"),
    "changed weights": ("weights_hash", add_byte, "but the metadata describe"),
    "pickled weights": ("bare_state_dict", with_weights(to_numpy), "hold more than tensors"),
    "weights of another device": ("weights_on_cpu", with_weights(to_meta), "lies on meta"),
    "weights in full precision": ("weights_half_and_finite", with_weights(torch.Tensor.float), "is torch.float32"),
    "infinite weights": ("weights_half_and_finite", with_weights(to_infinity), "is not finite"),
    "code by a common name": ("code_name", write("scripts/net.py", ""), "Python in scripts"),
    "import inside a function": (
        "code_imports",
        write(f"{CODE}/net.py", "def f():\n    from . import late\n"),
        r"net\.py imports inside the function f",
    ),
    "import by the package's name": (
        "code_imports",
        write(f"{CODE}/net.py", f"from {CODE}.blocks import x\n"),
        f"imports {CODE} by its name",
    ),
    "package that is not named": ("code_requirements", write(f"{CODE}/net.py", "import pytest\n"), "imports pytest"),
}


@pytest.fixture
def copy(small_bundle: Path, tmp_path: Path) -> Path:
    """A bundle to break."""
    folder: Path = shutil.copytree(small_bundle, tmp_path / "bundles" / NAME)
    return folder


@pytest.fixture(scope="module")
def archive(small_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(small_bundle, tmp_path_factory.mktemp("dist"))


def zipped(folder: Path, archive: Path) -> Path:
    """Zip a folder as it is; ``pack`` would refuse most of what is wrong here."""
    archive.write_bytes(zip_bytes({f"{folder.name}/{path}": data for path, data in own_files(folder).items()}))
    return archive


def test_a_sound_bundle_passes_every_check(small_bundle, capsys):
    assert print_checks(small_bundle)
    expected = [f"pass {check.__name__}" for check in (*CHECKS, *probes.FOR_ALL)]
    assert capsys.readouterr().out.splitlines() == expected


def test_every_check_that_reads_files_has_its_broken_bundle():
    assert {name for name, _, _ in BROKEN.values()} == {check.__name__ for check in CHECKS}
    assert {name for name, _, _ in BROKEN_ZIPS.values()} == {check.__name__ for check in ZIP_CHECKS} | {"large_files"}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_bundle_fails_the_check(case, copy):
    name, change, reason = BROKEN[case]
    change(copy)
    (result,) = verify(copy, only=[name])
    assert not result.passed
    assert re.search(reason, result.reason), result.reason


def test_probes_of_a_bundle_whose_parts_do_not_fit(copy):
    changes = (
        write("configs/variants/typo.json", '{"network_def": {"_target_": "pulmozoo.networks.ctsunet.CTSUnet"}}'),
        replace("configs/logging.conf", "class=StreamHandler", "class=os.system"),
        put(METADATA, f"{PRED}#num_channels", 6),
        with_weights(first_only),
        put(INFERENCE, "cleaning", {"_target_": "Compose", "transforms": []}),
        put(INFERENCE, "evaluator#postprocessing", "@cleaning"),
        drop(TRAINING, "train#inferer"),
        put(INFERENCE, "bundle_root", {"_target_": "os.getcwd"}),
    )
    for change in changes:
        change(copy)
    reasons = {
        "targets_exist": r"typo\.json names pulmozoo\.networks\.ctsunet\.CTSUnet, which does not exist",
        "logging_conf": r"os\.system",
        "network_in_out": "output channel number `7` doesn't match: `6`",
        "weights_fit": "belong to another network or preset",
        "inference_properties": r"inference\.json has no or wrong ids for postprocessing",
        "training_properties": "inferer",
        "runs_from_another_bundle": f"bundle_root is .*other_{NAME}: expected",
    }
    assert_fails(copy, reasons, passing=["runs_from_its_folder"])


def test_probes_of_a_bundle_that_cannot_be_pickled_and_one_that_ends_the_process(copy):
    content = json.loads((copy / INFERENCE).read_text())
    content["preprocessing"]["transforms"].append({"_target_": "Lambdad", "keys": "image", "func": "$lambda x: x"})
    write_json(copy / INFERENCE, content)
    put(TRAINING, "network_def", {"_target_": "os._exit", "status": 3})(copy)
    pickling = "pickle.*lambda"
    reasons = {
        "loads_for_training": "the process ended with exit code 3",
        "workers_spawn": pickling,
        "workers_forkserver": pickling,
        "monai_label": pickling,
    }
    assert_fails(copy, reasons, passing=["loads_for_inference", "workers_fork"])


def test_probes_of_a_zip_that_needs_pulmozoo_or_shares_the_name_of_its_code(archive, tmp_path):
    folder = unpack(archive, tmp_path / "unpacked")
    (folder / CODE).rename(folder / "shared_code")
    for path in folder.glob("configs/**/*.json"):
        path.write_text(path.read_text().replace(CODE, "shared_code"))
    content = json.loads((folder / INFERENCE).read_text())
    content["postprocessing"]["transforms"].append({"_target_": "CastToTyped", "keys": "pred", "dtype": "$torch.int64"})
    write_json(folder / INFERENCE, content)
    write("configs/variants/lazy.json", '{"x": {"_target_": "pulmozoo.losses.ctsunet.CTSULoss"}}')(folder)
    reasons = {
        "targets_exist": "pulmozoo is not installed here",
        "monai_label": r"pred is torch\.int64 after postprocessing",
        "beside_another_bundle": rf"the network of .*other_{NAME} comes from .*unpacked",
        "after_another_bundle": rf"the network of .*unpacked/{NAME} comes from .*other_{NAME}",
    }
    assert_fails(zipped(folder, tmp_path / archive.name), reasons, passing=["runs_from_elsewhere"])


def test_probes_that_cannot_start_fail_with_what_the_process_said(copy, monkeypatch):
    monkeypatch.setattr(running, "PROBES", "bundle.checks.nothing")
    (result,) = verify(copy, only=["targets_exist"])
    assert re.search("ended with exit code 1: .*No module named verify_code.bundle.checks.nothing", result.reason)


def assert_fails(source: Path, reasons: dict[str, str], passing: list[str]) -> None:
    """Exactly the checks with a reason fail, each for its reason."""
    found = {result.name: result.reason for result in verify(source, only=[*reasons, *passing]) if not result.passed}
    assert set(found) == set(reasons), found
    for name, reason in reasons.items():
        assert re.search(reason, found[name]), found[name]


def first_only(tensor: torch.Tensor) -> torch.Tensor:
    return tensor[:1].clone()


def other_name(archive: Path) -> Path:
    return archive.rename(archive.with_name("lobes.zip"))


def other_folder(archive: Path) -> Path:
    folder = unpack(archive, archive.parent / "unpacked")
    return zipped(folder.rename(folder.with_name("lobes")), archive)


def own_times(archive: Path) -> Path:
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr(zipfile.ZipInfo(f"{NAME}/docs/note.txt", (2026, 11, 21, 0, 0, 0)), "late")
    return archive


def own_checksum(archive: Path) -> Path:
    write_json(archive.with_name("model_info.json"), {archive.stem: {"checksum": "ab", "source": ""}})
    return archive


def list_of_large_files(archive: Path) -> Path:
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr(f"{NAME}/large_files.yml", "large_files: []")
    return archive


BROKEN_ZIPS: dict[str, tuple[str, Callable[[Path], Path], str]] = {
    "other name": ("zip_name", other_name, rf"is called lobes\.zip: expected {NAME}_v\d\.\d\.\d\.zip"),
    "other folder": ("zip_folder", other_folder, f"folder is lobes: expected the bundle's name {NAME}"),
    "times": ("zip_times", own_times, r"docs/note\.txt has a time of its own"),
    "checksum": ("zip_checksum", own_checksum, r"but model_info\.json has ab"),
    "list of large files": ("large_files", list_of_large_files, r"the zip holds large_files\.yml"),
}


@pytest.mark.parametrize("case", BROKEN_ZIPS)
def test_a_broken_zip_fails_the_check(case, archive, tmp_path):
    name, change, reason = BROKEN_ZIPS[case]
    broken = change(Path(shutil.copy(archive, tmp_path)))
    (result,) = (result for result in verify(broken, only=[name]) if result.name != UNPACKS)
    assert not result.passed
    assert re.search(reason, result.reason), result.reason


def test_a_sound_zip_passes_the_checks_of_zips(archive):
    results = verify(archive, only=[check.__name__ for check in ZIP_CHECKS])
    assert [(result.name, result.passed) for result in results] == [
        (name, True) for name in (UNPACKS, *(check.__name__ for check in ZIP_CHECKS))
    ]


def test_a_damaged_zip_is_one_failure(archive, tmp_path, capsys):
    (tmp_path / "cut.zip").write_bytes(archive.read_bytes()[:1000])
    assert not print_checks(tmp_path / "cut.zip")
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"FAIL {UNPACKS}: {tmp_path / 'cut.zip'} is damaged or no zip")


def test_metadata_that_say_nothing_fail_with_a_reason_each(copy):
    write_json(copy / METADATA, {})
    results = verify(copy, only=[check.__name__ for check in CHECKS])
    failed = [result for result in results if not result.passed]
    assert len(failed) > 10
    assert all(result.reason for result in failed)


@pytest.mark.parametrize("module", ["jsonschema", "yaml"])
def test_a_missing_extra_is_named(module, copy, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    large_file()(copy)
    (result,) = verify(copy, only=["metadata_schema" if module == "jsonschema" else "large_files"])
    assert result.reason == f"this check needs {module}: pip install 'pulmozoo[verify]'"


def test_a_complete_list_of_large_files_passes(copy):
    large_file()(copy)
    assert verify(copy, only=["large_files"]) == [("large_files", True, "")]


def test_what_is_not_there_cannot_be_checked(small_bundle, tmp_path):
    with pytest.raises(BadInput, match="nothing does not exist: expected a bundle's folder or its zip"):
        verify(tmp_path / "nothing")
    with pytest.raises(BadInput, match="there is no check 'zip_name': choose of required_files, licence, "):
        verify(small_bundle, only=["zip_name"])
