"""What ``configs/metadata.json`` says."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from monai.bundle import verify_metadata

from ..errors import BadInput
from ..quiet import quiet
from .candidate import METADATA, Candidate
from .extra import need

SCHEMA = Path(__file__).resolve().parents[1] / "metadata_schema.json"
EXPECTED = (
    "name",
    "short_name",
    "data_source",
    "data_type",
    "image_classes",
    "label_classes",
    "pred_classes",
    "intended_use",
    "references",
    "weights",
)
WEIGHTS_ORIGIN = ("tier", "trained_on", "score", "command", "preset", "sha256")
TIERS = ("authors", "phantom", "yours")


def metadata_schema(bundle: Candidate) -> None:
    """MONAI's own check; the schema lies beside, so nothing is downloaded."""
    need("jsonschema")
    if "schema" not in bundle.metadata:
        raise BadInput(f"{METADATA} has no key 'schema': expected the address of MONAI's schema")
    try:
        with quiet():  # MONAI logs what it was asked, and warns of a schema without a hash
            verify_metadata(meta_file=str(bundle.root / METADATA), filepath=SCHEMA)
    except ValueError as error:
        raise BadInput(f"{METADATA}: {str(error).splitlines()[0]} (metadata_schema.json)") from error


def metadata_keys(bundle: Candidate) -> None:
    """What the specification leaves open and this zoo expects."""
    missing = [key for key in EXPECTED if not bundle.metadata.get(key)]
    if missing:
        raise BadInput(f"{METADATA} has no {', '.join(missing)}")


def plain_versions(bundle: Candidate) -> None:
    """The zoo installs what is named with ``==``, so keys are names on PyPI and values are exact versions."""
    metadata = bundle.metadata
    if "optional_packages_version" in metadata:
        raise BadInput("optional_packages_version is outdated: name the packages under required_packages_version")
    versions = {key: metadata[f"{key}_version"] for key in ("monai", "pytorch", "numpy")}
    for package, came in {**versions, **metadata["required_packages_version"]}.items():
        if not re.fullmatch(r"[a-z0-9-]+", package):
            raise BadInput(f"{package!r} is no package name: expected small letters, digits and hyphens")
        if not re.fullmatch(r"\d+(\.\d+)+", str(came)):
            raise BadInput(f"the version of {package} is {came!r}: expected a plain one such as 1.6.1")


def tensors(metadata: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every tensor that a ``*_data_format`` block describes, with its id."""
    waiting = [(key, value) for key, value in metadata.items() if key.endswith("_data_format")]
    while waiting:
        where, value = waiting.pop()
        if isinstance(value, dict) and "spatial_shape" in value:
            yield where, value
        elif isinstance(value, dict):
            waiting.extend((f"{where}#{key}", inner) for key, inner in value.items())


def spatial_shapes(bundle: Candidate) -> None:
    """MONAI evaluates sizes with no other letters than p and n."""
    for where, tensor in tensors(bundle.metadata):
        for size in tensor["spatial_shape"]:
            if not re.fullmatch(r"\*|[\d\s()*+/pn-]+", str(size)):
                raise BadInput(f"{where} has the size {size!r}: expected a number, '*' or a formula of p and n")


def image_and_pred(bundle: Candidate) -> None:
    """MONAI Label and Deploy take the first input and the first output, and fix the keys of the data."""
    network = bundle.metadata["network_data_format"]
    first = (next(iter(network["inputs"]), None), next(iter(network["outputs"]), None))
    if first != ("image", "pred"):
        raise BadInput(f"the first input and output are {first}: expected 'image' and 'pred'")


def channel_definitions(bundle: Candidate) -> None:
    """MONAI Label fails on names that are no strings."""
    for where, tensor in tensors(bundle.metadata):
        names = tensor.get("channel_def")
        if not isinstance(names, dict) or not all(isinstance(text, str) and text for text in names.values()):
            raise BadInput(f"{where}#channel_def is {names}: expected a text for each index")
        if sorted(names) != sorted(str(index) for index in range(len(names))):
            raise BadInput(f"{where}#channel_def has the keys {', '.join(names)}: expected 0, 1, 2 and so on")


def raw_channels(bundle: Candidate) -> None:
    """``network_data_format`` holds the label map; what the network's channels are is said here."""
    raw = bundle.metadata.get("network_output_data_format", {}).get("pred", {})
    if len(raw.get("channel_def", {})) != raw.get("num_channels"):
        raise BadInput("network_output_data_format#pred does not say what each of the network's channels is")


def intended_use(bundle: Candidate) -> None:
    if "not for clinical use" not in str(bundle.metadata.get("intended_use")).lower():
        raise BadInput("intended_use does not say 'not for clinical use'")


def weights_origin(bundle: Candidate) -> None:
    origin = bundle.metadata["weights"]
    missing = [key for key in WEIGHTS_ORIGIN if not origin.get(key)]
    if missing:
        raise BadInput(f"weights has no {', '.join(missing)}: pulmozoo adopt takes and writes them")
    if origin["tier"] not in TIERS:
        raise BadInput(f"weights#tier is {origin['tier']!r}: expected one of {', '.join(TIERS)}")
