"""What the configs hold: the keys that others rely on, no hidden code, each fact once."""

import json
import re
from typing import Any

from monai.bundle import ConfigParser

from ..errors import BadInput
from ..pack import check_strings, strings
from .candidate import INFERENCE, METADATA, TRAINING, Candidate

INFERENCE_KEYS = (
    "bundle_root",
    "device",
    "dataset_dir",
    "output_dir",
    "dataset",
    "dataset#data",
    "network_def",
    "preprocessing",
    "inferer",
    "postprocessing",
    "handlers",
    "evaluator",
    "output_ext",  # these four are what services around the model zoo override
    "output_dtype",
    "output_postfix",
    "separate_folder",
    "run",
)
TRAINING_KEYS = (
    "bundle_root",
    "device",
    "dataset_dir",
    "output_dir",
    "network_def",
    "network",
    "train#trainer",
    "train#trainer#max_epochs",
    "train#dataset",
    "train#dataset#data",
    "train#inferer",
    "train#handlers",
    "run",
)
VALIDATION_KEYS = ("validate#evaluator", "validate#handlers", "validate#dataset", "validate#dataset#data")
ENTRIES = ("initialize", "run", "finalize")
OUTDATED = ("import", "imports", "training", "evaluating")
SHARED = ("preset", "presets", "network_def", "network", "preprocessing")
MAY_DIFFER = ("dataset_dir", "output_dir", "amp", "run")


def json_indent(bundle: Candidate) -> None:
    for path in (METADATA, *bundle.configs):
        if bundle.text(path) != json.dumps(bundle.json(path), indent=4) + "\n":
            raise BadInput(f"{path} is not formatted with an indent of 4: write it with json.dumps(..., indent=4)")


def inference_keys(bundle: Candidate) -> None:
    need_keys(bundle, INFERENCE, INFERENCE_KEYS)


def training_keys(bundle: Candidate) -> None:
    validates = "validate" in bundle.json(TRAINING)
    need_keys(bundle, TRAINING, (*TRAINING_KEYS, *VALIDATION_KEYS) if validates else TRAINING_KEYS)


def need_keys(bundle: Candidate, path: str, ids: tuple[str, ...]) -> None:
    config = ConfigParser(bundle.json(path))
    missing = [each for each in ids if each not in config]
    if missing:
        raise BadInput(f"{path} has no {', '.join(missing)}")


def training_handlers(bundle: Candidate) -> None:
    """MONAI and MONAI Label ask each entry of the list for its ``_target_``."""
    handlers = bundle.json(TRAINING)["train"]["handlers"]
    if not isinstance(handlers, list):
        raise BadInput(f"{TRAINING}: train#handlers is no list")
    for handler in handlers:
        if not isinstance(handler, dict):
            raise BadInput(f"{TRAINING}: {handler!r} in train#handlers: expected an object with '_target_'")


def entry_lists(bundle: Candidate) -> None:
    for path, config in bundle.configs.items():
        outdated = [key for key in OUTDATED if key in config]
        if outdated:
            raise BadInput(f"{path} has the key {outdated[0]!r}: expected the entries {', '.join(ENTRIES)} only")
        wrong = [key for key in ENTRIES if not isinstance(config.get(key, []), list)]
        if wrong:
            raise BadInput(f"{path}: {wrong[0]} is no list")


def no_lambdas(bundle: Candidate) -> None:
    refuse(bundle, r"\blambda\b", "a lambda, which cannot be pickled for workers: make it a function")


def no_imports(bundle: Candidate) -> None:
    refuse(bundle, r"\$.*import", "an import, which depends on the working directory: name a full path in '_target_'")


def no_metadata_references(bundle: Candidate) -> None:
    refuse(bundle, r"[@%]_meta_\b", "a reference to the metadata, which MONAI Label does not pass on")


def no_file_references(bundle: Candidate) -> None:
    refuse(bundle, r"%.+\.(json|ya?ml)\b", "a reference to a file, which is looked for in the working directory")


def refuse(bundle: Candidate, pattern: str, what: str) -> None:
    """Raise BadInput for the first text in a config that matches."""
    for path, config in bundle.configs.items():
        for _, text in strings(config):
            if re.search(pattern, text):
                raise BadInput(f"{path} holds {text!r}: {what}")


def plain_strings(bundle: Candidate) -> None:
    """No absolute paths, no expression that needs this package."""
    for path, config in bundle.configs.items():
        check_strings(config, path)


def plain_initialize(bundle: Candidate) -> None:
    """MONAI puts the bundle on the search path after ``initialize`` only; several processes must join there, though."""
    for path, config in bundle.configs.items():
        for entry in config.get("initialize", []):
            joins = isinstance(entry, dict) and str(entry.get("_target_")).endswith(".handlers.processes.join")
            if not joins and not re.fullmatch(r"\$monai\.utils\.set_determinism\(.*\)", str(entry)):
                raise BadInput(f"{path} does {entry!r} in initialize: expected monai.utils.set_determinism at most")


def bundle_roots(bundle: Candidate) -> None:
    own = bundle.metadata.get("name")
    for path, config in bundle.configs.items():
        named = config.get("bundle_root", {"name": own})
        if not isinstance(named, dict) or named.get("name") != own:
            raise BadInput(f"{path} has the bundle_root {named}: expected pulmozoo.bundle.root with the name {own}")


def label_names(bundle: Candidate) -> None:
    """The label order is written in the metadata; configs that need it repeat it."""
    own = bundle.metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    for path, config in bundle.configs.items():
        if (path == INFERENCE or "label_names" in config) and config.get("label_names") != own:
            raise BadInput(f"{path}: label_names differ from channel_def of pred in {METADATA}")


def shared_blocks(bundle: Candidate) -> None:
    """MONAI Label reads one file only, so inference.json and train.json repeat what they share."""
    inference, training = bundle.json(INFERENCE), bundle.json(TRAINING)
    for key in SHARED:
        if key not in inference or key not in training:
            raise BadInput(f"{key} is missing in {TRAINING if key in inference else INFERENCE}")
    for key in inference:
        if key in training and key not in MAY_DIFFER and json.dumps(inference[key]) != json.dumps(training[key]):
            raise BadInput(f"{key} differs between {INFERENCE} and {TRAINING}: expected the same text")


def one_preset(bundle: Candidate) -> None:
    named = {path: bundle.json(path).get("preset") for path in (INFERENCE, TRAINING)}
    named[METADATA] = bundle.metadata.get("weights", {}).get("preset")
    if len(set(named.values())) != 1:
        raise BadInput(f"the presets differ ({named}): pulmozoo adopt writes all three")
    if named[METADATA] not in bundle.json(INFERENCE)["presets"]:
        raise BadInput(f"there is no preset {named[METADATA]!r} in presets")


def presets(bundle: Candidate) -> None:
    """All have the same settings, and those are plain values."""
    settings: dict[str, dict[str, Any]] = bundle.json(INFERENCE)["presets"]
    if len({tuple(sorted(values)) for values in settings.values()}) != 1:
        raise BadInput("the presets do not all have the same settings")
    for _, text in strings(settings):
        if text.startswith(("$", "@", "%")):
            raise BadInput(f"the presets hold {text!r}: expected plain values only")
