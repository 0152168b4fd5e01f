"""Start the process that runs a bundle's code, and read what its probes find."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import nibabel as nib
from PIL import Image

from ...files import write_json
from ...phantom import thorax
from ...phantom.radiograph import radiograph
from ..errors import innermost_reason
from ..pack import PACKAGE, import_closure
from .candidate import Candidate
from .probes import Case

PROBES = "bundle.checks.probes"
CODE = "verify_code"  # the package's name under which the probes travel
WITHOUT_PULMOZOO = """\
import sys


class Blocker:
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] == "pulmozoo":
            raise ModuleNotFoundError("pulmozoo is not installed here")


sys.meta_path.insert(0, Blocker)
"""
FILM_PX = 96
DOLL = 0.4  # the chest is shrunk, so that the networks see few voxels


def run_probes(bundle: Candidate, names: Sequence[str], folder: Path) -> Iterator[tuple[str, str]]:
    """Name and reason of each probe as it ends; the reason is empty where it passed. Works in the folder, absolute."""
    try:
        process = start(bundle, names, folder)
    except Exception as error:
        yield from ((name, innermost_reason(error)) for name in names)
        return
    waiting = list(names)
    with process:
        for line in process.stdout or ():
            name, reason = json.loads(line)
            waiting.remove(name)
            yield name, reason
    if waiting:
        said = (folder / "stderr.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        reason = f"the process ended with exit code {process.returncode}: {' '.join(said[-1:])}"
        yield from ((name, reason) for name in waiting)


def start(bundle: Candidate, names: Sequence[str], folder: Path) -> subprocess.Popen[str]:
    """The probes' process: no GPU, nothing of this process's search path, and for a zip no pulmozoo."""
    site = folder / "site"
    for file in import_closure(PACKAGE, [f"{PACKAGE.name}.{PROBES}"]):
        place = site / CODE / file.relative_to(PACKAGE)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)
    if bundle.archive:
        (site / "sitecustomize.py").write_text(WITHOUT_PULMOZOO, encoding="utf-8")
    data = folder / "data"
    scan = write_film_example(data) if bundle.takes_films else write_scan_example(data, bundle.labels)
    name = str(bundle.metadata["name"])
    twin = make_twin(bundle.root, name, folder / "twin" / f"other_{name}")
    case = Case(str(bundle.root), str(twin), str(scan), str(data), str(folder / "out"))
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", f"{CODE}.{PROBES}", json.dumps(case._asdict()), *names]
    with (folder / "stderr.txt").open("wb") as said:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=said, text=True)


def write_scan_example(folder: Path, labels: int) -> Path:
    """A synthetic chest CT of the size of a doll, labels and a datalist; returns the scan.

    The labels are lobes, as many as the bundle has labels, whatever they are called there.
    """
    phantom = thorax(seed=0, shape=(52, 40, 46), spacing_mm=(7.0, 7.5, 8.0))
    phantom["lobes"][phantom["lobes"] > labels] = 0
    affine = phantom["affine"].numpy().copy()
    affine[:3] *= DOLL
    folder.mkdir()
    files: Mapping[str, str] = {"image": "ct_hu", "label": "lobes"}
    for key, volume in files.items():
        nib.save(nib.Nifti1Image(phantom[volume].numpy(), affine), folder / f"{key}.nii.gz")
    write_datalist(folder, {key: f"{key}.nii.gz" for key in files})
    return folder / "image.nii.gz"


def write_film_example(folder: Path) -> Path:
    """A small synthetic chest film with its mask and a datalist; returns the film."""
    drawn = radiograph(seed=0, pneumothorax="lateral", size=FILM_PX)
    folder.mkdir()
    for key, plane in (("image", (drawn["film"] * 255).round()), ("label", drawn["mask"])):
        Image.fromarray(plane[: FILM_PX - 8].byte().numpy()).save(folder / f"{key}.png")
    write_datalist(folder, {"image": "image.png", "label": "label.png"})
    return folder / "image.png"


def write_datalist(folder: Path, subject: Mapping[str, str]) -> None:
    """A MONAI datalist that has one subject in each of its splits."""
    write_json(folder / "datalist.json", {split: [subject] for split in ("training", "validation", "test")})


def make_twin(root: Path, name: str, target: Path) -> Path:
    """Copy a bundle without its weights, under another name."""
    shutil.copytree(root, target, ignore=shutil.ignore_patterns("out", "models", "__pycache__"))
    for file in target.glob("configs/**/*.json"):
        file.write_text(file.read_text(encoding="utf-8").replace(name, target.name), encoding="utf-8")
    code = target / f"{name}_code"
    if code.is_dir():
        code.rename(target / f"{target.name}_code")
    return target
