"""Record what the golden tests compare with: python tests/record_golden.py SHELF

SHELF holds ``parity/<case>.json`` and ``.npz``, the outputs of the authors' published networks for seeded weights. Of
each output 200 values are kept. For every bundle the outputs of its own weights for a seeded input are recorded too;
record these again only when the weights change.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from torch import Tensor

from seeded import seeded_input

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
SAMPLES = 200


def sampled(output: Tensor) -> dict[str, Any]:
    """Shape, spread, and 200 values with their flat indices."""
    index = torch.randperm(output.numel(), generator=torch.Generator().manual_seed(0))[:SAMPLES].sort().values
    return {
        "shape": list(output.shape),
        "std": output.std(correction=0).item(),
        "index": index.tolist(),
        "value": output.flatten()[index].tolist(),
    }


def parity_case(config: Path) -> dict[str, Any]:
    """A parity case of the shelf, its outputs sampled."""
    kept = ("seed", "tolerance", "gains", "inputs", "source", "notes", "parameters", "checkpoint")
    case = {key: value for key, value in json.loads(config.read_text()).items() if key in kept}
    with np.load(config.with_suffix(".npz")) as stored:
        case["outputs"] = {name: sampled(torch.from_numpy(stored[name])) for name in stored.files}
    return case


def network_output(bundle: Path) -> Tensor:
    """A bundle's network with its own weights on a seeded input, as its metadata describes it."""
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
    image = json.loads((bundle / "configs" / "metadata.json").read_text())["network_data_format"]["inputs"]["image"]
    sizes = image["spatial_shape"]  # "8" is fixed, "8*n" any multiple, "*" any size
    free = [32 + int(size.removesuffix("*n").replace("*", "1")) * axis for axis, size in enumerate(sizes)]
    fixed = [int(size) if size.isdigit() else None for size in sizes]
    shape = [1, image["num_channels"], *(one or other for one, other in zip(fixed, free, strict=True))]
    with torch.no_grad():
        output: Tensor = network(seeded_input(bundle.name, shape, seed=1))
    return output


def main(shelf: Path) -> None:
    for config in sorted((shelf / "parity").glob("*.json")):
        if config.with_suffix(".npz").exists():
            (GOLDEN / config.name).write_text(json.dumps(parity_case(config)) + "\n")
    for bundle in sorted((ROOT / "bundles").iterdir()):
        (GOLDEN / f"weights_{bundle.name}.json").write_text(json.dumps(sampled(network_output(bundle))) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
