"""Checks that run a bundle's code: each in a process of its own, forked from one that has imported MONAI.

Started by :mod:`.running` as ``python -m`` on a copy of this module, for a zip where pulmozoo cannot be imported. So it
imports nothing of pulmozoo but what travels with it, and a probe fails by any exception.
"""

import copy
import json
import os
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from pydoc import locate
from typing import Any, NamedTuple

import monai.bundle
import nibabel as nib
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.bundle.config_item import ComponentLocator
from monai.data import DataLoader
from monai.transforms import SaveImaged
from PIL import Image
from torch import Tensor

from ..errors import BadInput, innermost_reason
from ..pack import is_target, strings
from ..weights_file import load_strictly, read_weights

LABEL_TYPES = (torch.uint8, torch.int16, torch.uint16, torch.int32)  # what MONAI Label can write


class Case(NamedTuple):
    """What the probes work on; all are absolute paths."""

    root: str
    twin: str  # a copy of the bundle under another name
    scan: str
    data: str  # folder with the datalist of one labelled scan
    output_dir: str

    def config(self, name: str) -> str:
        return f"{self.root}/configs/{name}.json"

    @property
    def weights(self) -> Path:
        return Path(self.root, "models", "model.pt")


@contextmanager
def on_search_path(root: str) -> Iterator[None]:
    """What MONAI Label does around everything that it builds."""
    sys.path.insert(0, root)
    try:
        yield
    finally:
        sys.path.remove(root)


def run_for(config: str, case: Case, ids: Sequence[str]) -> list[Any]:
    """Run a config as a user does, with some of its objects as all there is to run."""
    workflow = ConfigWorkflow(
        config_file=config,
        workflow_type="infer",
        logging_file=False,
        device="cpu",
        dataset_dir=case.scan,
        output_dir=case.output_dir,
        run=[f"@{each}" for each in ids],
    )
    workflow.initialize()
    results: list[Any] = workflow.run()
    return results


def targets_exist(case: Case) -> None:
    sys.path.insert(1, case.root)
    components = ComponentLocator()
    for path in sorted(Path(case.root).glob("configs/**/*.json")):
        for key, target in strings(json.loads(path.read_text(encoding="utf-8"))):
            if is_target(key) and not components.get_component_module_name(target) and not callable(locate(target)):
                raise BadInput(f"{path.name} names {target}, which does not exist")


def logging_conf(case: Case) -> None:
    """MONAI allows only classes of the standard library and literal arguments."""
    ConfigWorkflow(config_file=case.config("inference"), logging_file=f"{case.root}/configs/logging.conf")


def network_in_out(case: Case) -> None:
    """MONAI's own check: the network's channels and types are those of the metadata."""
    sys.path.insert(1, case.root)
    monai.bundle.verify_net_in_out(
        "network_def",
        meta_file=case.config("metadata"),
        config_file=case.config("inference"),
        device="cpu",
        n=2,
        any=32,
    )


def weights_fit(case: Case) -> None:
    sys.path.insert(1, case.root)
    parser = ConfigParser()
    parser.read_config(case.config("inference"))
    load_strictly(parser.get_parsed_content("network_def"), read_weights(case.weights), case.weights)


def inference_properties(case: Case) -> None:
    check_properties(case, "inference", "infer", case.scan)


def training_properties(case: Case) -> None:
    check_properties(case, "train", "train", case.data)


def check_properties(case: Case, config: str, workflow_type: str, dataset_dir: str) -> None:
    """MONAI's own check, which builds everything; it raises a KeyError instead of listing what is required."""
    sys.path.insert(1, case.root)
    workflow = ConfigWorkflow(
        config_file=case.config(config),
        workflow_type=workflow_type,
        logging_file=False,
        device="cpu",
        dataset_dir=dataset_dir,
        output_dir=case.output_dir,
    )
    workflow.initialize()
    missing = workflow.check_properties()
    if missing:
        raise BadInput(f"{config}.json has no or wrong ids for {', '.join(missing)}")


def runs_from_its_folder(case: Case) -> None:
    start_from(case, case.root, "configs/inference.json")


def runs_from_the_parent(case: Case) -> None:
    start_from(case, str(Path(case.root).parent), f"{Path(case.root).name}/configs/inference.json")


def runs_from_elsewhere(case: Case) -> None:
    start_from(case, "/", case.config("inference"))


def runs_from_another_bundle(case: Case) -> None:
    start_from(case, case.twin, case.config("inference"))


def start_from(case: Case, folder: str, config: str) -> None:
    os.chdir(folder)
    root, network = run_for(config, case, ["bundle_root", "network_def"])
    if not Path(root).samefile(case.root):
        raise BadInput(f"bundle_root is {root}: expected {case.root}")
    if not isinstance(network, torch.nn.Module):
        raise BadInput(f"network_def is a {type(network).__name__}: expected a network")


def loads_for_inference(case: Case) -> None:
    load(case, "inference")


def loads_for_training(case: Case) -> None:
    load(case, "train")


def load(case: Case, workflow_type: str) -> None:
    """``monai.bundle.load`` gives the network with the bundle's weights in it."""
    expected = read_weights(case.weights)
    sys.path.insert(1, case.root)
    folder = Path(case.root)
    network: Any = monai.bundle.load(folder.name, bundle_dir=folder.parent, workflow_type=workflow_type, device="cpu")
    for name, tensor in network.state_dict().items():
        if not torch.equal(tensor, expected[name].to(tensor.dtype)):
            raise BadInput(f"{name} was not loaded")


def workers_fork(case: Case) -> None:
    read_in_worker(case, "fork")


def workers_spawn(case: Case) -> None:
    read_in_worker(case, "spawn")


def workers_forkserver(case: Case) -> None:
    read_in_worker(case, "forkserver")


def read_in_worker(case: Case, method: str) -> None:
    """Preprocessing in a worker process gives what it gives here."""
    (dataset,) = run_for(case.config("inference"), case, ["dataset"])
    (batch,) = DataLoader(dataset, batch_size=1, num_workers=1, multiprocessing_context=method)
    if not torch.equal(batch["image"][0], dataset[0]["image"]):
        raise BadInput("preprocessing in a worker process gives another image")


def monai_label(case: Case) -> None:
    """What MONAI Label does: ``inference.json`` alone, a device in words, the search path only while it builds."""
    parser = ConfigParser()
    with on_search_path(case.root):
        parser.read_config(case.config("inference"))
        parser.update({"bundle_root": case.root, "device": "cpu"})
        network = parser.get_parsed_content("network_def")
    load_strictly(network, read_weights(case.weights), case.weights)
    parts = []
    for key in ("preprocessing", "inferer", "postprocessing"):
        with on_search_path(case.root):
            part = parser.get_parsed_content(key)
        parts.append(pickle.loads(pickle.dumps(copy.deepcopy(part))))
    before, inferer, after = parts
    data: dict[str, Any] = {"image": case.scan, "image_path": case.scan, "device": "cpu", "model": "verify"}
    for transform in before.transforms:
        data = transform(data)
    with torch.no_grad():
        output = inferer(data["image"][None], copy.deepcopy(network).eval())
    if not isinstance(output, Tensor):
        raise BadInput(f"the inferer returns a {type(output).__name__}: expected a tensor")
    data["pred"] = output[0]
    for transform in after.transforms:
        if not isinstance(transform, SaveImaged):
            data = transform(data)
    check_labels(data["pred"], case.scan)
    json.dumps(data.get("result", {}), allow_nan=False)


def check_labels(labels: Any, scan: str) -> None:
    """Raise BadInput unless the labels lie on the scan's own grid, in a type that MONAI Label can write."""
    shape, affine = grid_of(scan)
    if tuple(labels.shape) != shape:
        raise BadInput(f"pred has shape {tuple(labels.shape)} after postprocessing: expected {shape}")
    if labels.dtype not in LABEL_TYPES:
        raise BadInput(f"pred is {labels.dtype} after postprocessing: expected one of {LABEL_TYPES}")
    if affine is not None and not torch.allclose(labels.affine.cpu(), affine.to(labels.affine.dtype), atol=1e-3):
        raise BadInput("pred does not have the scan's affine after postprocessing")


def grid_of(scan: str) -> tuple[tuple[int, ...], Tensor | None]:
    """Shape of the labels and affine of the example: of a film (PNG) columns and rows, and no affine."""
    if scan.endswith(".png"):
        with Image.open(scan) as film:
            return film.size, None
    volume = nib.Nifti1Image.from_filename(scan)
    return (1, *volume.shape), torch.as_tensor(volume.affine)


def beside_another_bundle(case: Case) -> None:
    use_own_code(case, [case.root, case.twin])


def after_another_bundle(case: Case) -> None:
    use_own_code(case, [case.twin, case.root])


def use_own_code(case: Case, roots: Sequence[str]) -> None:
    """Both bundles in this process, in this order, each with its own root and its own network's file."""
    for root in roots:
        found, network = run_for(f"{root}/configs/inference.json", case, ["bundle_root", "network_def"])
        if not Path(found).samefile(root):
            raise BadInput(f"bundle_root of {root} is {found}")
        module = type(network).__module__
        file = Path(str(sys.modules[module].__file__)).resolve()
        if module.split(".")[0] not in ("monai", "torch") and not file.is_relative_to(Path(root).resolve()):
            raise BadInput(f"the network of {root} comes from {file}")


Probe = Callable[[Case], None]

FOR_ALL: tuple[Probe, ...] = (
    targets_exist,
    logging_conf,
    network_in_out,
    weights_fit,
    inference_properties,
    training_properties,
    runs_from_its_folder,
    runs_from_the_parent,
    runs_from_elsewhere,
    runs_from_another_bundle,
    loads_for_inference,
    loads_for_training,
    workers_fork,
    workers_spawn,
    workers_forkserver,
    monai_label,
)
FOR_ZIPS: tuple[Probe, ...] = (beside_another_bundle, after_another_bundle)  # others use the installed package
PROBES = {probe.__name__: probe for probe in (*FOR_ALL, *FOR_ZIPS)}


def main() -> None:
    """Run the probes named in the arguments, after the case; print a JSON line ``[name, reason]`` for each."""
    case = Case(**json.loads(sys.argv[1]))
    for name in sys.argv[2:]:
        sys.stdout.write(json.dumps([name, in_a_fork(PROBES[name], case)]) + "\n")
        sys.stdout.flush()


def in_a_fork(probe: Probe, case: Case) -> str:
    """Why the probe failed; empty if it passed."""
    context = get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=answer, args=(probe, case, there))
    process.start()
    there.close()
    try:
        reason: str | None = here.recv()
    except EOFError:
        reason = None
    process.join()
    return f"the process ended with exit code {process.exitcode}" if reason is None else reason


def answer(probe: Probe, case: Case, pipe: Connection) -> None:
    """Run the probe and send why it failed; what it prints goes to standard error."""
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        probe(case)
    except (Exception, SystemExit) as error:
        pipe.send(innermost_reason(error) or "it failed without a reason")
    else:
        pipe.send("")


if __name__ == "__main__":
    main()
