"""Export a bundle's network to TorchScript or ONNX, and hold the file against the network.

The file holds the bare network: an image on the working grid in, logits out. Reading, grids, tiling and what makes
labels of logits stay with the bundle. Both formats are traced, so checks of the input's size are lost.
"""

import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.data import save_net_with_metadata
from monai.networks.utils import convert_to_onnx, convert_to_torchscript
from monai.utils import optional_import
from torch import Tensor, nn

from ..files import whole
from .adopt import network_of
from .errors import BadInput, innermost_reason
from .quiet import quiet
from .weights_file import check_preset, load_strictly, read_metadata, read_weights

onnx, _ = optional_import("onnx")
onnxruntime, has_onnxruntime = optional_import("onnxruntime")
_, has_onnxscript = optional_import("onnxscript")

FORMATS = {".ts": "torchscript", ".onnx": "onnx"}
FREE = "batch and sizes are free"  # what metadata say of a format that works
WHAT = (
    "the bare network in float32: network_data_format says what image takes, network_output_data_format what pred "
    "gives; reading, working grid, tiles and labels are left to you"
)
TOLERANCE = 1e-4  # of the range of the network's answer
AXES = ("depth", "height", "width")
ANY_SIZE = 9  # unit of a size that may be anything
RUNS = 3

Network = Callable[[Tensor], Tensor]


class Exported(NamedTuple):
    """A file and how far it is from the network: the largest difference, the answer's range, the inputs' shapes."""

    path: Path
    difference: float
    answer_range: float
    shapes: list[tuple[int, ...]]


def export_network(source: Path, target: Path, preset: str | None = None) -> Exported:
    """Write a bundle's network with its weights, in float32, as one file that needs no pulmozoo.

    Args:
        source: the bundle's folder.
        target: ends in ``.ts`` for TorchScript or ``.onnx`` for ONNX; a file there is replaced.
        preset: that of the bundle's weights, which is also the default.

    Batch and all sizes that the metadata leave open stay open. The file is run on two seeded inputs, the second of
    another batch and other sizes than it was traced with. Raises BadInput, and leaves no file, for a format that the
    bundle's metadata rule out or where an answer is more than ``TOLERANCE`` of its range from the network's.
    """
    metadata = read_metadata(source)
    form = format_of(target)
    reason = metadata.get("exports", {}).get(form, FREE)
    if reason != FREE:
        raise BadInput(f"{metadata['name']} cannot be exported to {form}: {reason}")
    preset = preset or metadata["weights"]["preset"]
    network = trained_network(source, preset)
    image = metadata["network_data_format"]["inputs"]["image"]
    inputs = [seeded_image(image, batch=2, steps=(2, 3, 4)), seeded_image(image, batch=1, steps=(3, 2, 2))]
    about = {**metadata, "exported": {"preset": preset, "input": "image", "output": "pred", "what": WHAT}}
    with whole(target) as unfinished:
        try:
            with quiet():  # both exporters warn of what the comparison answers, and one logs every pass
                if form == "onnx":
                    write_onnx(network, inputs[0], open_axes(image), about, unfinished)
                else:
                    write_torchscript(network, inputs[0], about, unfinished)
            answers = list(map(read_exported(unfinished), inputs))
        except Exception as error:  # whatever an exporter raises, or a file that does not take the second input
            raise BadInput(f"{metadata['name']} cannot be exported to {form}: {innermost_reason(error)}") from error
        difference, answer_range = largest_difference(answers, [on_cpu(network, image) for image in inputs])
        if not difference <= TOLERANCE * answer_range:
            raise BadInput(
                f"the {form} file answers up to {difference:.2g} differently, where answers span {answer_range:.2g}: "
                f"expected at most {TOLERANCE:g} of that, so it was not kept"
            )
    return Exported(target, difference, answer_range, [tuple(image.shape) for image in inputs])


def format_of(target: Path) -> str:
    """The format by the file's ending; BadInput where it has another, or what writes it is not installed."""
    if target.suffix not in FORMATS:
        raise BadInput(f"{target} ends in neither {' nor '.join(FORMATS)}: name the file by the format")
    if target.suffix == ".onnx" and not (has_onnxruntime and has_onnxscript):
        raise BadInput("ONNX needs the export extra: pip install 'pulmozoo[export]'")
    return FORMATS[target.suffix]


def trained_network(source: Path, preset: str) -> nn.Module:
    """The bundle's network with its weights, in float32, ready to infer; BadInput where the preset is not theirs."""
    weights = source / "models" / "model.pt"
    network = network_of(source, {"preset": preset})
    check_preset(source, preset)
    load_strictly(network, read_weights(weights), weights)
    return network.eval().requires_grad_(False)


def seeded_image(image: dict[str, Any], batch: int, steps: Sequence[int]) -> Tensor:
    """An input ``(batch, C, ...)`` that the metadata's ``image`` describes, uniform over its range of values.

    A size ``"8*n"`` has ``n`` from ``steps``, one for each axis; ``"8"`` is fixed and ``"*"`` may be anything.
    """
    sizes = [str(size) for size in image["spatial_shape"]]
    units = [ANY_SIZE if size == "*" else int(size.removesuffix("*n")) for size in sizes]
    shape = [unit * (1 if size.isdigit() else n) for size, unit, n in zip(sizes, units, steps, strict=False)]
    low, high = image["value_range"]
    values = torch.rand(batch, image["num_channels"], *shape, generator=torch.Generator().manual_seed(0))
    return low + (high - low) * values


def open_axes(image: dict[str, Any]) -> dict[int, str]:
    """Names of the axes whose size the metadata leave open, by number: the batch first."""
    sizes = [str(size) for size in image["spatial_shape"]]
    names = zip(AXES[-len(sizes) :], sizes, strict=True)
    return {0: "batch"} | {axis: name for axis, (name, size) in enumerate(names, start=2) if not size.isdigit()}


def write_torchscript(network: nn.Module, image: Tensor, about: dict[str, Any], path: Path) -> None:
    """Trace, and save as MONAI does; ``about`` becomes the ``metadata.json`` in the file. All sizes stay open."""
    traced = convert_to_torchscript(network, inputs=[image], use_trace=True, check_trace=False)
    save_net_with_metadata(traced, str(path), include_config_vals=False, meta_values=about)


def write_onnx(network: nn.Module, image: Tensor, axes: dict[int, str], about: dict[str, Any], path: Path) -> None:
    """One file, input ``image``, output ``pred``; ``about`` becomes its property ``metadata.json``."""
    model = convert_to_onnx(
        network,
        inputs=[image],
        input_names=["image"],
        output_names=["pred"],
        filename=str(path),
        dynamo=True,
        dynamic_shapes=(axes,),
        external_data=False,
        verbose=False,
    )
    onnx.helper.set_model_props(model, {"metadata.json": json.dumps(about)})
    onnx.save(model, str(path))


def read_exported(path: Path) -> Network:
    """An exported file as a function, on the CPU with as many threads as PyTorch has."""
    if path.suffix == ".ts":
        return partial(on_cpu, torch.jit.load(path, map_location="cpu"))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return partial(on_onnxruntime, onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]))


def on_cpu(network: nn.Module, image: Tensor) -> Tensor:
    with torch.inference_mode():
        answer: Tensor = network(image)
    return answer


def on_onnxruntime(session: Any, image: Tensor) -> Tensor:
    (answer,) = session.run(["pred"], {"image": image.numpy()})
    return torch.from_numpy(answer)


def largest_difference(answers: Sequence[Tensor], expected: Sequence[Tensor]) -> tuple[float, float]:
    """The largest difference of any value, and what the expected values span; BadInput where shapes differ."""
    for answer, wanted in zip(answers, expected, strict=True):
        if answer.shape != wanted.shape:
            raise BadInput(f"the exported file answers {tuple(answer.shape)}: expected {tuple(wanted.shape)}")
    everything = torch.cat([wanted.flatten() for wanted in expected])
    differences = torch.cat([(one - other).abs().flatten() for one, other in zip(answers, expected, strict=True)])
    return differences.max().item(), (everything.max() - everything.min()).item()


def seconds_beside(source: Path, exported: Path, preset: str | None, shape: Sequence[int]) -> tuple[float, float]:
    """Seconds that the network in PyTorch and the exported file take for an input ``shape``: the best of a few runs.

    Both in float32 on the CPU, in turn; the network is not compiled and its memory format is the default.
    """
    network = trained_network(source, preset or read_metadata(source)["weights"]["preset"])
    both = (partial(on_cpu, network), read_exported(exported))
    image = torch.rand(*shape, generator=torch.Generator().manual_seed(0))
    ours, theirs = zip(*([seconds(each, image) for each in both] for _ in range(RUNS)), strict=True)
    return min(ours), min(theirs)


def seconds(network: Network, image: Tensor) -> float:
    started = time.perf_counter()
    network(image)
    return time.perf_counter() - started
