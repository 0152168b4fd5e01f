"""What the tests of bundles and runs share: a fast small copy of each bundle, a small chest, one way to run.

The network of the small copies is not trained: its weights are random but for one path through both stages, which
labels voxels by their density. So the right answer is known (``DARK`` and ``BRIGHT`` below) and depends on the scan,
and a flipped or shifted result shows.
"""

import contextlib
import io
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from PIL import Image
from torch import Tensor, nn

from pulmozoo.bundle.weights_file import read_metadata, sha256
from pulmozoo.cli import bundle_folder
from pulmozoo.files import write_json
from pulmozoo.networks.ctsunet import LOBE_CLASSES, ContextualUNet, CTSUNet
from pulmozoo.phantom import thorax
from pulmozoo.phantom.cohort import write_cohort
from pulmozoo.phantom.film_cohort import write_films
from pulmozoo.phantom.radiograph import radiograph

REPOSITORY = Path(__file__).resolve().parents[1]
BUNDLES = sorted(path.parents[1] for path in REPOSITORY.glob("bundles/*/configs/metadata.json"))

SMALL_PRESET = {
    "width": 0.1,
    "grid": {"spacing_mm": 12.0},
    "shape": [16, 24, 32],
    "tile": 124,
    "clean_up": False,
    "film_px": 64,
    "pixel_mm": 8.0,
    "patch_px": 32,
}
# No bfloat16: on a CPU, PyTorch 2.13 makes weight gradients of a Conv3d from uninitialised memory where an input is two
# voxels deep, which the deepest level is here.
SMALL_TRAINING = {"max_epochs": 1, "scan_epochs": 0, "cache_rate": 0.0, "amp": False}
SMALL_PATCH = 92

DARK, BRIGHT = 1, 5  # labels of the small copies: darker than DARK_HU, brighter than BRIGHT_HU
DARK_HU, BRIGHT_HU = -500.0, -20.0


class Outcome(NamedTuple):
    """How a run ended: its exit code and what it said on standard error."""

    code: int
    said: str


def takes_films(bundle: Path) -> bool:
    """Whether a bundle's images are films and not volumes."""
    return len(read_metadata(bundle)["network_data_format"]["inputs"]["image"]["spatial_shape"]) == 2


def run_inference(bundle: Path, dataset_dir: Path | str, output_dir: Path | str, **overrides: Any) -> Outcome:
    """Run a bundle's inference.json in this process, as ``python -m monai.bundle run`` does in its own."""
    search_path, said = sys.path[:], io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            workflow = ConfigWorkflow(
                config_file=str(bundle / "configs" / "inference.json"),
                workflow_type="infer",
                logging_file=False,
                dataset_dir=str(dataset_dir),
                output_dir=str(output_dir),
                **{"device": "cpu", **overrides},
            )
            workflow.initialize()
            workflow.run()
            workflow.finalize()
    except SystemExit as stop:
        return Outcome(stop.code, said.getvalue()) if isinstance(stop.code, int) else Outcome(1, str(stop.code))
    finally:
        sys.path[:] = search_path
    return Outcome(0, said.getvalue())


def labels_by_density(network: CTSUNet, *, finds_nothing: bool = False) -> dict[str, Tensor]:
    """Half-precision weights, random but for one path that carries the scan's density to the lobe heads."""
    for stage in (network.scan_unet, network.patch_unet):
        with torch.no_grad():
            carry_density(stage)
            set_head(stage, finds_nothing=finds_nothing)
    return halved(network)


def carry_density(stage: ContextualUNet) -> None:
    """Channel 0 of the first block is the scan itself, and so is, by way of the skip, channel 0 of the last block."""
    last: Any = stage.up[-1]
    skip = last[0].in_channels - stage.down[0][3].out_channels
    for block, source in ((stage.down[0], 0), (last, skip)):
        for conv, channel in ((block[0], source), (block[3], 0)):
            conv.weight[0] = 0
            conv.weight[0, channel, 1, 1, 1] = 1


def set_head(stage: ContextualUNet, *, finds_nothing: bool, steepness: float = 20.0) -> None:
    """Background between the two thresholds, one lobe below and one above; no other lobe anywhere."""
    dark, bright = ((hu + 1200) / 1600 for hu in (DARK_HU, BRIGHT_HU))
    stage.lobe_head.weight.zero_()
    stage.lobe_head.bias.copy_(torch.full((LOBE_CLASSES,), -20.0))
    stage.lobe_head.weight[DARK, 0], stage.lobe_head.bias[DARK] = -steepness, steepness * dark
    stage.lobe_head.weight[BRIGHT, 0], stage.lobe_head.bias[BRIGHT] = steepness, -steepness * bright
    stage.lobe_head.bias[0] = 100.0 if finds_nothing else 0.0


def network_of(bundle: Path, preset: str | None = None, seed: int = 0) -> nn.Module:
    """The network of a bundle's inference.json, with seeded random weights, ready to infer."""
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    parser["preset"] = preset or parser["preset"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: nn.Module = parser.get_parsed_content("network_def")
    return network.eval()


def make_small(bundle: Path, target: Path) -> Path:
    """Copy a bundle with a network that labels a scan, or takes a training step, within a second."""
    shutil.copytree(bundle, target, ignore=shutil.ignore_patterns("out", "__pycache__", "model.pt"))
    for name, changes in (("inference.json", {}), ("train.json", SMALL_TRAINING)):
        parser = ConfigParser()
        parser.read_config(str(target / "configs" / name))
        preset = parser["presets"][parser["preset"]]
        preset.update({key: value for key, value in SMALL_PRESET.items() if key in preset})
        parser.update({key: value for key, value in changes.items() if key in parser})
        config = {key: value for key, value in parser.get().items() if key != "_meta_"}
        for node in nodes(config):
            if isinstance(node, dict) and "patch" in node:
                node["patch"] = SMALL_PATCH
        write_json(target / "configs" / name, config)
    network = network_of(target)
    put_weights(target, labels_by_density(network) if isinstance(network, CTSUNet) else halved(network))
    return target


def halved(network: nn.Module) -> dict[str, Tensor]:
    """The weights of a network in half precision, as bundles keep them."""
    state = network.state_dict()
    return {name: value.half() if value.is_floating_point() else value for name, value in state.items()}


def nodes(content: Any) -> Iterator[Any]:
    """Everything in a parsed JSON file: containers, keys and values."""
    yield content
    if isinstance(content, dict):
        for key, value in content.items():
            yield key
            yield from nodes(value)
    elif isinstance(content, list):
        for value in content:
            yield from nodes(value)


def put_weights(bundle: Path, state: dict[str, Tensor]) -> None:
    """Write ``models/model.pt`` and its hash into the metadata."""
    weights = bundle / "models" / "model.pt"
    weights.parent.mkdir(exist_ok=True)
    torch.save(state, weights)
    metadata = read_metadata(bundle)
    metadata["weights"]["sha256"] = sha256(weights)
    write_json(bundle / "configs" / "metadata.json", metadata)


def write_nifti(path: Path, values: np.ndarray, affine: np.ndarray, **header: object) -> Path:
    """Save, then put the header fields in as they are: nibabel would repair what it sets itself."""
    nib.save(nib.Nifti1Image(values, affine), path)
    if header:
        raw = nib.Nifti1Header(path.read_bytes()[:348], check=False)
        for key, value in header.items():
            raw[key] = value
        path.write_bytes(raw.binaryblock + path.read_bytes()[348:])
    return path


def tilted(degrees: float) -> np.ndarray:
    """Rotation about the left-right axis, as of a patient whose head lies higher: ``(3, 3)``."""
    angle = np.radians(degrees)
    return np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])


def dice(one: np.ndarray, other: np.ndarray, label: int) -> float:
    """Overlap of a label in two maps of one shape, 0 to 1; NaN if neither has it."""
    both = np.count_nonzero((one == label) & (other == label))
    return 2 * both / (np.count_nonzero(one == label) + np.count_nonzero(other == label))


@pytest.fixture(params=BUNDLES, ids=[path.name for path in BUNDLES], scope="session")
def bundle(request: pytest.FixtureRequest) -> Path:
    """Each bundle of the repository in turn."""
    folder: Path = request.param
    return folder


@pytest.fixture(scope="session")
def small_copy_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """The small copy of a bundle, made once; for reading only."""
    made: dict[Path, Path] = {}

    def copy(bundle: Path) -> Path:
        if bundle not in made:
            made[bundle] = make_small(bundle, tmp_path_factory.mktemp("small") / bundle.name)
        return made[bundle]

    return copy


@pytest.fixture(scope="session")
def small_bundle(small_copy_of: Callable[[Path], Path]) -> Path:
    """The small copy of the lobe bundle; for reading only."""
    return small_copy_of(bundle_folder("lobes"))


@pytest.fixture(scope="session")
def chest_ct(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic chest of unequal axes and spacings as NIfTI, int16 Hounsfield units."""
    phantom = thorax(seed=1, shape=(44, 36, 40), spacing_mm=(8.0, 7.5, 7.0))
    path = tmp_path_factory.mktemp("chest") / "chest.nii.gz"
    nib.save(nib.Nifti1Image(phantom["ct_hu"].numpy(), phantom["affine"].numpy()), path)
    return path


@pytest.fixture(scope="session")
def chest_film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic chest film with a pneumothorax as PNG, wider than it is high."""
    film = radiograph(seed=1, pneumothorax="lateral", size=96)["film"]
    path = tmp_path_factory.mktemp("film") / "chest.png"
    Image.fromarray((film[:80] * 255).round().to(torch.uint8).numpy()).save(path)
    return path


@pytest.fixture
def example(bundle: Path, request: pytest.FixtureRequest) -> Path:
    """Something that the bundle can read, named ``chest``."""
    path: Path = request.getfixturevalue("chest_film" if takes_films(bundle) else "chest_ct")
    return path


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two training subjects at 8 mm with a MONAI datalist."""
    return write_cohort(tmp_path_factory.mktemp("cohort"), count=2, seed=3, spacing_mm=(8.0, 8.0, 8.0)).parent


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two training films with masks and a MONAI datalist."""
    return write_films(tmp_path_factory.mktemp("films"), count=2, seed=3, size=64).parent


@pytest.fixture
def data_for(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """A folder with a datalist of two subjects that a bundle can learn from, by bundle.

    The labels of CTs are lobes, as many as the bundle has labels, whatever they are called there.
    """

    def folder(bundle: Path) -> Path:
        if takes_films(bundle):
            return Path(request.getfixturevalue("films"))
        known = len(read_metadata(bundle)["network_data_format"]["outputs"]["pred"]["channel_def"]) - 1
        return with_labels(request.getfixturevalue("cohort"), known, tmp_path_factory.mktemp("known"))

    return folder


def with_labels(cohort: Path, known: int, target: Path) -> Path:
    """A copy of a cohort without the labels above ``known``."""
    shutil.copytree(cohort, target, dirs_exist_ok=True)
    for path in target.glob("labels/*.nii.gz"):
        image = nib.load(path)
        labels = np.asarray(image.dataobj)
        nib.save(nib.Nifti1Image(np.where(labels > known, 0, labels).astype(np.uint8), image.affine), path)
    return target


@pytest.fixture
def training_data(bundle: Path, data_for: Callable[[Path], Path]) -> Path:
    """A folder with a datalist of two subjects that the bundle can learn from."""
    return data_for(bundle)
