"""Make a bundle of a trained checkpoint: weights, preset and metadata change together."""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import Tensor, nn

from ..files import write_json
from .errors import BadInput
from .weights_file import load_strictly, network_state, read_metadata, sha256

logger = logging.getLogger(__name__)

CONFIGS_WITH_PRESET = ("inference.json", "train.json")


def adopt(
    checkpoint: Path,
    source: Path,
    out: Path,
    preset: str,
    description: dict[str, str],
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """Copy the bundle ``source`` to ``out`` with the weights of ``checkpoint``, in half precision.

    Args:
        checkpoint: state dict, or what training saved (``{"network": state dict, ...}``).
        source: the bundle whose network it is.
        out: a new folder, or ``source`` itself to change it in place.
        preset: the preset the network was trained with.
        description: ``tier``, ``trained_on``, ``command`` and ``score`` for the metadata.
        settings: values of other keys of the configs that the network was trained with, such as ``{"aspp": True}``.

    Returns the path of the weights. Raises BadInput when they do not fit the network; whatever goes wrong, ``out``
    stays as it was.
    """
    return adopt_state(network_state(checkpoint), checkpoint, source, out, preset, description, settings)


def adopt_state(
    state: dict[str, Tensor],
    checkpoint: Path,
    source: Path,
    out: Path,
    preset: str,
    description: dict[str, str],
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """As :func:`adopt`, with the state dict that was read from ``checkpoint`` already."""
    chosen = {**(settings or {}), "preset": preset}
    load_strictly(network_of(source, chosen), state, checkpoint)
    half = {name: halved(tensor) for name, tensor in state.items()}
    in_place = out.resolve() == source.resolve()
    if out.exists() and not in_place:
        raise BadInput(f"{out} exists already: expected a folder that does not, to write the new bundle to")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".adopting_", dir=out if in_place else out.parent) as unfinished:
        new = Path(unfinished) / "bundle"
        shutil.copytree(source, new, ignore=shutil.ignore_patterns("out", "__pycache__", ".adopting_*"))
        changed = write_weights(new, half, chosen, description)
        if in_place:
            (out / "models").mkdir(exist_ok=True)
            for path in changed:
                os.replace(path, out / path.relative_to(new))
        else:
            os.replace(new, out)
    return out / "models" / "model.pt"


def write_weights(
    bundle: Path, state: dict[str, Tensor], chosen: Mapping[str, Any], description: dict[str, str]
) -> list[Path]:
    """Write weights, preset and settings, and metadata into a bundle; returns the files written, the metadata last."""
    weights = bundle / "models" / "model.pt"
    weights.parent.mkdir(exist_ok=True)
    torch.save(state, weights)
    configs = [path for name in CONFIGS_WITH_PRESET if (path := bundle / "configs" / name).exists()]
    for path in configs:
        config = json.loads(path.read_text(encoding="utf-8"))
        write_json(path, {**config, **{key: value for key, value in chosen.items() if key in config}})
    metadata = {**read_metadata(bundle), "data_source": description["trained_on"]}
    metadata.pop("eval_metrics", None)  # those of the weights before
    metadata["weights"] = {**description, "preset": chosen["preset"], "sha256": sha256(weights)}
    write_json(bundle / "configs" / "metadata.json", metadata)
    return [weights, *configs, bundle / "configs" / "metadata.json"]


def network_of(bundle: Path, chosen: Mapping[str, Any]) -> nn.Module:
    """The bundle's network in a preset and with other settings of its inference.json, with random weights."""
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    if chosen["preset"] not in parser["presets"]:
        raise BadInput(f"there is no preset {chosen['preset']!r}: choose one of {', '.join(parser['presets'])}")
    unknown = [key for key in chosen if key not in parser]
    if unknown:
        raise BadInput(f"inference.json of {bundle} has no setting {unknown[0]!r}: leave it out or correct its name")
    for key, value in chosen.items():
        parser[key] = value
    network: nn.Module = parser.get_parsed_content("network_def")
    return network


def halved(tensor: Tensor) -> Tensor:
    """Half precision, contiguous, on the CPU; integers stay."""
    plain = tensor.detach().cpu().contiguous()
    half = plain.half() if plain.is_floating_point() else plain
    if not torch.isfinite(half).all():
        raise BadInput("a weight is not finite, or too large for half precision (65504): train on at a lower rate")
    return half
