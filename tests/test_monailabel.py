"""The packed bundles in a real MONAI Label server on this machine; `scripts/test.sh --e2e` runs what is marked e2e.

The lobe bundle is asked with its own weights, and answers as ``python -m monai.bundle run`` does for the same scan.
"""

import contextlib
import email
import email.policy
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, Request, build_opener

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from conftest import BUNDLES, REPOSITORY, dice, run_inference
from dicom_writer import write_ct_series
from pulmozoo.bundle.pack import pack
from pulmozoo.bundle.weights_file import read_metadata, sha256
from pulmozoo.cli import bundle_folder
from pulmozoo.phantom import thorax
from pulmozoo.phantom.film_cohort import write_films

SCRIPT = REPOSITORY / "scripts" / "monailabel.sh"
PYTHON = REPOSITORY / ".venv-monailabel" / "bin" / "python"
SHELF = REPOSITORY.parent / "shared" / "monailabel" / "monailabel_e2e.py"
LOBES = bundle_folder("lobes")
FILMS = bundle_folder("pneumothorax")
ILD = bundle_folder("ild")
MINUTE = 60.0
open_url = build_opener(ProxyHandler({})).open  # no proxy stands between this machine and itself


class Server(NamedTuple):
    """A server that runs: its address, its studies, its folder with the served bundles, its process and its log."""

    url: str
    studies: Path
    app: Path
    process: subprocess.Popen[bytes]
    log: Path

    def get(self, path: str) -> Any:
        with open_url(self.url + path, timeout=MINUTE) as answer:
            return json.load(answer)

    def infer(self, image: str, bundle: Path = LOBES, **params: object) -> tuple[dict[str, Any], bytes]:
        """Numbers and label map of an image that is named by its id or its path."""
        query = urlencode({"image": image, "output": "all"})
        form = urlencode({"params": json.dumps({"device": "cpu", **params})}).encode()
        with open_url(Request(f"{self.url}/infer/{bundle.name}?{query}", form), timeout=20 * MINUTE) as answer:
            head = f"Content-Type: {answer.headers['Content-Type']}\r\n\r\n".encode()
            message = email.message_from_bytes(head + answer.read(), policy=email.policy.HTTP)
        numbers, labels = (part.get_payload(decode=True) for part in message.iter_parts())
        return json.loads(numbers), labels

    def train(self, bundle: Path = LOBES, **params: object) -> None:
        """Train as 3D Slicer asks for it: in the background, with the settings that the server offers or ``params``."""
        offered = self.get("/info/")["trainers"][bundle.name]["config"]
        settings = {key: value[0] if isinstance(value, list) else value for key, value in offered.items()}
        form = json.dumps({**settings, **params}).encode()
        headers = {"Content-Type": "application/json"}
        with open_url(Request(f"{self.url}/train/{bundle.name}", form, headers), timeout=MINUTE) as answer:
            task = json.load(answer)
        while task["status"] in ("SUBMITTED", "RUNNING"):
            time.sleep(0.5)
            task = self.get("/train/")
        assert task["status"] == "DONE", "\n".join(task["details"])


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


def said_by(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=MINUTE)


def save(path: Path, values: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, affine), path)


def turned(image: nib.Nifti1Image, axcodes: str) -> nib.Nifti1Image:
    """The same scan, stored along other axes."""
    here, there = nib.orientations.io_orientation(image.affine), nib.orientations.axcodes2ornt(axcodes)
    return image.as_reoriented(nib.orientations.ornt_transform(here, there))


@pytest.fixture(scope="module")
def studies(chest_ct, tmp_path_factory) -> Path:
    """One chest on three grids, and two more chests with lobe labels where MONAI Label has final ones."""
    folder = tmp_path_factory.mktemp("studies")
    scan = nib.load(chest_ct)
    for axcodes in ("LPS", "RAS"):
        copy = turned(scan, axcodes)
        save(folder / f"{axcodes}.nii.gz", np.asarray(copy.dataobj), copy.affine)
    angle = np.radians(15)
    turn = np.eye(4)
    turn[:3, :3] = [[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]
    save(folder / "oblique.nii.gz", np.asarray(scan.dataobj), turn @ scan.affine)
    for seed in (2, 3):
        chest = thorax(seed=seed, shape=(36, 34, 32), spacing_mm=(9.0, 9.5, 9.0))
        affine = chest["affine"].numpy()
        save(folder / f"labelled_{seed}.nii.gz", chest["ct_hu"].numpy(), affine)
        save(folder / "labels" / "final" / f"labelled_{seed}.nii.gz", chest["lobes"].numpy().astype(np.uint8), affine)
    return folder


@pytest.fixture(scope="module")
def server(studies, tmp_path_factory) -> Iterator[Server]:
    """All bundles of the repository behind ``scripts/monailabel.sh``; the environment is made at the first time."""
    with served(studies, tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def film_server(tmp_path_factory) -> Iterator[Server]:
    """The same with films, all but the first with masks where MONAI Label has final ones."""
    studies = tmp_path_factory.mktemp("films")
    films = write_films(tmp_path_factory.mktemp("cohort"), count=4, size=128).parent
    for number, film in enumerate(sorted(films.glob("images/*.png"))):
        shutil.copy(film, studies)
        if number:
            (studies / "labels" / "final").mkdir(parents=True, exist_ok=True)
            shutil.copy(films / "labels" / film.name, studies / "labels" / "final")
    with served(studies, tmp_path_factory.mktemp("film_server")) as running:
        yield running


@contextlib.contextmanager
def served(studies: Path, folder: Path) -> Iterator[Server]:
    """A server for these studies, that writes to ``folder``."""
    port = free_port()
    command = ["bash", str(SCRIPT), str(studies), "--port", str(port), "--app", str(folder / "app")]
    started = time.monotonic()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        running = Server(f"http://127.0.0.1:{port}", studies, folder / "app", process, folder / "log")
        try:
            wait_for(running)
            sys.stdout.write(f"served after {time.monotonic() - started:.1f} s\n")
            yield running
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(server: Server) -> None:
    """Return when the server answers; fail with the end of its log when it ends or takes half an hour."""
    latest = time.monotonic() + 30 * MINUTE
    while server.process.poll() is None and time.monotonic() < latest:
        try:
            server.get("/info/")
            return
        except (URLError, OSError):
            time.sleep(0.5)
    pytest.fail(server.log.read_text(errors="replace")[-3000:])


def labels_in(content: bytes, path: Path) -> nib.Nifti1Image:
    path.write_bytes(content)
    return nib.load(path)


def check_answer(
    server: Server, image: str, scan: Path, tmp_path: Path, bundle: Path = LOBES, **params: object
) -> np.ndarray:
    """The server's label map and numbers are those of the bundle in the repository; returns the label map."""
    started = time.monotonic()
    numbers, content = server.infer(image, bundle, **params)
    sys.stdout.write(f"{bundle.name}, {scan.name}: {time.monotonic() - started:.1f} s\n")
    outcome = run_inference(bundle, scan, tmp_path)
    assert outcome.code == 0, outcome.said
    name = scan.name.removesuffix(".nii.gz")
    expected = nib.load(tmp_path / name / f"{name}_seg.nii.gz")
    labels = labels_in(content, tmp_path / "answer.nii.gz")
    assert labels.shape == expected.shape
    assert labels.get_data_dtype() == np.uint8
    assert np.allclose(labels.affine, expected.affine, atol=1e-3)
    ours, theirs = np.asarray(expected.dataobj), np.asarray(labels.dataobj)
    exact = bundle != ILD  # whose bfloat16 rounds otherwise in another memory format
    assert min(dice(ours, theirs, label) for label in np.unique(ours)) >= (1 if exact else 0.98)
    results = json.loads((tmp_path / name / "results.json").read_text())
    close = results["numbers"] if exact else pytest.approx(results["numbers"], abs=0.1)
    assert {key: numbers[key] for key in results["numbers"]} == close
    return theirs


def test_without_studies():
    ended = said_by()
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("pulmozoo: no studies were given: expected a folder of CTs")


def test_of_studies_that_are_not_there(tmp_path):
    ended = said_by(tmp_path / "nowhere")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(f"pulmozoo: {tmp_path}/nowhere is no folder: expected a folder of CTs")


def test_of_a_port_that_is_taken(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = said_by(tmp_path, "--port", port, "--app", tmp_path / "app")
    assert (ended.returncode, ended.stderr) == (1, f"pulmozoo: port {port} is taken: choose another one with --port\n")
    assert not (tmp_path / "app").exists()


def test_of_an_option_without_its_value(tmp_path):
    assert said_by(tmp_path, "--port").stderr == "pulmozoo: --port was given without a value\n"


@pytest.mark.e2e
def test_every_bundle_is_served(server):
    info = server.get("/info/")
    names = {bundle.name for bundle in BUNDLES}
    assert set(info["models"]) == set(info["trainers"]) == names
    for bundle in BUNDLES:
        channels = read_metadata(bundle)["network_data_format"]["outputs"]["pred"]["channel_def"]
        assert info["models"][bundle.name]["labels"] == {
            name: int(index) for index, name in channels.items() if name != "background"
        }
    log = server.log.read_text(errors="replace")
    assert f"Serving {','.join(sorted(names))} on {server.url}" in log
    assert f"3D Slicer: module MONAI Label, server {server.url}" in log


@pytest.mark.e2e
@pytest.mark.parametrize("image", ["LPS", "RAS", "oblique"])
def test_a_nifti_gets_the_labels_of_the_runner(server, image, tmp_path):
    lobes = check_answer(server, image, server.studies / f"{image}.nii.gz", tmp_path)
    assert set(np.unique(lobes)) == set(range(6))


@pytest.mark.e2e
@pytest.mark.parametrize("bundle", [bundle_folder(name) for name in ("emphysema", "paraseptal", "ild")], ids=str)
def test_every_other_bundle_for_cts_answers_as_the_runner(server, bundle, tmp_path):
    check_answer(server, "oblique", server.studies / "oblique.nii.gz", tmp_path, bundle)


@pytest.mark.e2e
def test_a_dicom_folder_gets_the_labels_of_the_runner(server, chest_ct, tmp_path):
    scan = nib.load(chest_ct)
    folder = tmp_path / "dicom"
    write_ct_series(folder, np.asarray(scan.dataobj), scan.affine)
    check_answer(server, str(folder), folder, tmp_path / "OUT", result_extension=".nii.gz")


@pytest.mark.e2e
def test_a_training_changes_what_is_served(server, tmp_path):
    served = server.app / "model" / LOBES.name
    before = read_metadata(served)["weights"]
    _, old = server.infer("LPS")
    started = time.monotonic()
    server.train(max_epochs=1, val_split=0.5)
    sys.stdout.write(f"training of 1 epoch on 1 scan, 1 held back: {time.monotonic() - started:.1f} s\n")
    weights = read_metadata(served)["weights"]
    assert weights["tier"] == "yours"
    assert weights["sha256"] == sha256(served / "models" / "model.pt") != before["sha256"]
    assert weights["trained_on"] == f"{before['trained_on']}; then 1 scans of yours, 1 epochs"
    assert weights["score"].endswith("(mean of 1 scans held back)")
    numbers, new = server.infer("LPS")
    assert new != old
    command = [
        sys.executable,
        "-m",
        "monai.bundle",
        "run",
        "--config_file",
        "configs/inference.json",
        "--device",
        "cpu",
    ]
    options = ["--dataset_dir", str(server.studies / "LPS.nii.gz"), "--output_dir", str(tmp_path)]
    subprocess.run([*command, *options], cwd=served, check=True, capture_output=True)
    expected = nib.load(tmp_path / "LPS" / "LPS_seg.nii.gz")
    labels = labels_in(new, tmp_path / "new.nii.gz")
    assert np.array_equal(np.asarray(labels.dataobj), np.asarray(expected.dataobj))
    results = json.loads((tmp_path / "LPS" / "results.json").read_text())
    assert results["weights"]["sha256"] == weights["sha256"]
    assert {key: numbers[key] for key in results["numbers"]} == results["numbers"]


def mask_of_runner(bundle: Path, film: Path, output_dir: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Mask and numbers of a bundle that runs by itself."""
    outcome = run_inference(bundle, film, output_dir)
    assert outcome.code == 0, outcome.said
    folder = output_dir / film.stem
    return np.asarray(Image.open(folder / f"{film.stem}_seg.png")), json.loads((folder / "results.json").read_text())


@pytest.mark.e2e
def test_a_film_gets_the_mask_of_the_runner_before_and_after_a_training(film_server, tmp_path):
    film = min(film_server.studies.glob("*.png"))
    served_copy = film_server.app / "model" / FILMS.name
    masks = []
    for bundle, name in ((FILMS, "before"), (served_copy, "after")):
        started = time.monotonic()
        numbers, content = film_server.infer(film.stem, FILMS)
        sys.stdout.write(f"{film.name}, {name} the training: {time.monotonic() - started:.1f} s\n")
        expected, results = mask_of_runner(bundle, film, tmp_path / name)
        mask = np.asarray(Image.open(io.BytesIO(content)))
        assert mask.shape == expected.shape
        assert (mask != expected).sum() <= 5  # bfloat16 rounds otherwise in another memory format
        close = pytest.approx(results["numbers"]["pneumothorax_probability"], abs=0.005)
        assert numbers["pneumothorax_probability"] == close
        assert set(numbers) >= set(results["numbers"])
        masks.append((mask, numbers["pneumothorax_probability"]))
        if name == "before":
            film_server.train(FILMS, max_epochs=1, val_split=0.34)
    weights = read_metadata(served_copy)["weights"]
    assert weights["tier"] == "yours"
    assert weights["sha256"] == sha256(served_copy / "models" / "model.pt")
    assert masks[0][1] != masks[1][1]


@pytest.mark.e2e
def test_ctrl_c_stops_it(server):
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(MINUTE) in (0, -signal.SIGINT, 128 + signal.SIGINT)
    with pytest.raises(URLError):
        server.get("/info/")


@pytest.mark.e2e
def test_a_bundle_that_was_trained_there_is_kept(server):
    served = server.app / "model" / LOBES.name
    before = sha256(served / "models" / "model.pt")
    command = ["bash", str(SCRIPT), str(server.studies), "--port", str(free_port()), "--app", str(server.app)]
    ended = subprocess.run([*command, "--dryrun"], capture_output=True, text=True, check=False, timeout=5 * MINUTE)
    assert ended.returncode == 0, ended.stderr
    assert f"Keeping {served}, which was trained there" in ended.stdout
    assert sha256(served / "models" / "model.pt") == before


@pytest.mark.e2e
@pytest.mark.skipif(not SHELF.is_file(), reason=f"the shelf with its own check is not there ({SHELF})")
def test_the_check_of_the_shelf_passes(server, tmp_path):
    """After ``server``, which makes the environment that it needs."""
    pack(LOBES, tmp_path)
    options = ["--venv", PYTHON.parents[1], "--bundles", tmp_path, "--studies", server.studies, "--nonzero"]
    options += ["--models", LOBES.name, "--train", LOBES.name, "--timeout", 3600, "--ready", 600]
    command = [PYTHON, SHELF, *options]
    ended = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    sys.stdout.write(ended.stdout)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{LOBES.name} ok" in ended.stdout
    assert f"{LOBES.name}:train ok" in ended.stdout
