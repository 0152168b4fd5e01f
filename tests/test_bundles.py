"""One contract for all bundles: files, names, metadata, configs, weights, and that each one runs and trains."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from pydoc import locate
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from monai.bundle import ConfigWorkflow, verify_net_in_out

from conftest import BUNDLES, REPOSITORY, network_of, nodes
from pulmozoo.bundle.weights_file import sha256
from pulmozoo.handlers.resume import Resume

REQUIRED_FILES = (
    "LICENSE",
    "configs/metadata.json",
    "configs/inference.json",
    "configs/train.json",
    "configs/logging.conf",
    "docs/README.md",
    "docs/data_license.txt",
    "models/model.pt",
)
MANDATORY_METADATA = (
    "version",
    "changelog",
    "monai_version",
    "pytorch_version",
    "numpy_version",
    "required_packages_version",
    "name",
    "short_name",
    "task",
    "description",
    "authors",
    "copyright",
    "intended_use",
    "network_data_format",
    "weights",
)
SECTIONS = (
    "Authors",
    "Tags",
    "Model Description",
    "Data",
    "Performance",
    "System Configuration",
    "Limitations",
    "Citation",
    "References",
)
SHARED_BLOCKS = ("preset", "presets", "window_hu", "network_def", "network", "preprocessing")
COMPLETE_CONFIGS = ("inference.json", "train.json", "import_weights.json")
MIB = 2**20


def config_of(bundle: Path, name: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((bundle / "configs" / name).read_text(encoding="utf-8"))
    return config


def configs_of(bundle: Path) -> list[Path]:
    """Every config of a bundle that MONAI would execute, overlays and variants too."""
    return [path for path in sorted(bundle.glob("configs/**/*.json")) if path.name != "metadata.json"]


def targets(content: Any) -> list[str]:
    """The ``_target_`` values anywhere in a config."""
    return [node["_target_"] for node in nodes(content) if isinstance(node, dict) and "_target_" in node]


def test_there_are_bundles():
    assert BUNDLES


@pytest.mark.parametrize("name", REQUIRED_FILES)
def test_required_file(bundle, name):
    assert (bundle / name).is_file()


def test_models_holds_one_file(bundle):
    # MONAI Label takes the weight file with the shortest name, so a second one could be taken instead.
    assert [path.name for path in (bundle / "models").iterdir()] == ["model.pt"]


def test_the_licence_is_that_of_the_repository(bundle):
    assert (bundle / "LICENSE").read_text(encoding="utf-8") == (REPOSITORY / "LICENSE").read_text(encoding="utf-8")


def test_name(bundle):
    metadata = config_of(bundle, "metadata.json")
    assert metadata["name"] == bundle.name
    assert re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)+", bundle.name)
    assert "_v" not in bundle.name  # MONAI splits names there
    # MONAI Label infers the task from the folder's name.
    assert re.search("segmentation|detection|classification", bundle.name)


def test_no_name_is_part_of_another(bundle):
    others = [other.name for other in BUNDLES if other != bundle]
    assert [name for name in others if bundle.name in name] == []
    short = [config_of(other, "metadata.json")["short_name"] for other in BUNDLES]
    assert len(set(short)) == len(short)


def test_the_version_has_a_changelog_entry(bundle):
    metadata = config_of(bundle, "metadata.json")
    assert re.fullmatch(r"\d\.\d\.\d", metadata["version"])  # the zoo sorts versions as strings
    assert metadata["changelog"][metadata["version"]]


@pytest.mark.parametrize("key", MANDATORY_METADATA)
def test_metadata_has(bundle, key):
    assert config_of(bundle, "metadata.json")[key]


def test_required_versions_are_plain(bundle):
    metadata = config_of(bundle, "metadata.json")
    versions = {key: metadata[f"{key}_version"] for key in ("monai", "pytorch", "numpy")}
    for name, version in {**versions, **metadata["required_packages_version"]}.items():
        assert re.fullmatch(r"\d+(\.\d+)+", version), name
        assert re.fullmatch(r"[a-z0-9-]+", name)
    assert "optional_packages_version" not in metadata


def test_intended_use_is_not_clinical(bundle):
    assert "not for clinical use" in config_of(bundle, "metadata.json")["intended_use"].lower()


def test_one_preset_everywhere(bundle):
    inference, train = config_of(bundle, "inference.json"), config_of(bundle, "train.json")
    weights = config_of(bundle, "metadata.json")["weights"]
    assert inference["preset"] == train["preset"] == weights["preset"]
    assert inference["preset"] in inference["presets"]
    settings = [set(preset) for preset in inference["presets"].values()]
    assert all(keys == settings[0] for keys in settings)
    assert not any(isinstance(node, str) and node.startswith(("$", "@", "%")) for node in nodes(inference["presets"]))


@pytest.mark.parametrize("block", SHARED_BLOCKS)
def test_inference_and_training_share(bundle, block):
    texts = [json.dumps(config_of(bundle, name)[block], indent=4) for name in ("inference.json", "train.json")]
    assert texts[0] == texts[1]


def test_the_label_order_is_that_of_the_metadata(bundle):
    outputs = config_of(bundle, "metadata.json")["network_data_format"]["outputs"]
    for path in configs_of(bundle):
        config = json.loads(path.read_text(encoding="utf-8"))
        if path.name == "inference.json" or "label_names" in config:
            assert config["label_names"] == outputs["pred"]["channel_def"], path.name


def test_weights_say_where_they_come_from(bundle):
    weights = config_of(bundle, "metadata.json")["weights"]
    assert weights["tier"] in ("authors", "phantom", "yours")
    for key in ("trained_on", "score", "command"):
        assert weights[key], key


def test_weights_file_is_the_one_in_the_metadata(bundle):
    assert sha256(bundle / "models" / "model.pt") == config_of(bundle, "metadata.json")["weights"]["sha256"]


def test_weights_file_is_small_plain_and_fits(bundle):
    path = bundle / "models" / "model.pt"
    assert path.stat().st_size < 26 * MIB
    state = torch.load(path, weights_only=True)
    assert all(isinstance(value, torch.Tensor) and value.device.type == "cpu" for value in state.values())
    assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.float16}
    assert all(value.isfinite().all() for value in state.values())
    network_of(bundle).load_state_dict(state, strict=True)


def test_all_weights_together_are_small():
    assert sum((bundle / "models" / "model.pt").stat().st_size for bundle in BUNDLES) < 45 * MIB


def test_json_is_indented_by_four(bundle):
    for path in sorted(bundle.glob("configs/**/*.json")):
        text = path.read_text(encoding="utf-8")
        assert text == json.dumps(json.loads(text), indent=4) + "\n", f"reformat {path.name}"


def test_configs_hold_no_hidden_code(bundle):
    for path in configs_of(bundle):
        config = json.loads(path.read_text(encoding="utf-8"))
        for node in nodes(config):
            if isinstance(node, str):
                assert "lambda" not in node, path.name
                assert not (node.startswith("$") and "import" in node), path.name
                assert "/home/" not in node, path.name
        assert not {"import", "imports"} & set(config), path.name


def test_initialize_holds_nothing_custom(bundle):
    # MONAI puts the bundle on the search path after `initialize` only.
    for path in configs_of(bundle):
        for entry in nodes(json.loads(path.read_text(encoding="utf-8")).get("initialize", [])):
            if isinstance(entry, str):
                assert re.fullmatch(r"\$monai\.utils\.set_determinism\(.*\)", entry), path.name


def test_every_target_of_ours_exists(bundle):
    for path in configs_of(bundle):
        for target in targets(json.loads(path.read_text(encoding="utf-8"))):
            if target.startswith("pulmozoo"):
                assert callable(locate(target)), f"{target} in {path.name}"


def test_bundle_root_has_the_name_of_the_bundle(bundle):
    for path in configs_of(bundle):
        config = json.loads(path.read_text(encoding="utf-8"))
        if "bundle_root" in config:
            assert config["bundle_root"]["name"] == bundle.name, path.name


def test_network_input_and_output_are_those_of_the_metadata(bundle):
    verify_net_in_out(
        "network_def",
        meta_file=str(bundle / "configs" / "metadata.json"),
        config_file=str(bundle / "configs" / "inference.json"),
        device="cpu",
        n=2,
    )


def test_raw_channels_are_described(bundle):
    raw = config_of(bundle, "metadata.json")["network_output_data_format"]["pred"]
    assert sorted(raw["channel_def"], key=int) == [str(channel) for channel in range(raw["num_channels"])]


@pytest.mark.parametrize(("name", "workflow_type"), [("inference.json", "infer"), ("train.json", "train")])
def test_monai_finds_every_property(bundle, cohort, tmp_path, name, workflow_type):
    workflow = ConfigWorkflow(
        config_file=str(bundle / "configs" / name),
        workflow_type=workflow_type,
        logging_file=False,
        dataset_dir=str(cohort),
        output_dir=str(tmp_path),
        device="cpu",
        **({"cache_rate": 0.0} if workflow_type == "train" else {}),
    )
    workflow.initialize()
    try:
        missing = workflow.check_properties()
    except KeyError as error:  # what MONAI does instead of listing a required one
        pytest.fail(f"{name} lacks {error}")
    assert missing == []


@pytest.mark.parametrize("section", SECTIONS)
def test_readme_has_the_section(bundle, section):
    text = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    assert any(heading.lower().startswith(section.lower()) for heading in headings), headings


def test_readme_begins_with_a_title_and_says_what_it_is_not_for(bundle):
    text = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert "not for clinical use" in " ".join(text.lower().split())


def monai_bundle_run(cwd: Path, config: str, *options: str) -> subprocess.CompletedProcess[str]:
    """``python -m monai.bundle run`` as a user types it, in its own process."""
    return subprocess.run(
        [sys.executable, "-m", "monai.bundle", "run", "--config_file", config, "--device", "cpu", *options],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("place", ["bundle", "root", "parent", "repository's bundle"])
def test_it_runs_from_any_folder_and_takes_its_own_weights(bundle, small_copy_of, chest_ct, tmp_path, place):
    small = small_copy_of(bundle)
    config = small / "configs" / "inference.json"
    cwd, config_file = {
        "bundle": (small, "configs/inference.json"),
        "root": (Path("/"), str(config)),
        "parent": (small.parent, f"{small.name}/configs/inference.json"),
        "repository's bundle": (bundle, str(config)),
    }[place]
    run = monai_bundle_run(cwd, config_file, "--dataset_dir", str(chest_ct), "--output_dir", str(tmp_path))
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    results = json.loads((tmp_path / "chest" / "results.json").read_text(encoding="utf-8"))
    assert results["weights"]["sha256"] == sha256(small / "models" / "model.pt")


def test_a_copy_without_weights_stops(bundle, chest_ct, tmp_path):
    copy = tmp_path / "copies" / bundle.name
    shutil.copytree(bundle, copy, ignore=shutil.ignore_patterns("out", "model.pt"))
    run = monai_bundle_run(
        REPOSITORY,
        str(copy / "configs" / "inference.json"),
        *("--dataset_dir", str(chest_ct), "--output_dir", str(tmp_path / "OUT")),
    )
    assert run.returncode == 1
    said = [line for line in run.stderr.splitlines() if line.startswith("pulmozoo: ")]
    assert said == [
        f"pulmozoo: the weights {copy}/models/model.pt are missing: expected a state dict there; "
        "the network never runs untrained"
    ]
    assert not (tmp_path / "OUT").exists()


def run_configs(configs: list[Path], cohort: Path, output_dir: Path, **overrides: Any) -> ConfigWorkflow:
    """Run a config, or one with overlays, in this process."""
    workflow = ConfigWorkflow(
        config_file=[str(path) for path in configs],
        workflow_type="train",
        logging_file=False,
        dataset_dir=str(cohort),
        output_dir=str(output_dir),
        device="cpu",
        **overrides,
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    return workflow


def test_a_killed_training_goes_on_where_it_stopped(bundle, small_copy_of, cohort, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path[:])
    config = small_copy_of(bundle) / "configs" / "train.json"
    save = Resume.save

    def save_and_be_killed(self: Resume, engine: Engine) -> None:
        save(self, engine)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Resume, "save", save_and_be_killed)
        with pytest.raises(KeyboardInterrupt):
            run_configs([config], cohort, tmp_path / "killed", max_epochs=2)
    first = torch.load(tmp_path / "killed" / "last.pt", weights_only=True)
    assert (first["epoch"], first["iteration"]) == (1, 2)
    resumed = run_configs([config], cohort, tmp_path / "killed", max_epochs=2)
    assert resumed.trainer.state.iteration == 4
    second = torch.load(tmp_path / "killed" / "last.pt", weights_only=True)
    assert (second["epoch"], second["iteration"]) == (2, 4)
    moved = [name for name, value in first["network"].items() if not torch.equal(value, second["network"][name])]
    assert {name.split(".")[0] for name in moved} == {name.split(".")[0] for name in first["network"]}
    assert all(value.isfinite().all() for value in second["network"].values())
    assert list(tmp_path.rglob("*unfinished*")) == []
    run_configs([config], cohort, tmp_path / "straight", max_epochs=2)
    straight = torch.load(tmp_path / "straight" / "last.pt", weights_only=True)
    assert second["scheduler"] == straight["scheduler"]
    assert second["optimizer"]["param_groups"] == straight["optimizer"]["param_groups"]


@pytest.mark.parametrize(
    "overlay",
    [path for bundle in BUNDLES for path in configs_of(bundle) if path.name not in COMPLETE_CONFIGS],
    ids=lambda path: path.relative_to(REPOSITORY / "bundles").as_posix(),
)
def test_every_overlay_runs(overlay, small_copy_of, cohort, tmp_path, monkeypatch):
    """Overlays lie on train.json; those that change the evaluation lie on evaluate.json in between."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    bundle = next(bundle for bundle in BUNDLES if bundle in overlay.parents)
    configs = small_copy_of(bundle) / "configs"
    mine = configs / overlay.relative_to(bundle / "configs")
    keys = set(json.loads(overlay.read_text(encoding="utf-8")))
    evaluates = any(re.match(r"evaluate\b", key) for key in keys)
    between = [configs / "evaluate.json"] if evaluates and mine.name != "evaluate.json" else []
    run_configs(
        [configs / "train.json", *between, mine], cohort, tmp_path, **({"split": "training"} if evaluates else {})
    )
    assert [path for path in tmp_path.rglob("*") if path.is_file()]
