"""A bundle goes to an MLflow registry and comes back; with ``scripts/test.sh --e2e`` the registry is a real one.

Its environment, ``.venv-mlflow``, is made at the first time: MLflow with its server, on top of that of the tests.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import pytest

from conftest import REPOSITORY
from pulmozoo.bundle import registry
from pulmozoo.bundle.checks.running import WITHOUT_PULMOZOO
from pulmozoo.bundle.errors import BadInput
from pulmozoo.bundle.pack import pack, unpack
from pulmozoo.bundle.publish import publish
from pulmozoo.bundle.registry import tags_of, without_password
from pulmozoo.bundle.weights_file import read_metadata

VENV = REPOSITORY / ".venv-mlflow"
MLFLOW = "mlflow==3.17.2"
MODEL = "lobes_of_chests"
PASSWORD = "h1dden"
MINUTE = 60.0
open_url = build_opener(ProxyHandler({})).open  # no proxy stands between this machine and itself

LOOK = """
import json, mlflow
client = mlflow.MlflowClient()
(version,) = client.search_model_versions("name='{model}'")
run = client.get_run(version.run_id)
latest = client.get_model_version_by_alias("{model}", "latest_version")
print(json.dumps([version.version, version.tags, run.data.tags, run.info.status, latest.version]))
"""
RUNS = "import mlflow; print(len(mlflow.search_runs(search_all_experiments=True, output_format='list')))"


def test_the_missing_extra_is_named(small_bundle, monkeypatch):
    monkeypatch.setattr(registry, "has_mlflow", False)
    with pytest.raises(BadInput, match=r"needs the mlflow extra: pip install 'pulmozoo\[mlflow\]'"):
        publish(small_bundle, f"models:/{MODEL}")


@pytest.mark.parametrize(
    ("target", "github", "sentence"),
    [
        ("models:/a/b", None, "a model in an MLflow registry is models:/<name>, got models:/a/b"),
        ("models:/lobes'", None, "a model in an MLflow registry is models:/<name>"),
        ("models:/lobes", "a/b/v1", "a GitHub release is made from a folder"),
        ("models:/lobes", None, "no MLflow server was given: set MLFLOW_TRACKING_URI to its address"),
    ],
)
def test_targets_that_cannot_be(small_bundle, tmp_path, monkeypatch, target, github, sentence):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "has_mlflow", True)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(BadInput, match=sentence):
        publish(small_bundle, target, github=github)
    assert list(tmp_path.iterdir()) == []


def test_tags_come_from_the_metadata_of_each_bundle(bundle):
    metadata = read_metadata(bundle)
    tags = tags_of(bundle)
    assert (tags["bundle"], tags["version"]) == (bundle.name, metadata["version"])
    assert tags["weights_sha256"] == metadata["weights"]["sha256"]
    assert "Apache-2.0" in tags["license"]
    assert "not for clinical use" in tags["intended_use"]


def test_a_password_in_an_address_is_not_shown():
    said = "http://ada:secret@registry.example:5000 and https://registry.example/a@b"
    assert without_password(said) == "http://registry.example:5000 and https://registry.example/a@b"


def in_mlflow(environment: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(VENV / "bin" / "python"), *command],
        env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=20 * MINUTE,
    )


@pytest.fixture(scope="module")
def environment() -> None:
    """``.venv-mlflow``, which holds MLflow and sees the packages of this environment."""
    stamp = VENV / f".installed-{MLFLOW}"
    if stamp.exists():
        return
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    here, there = (
        sysconfig.get_paths()["purelib"],
        VENV / Path(sysconfig.get_paths()["purelib"]).relative_to(sys.prefix),
    )
    (there / "tests.pth").write_text(f"import site; site.addsitedir({here!r})\n")
    subprocess.run([str(VENV / "bin" / "python"), "-m", "pip", "install", "-q", MLFLOW], check=True)
    sys.stdout.write(f"{VENV.name} made in {time.monotonic() - started:.1f} s\n")
    stamp.touch()


@pytest.fixture(scope="module")
def server(environment, tmp_path_factory) -> Iterator[tuple[str, Path]]:
    """Address of an MLflow server with a database of its own, and where it keeps artifacts."""
    folder = tmp_path_factory.mktemp("mlflow")
    artifacts = folder / "artifacts"
    artifacts.mkdir()
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [str(VENV / "bin" / "python"), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--workers", "1"]
    command += ["--artifacts-destination", str(artifacts)]
    plain = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=plain, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(f"http://127.0.0.1:{port}", process, folder / "log")
        yield f"127.0.0.1:{port}", artifacts
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when the server answers; fail with the end of its log when it ends or takes ten minutes."""
    latest = time.monotonic() + 10 * MINUTE
    while process.poll() is None and time.monotonic() < latest:
        try:
            open_url(f"{url}/health", timeout=MINUTE)
            return
        except (URLError, OSError):
            time.sleep(0.5)
    pytest.fail(log.read_text(errors="replace")[-3000:])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.e2e
def test_round_trip_by_an_mlflow_registry(server, small_bundle, chest_ct, tmp_path):
    address, _ = server
    settings = {"MLFLOW_TRACKING_URI": f"http://ada:{PASSWORD}@{address}"}
    metadata = read_metadata(small_bundle)
    version = metadata["version"]
    send = ("-m", "pulmozoo", "publish", str(small_bundle), f"models:/{MODEL}")
    dry = in_mlflow(settings, *send, "--dry_run")
    assert dry.returncode == 0, dry.stderr
    expected = f"would register {metadata['name']} {version} as models:/{MODEL} of http://{address}: "
    assert dry.stdout.startswith(expected)

    packed = unpack(pack(small_bundle, tmp_path / "dist"), tmp_path / "unpacked")
    sent = in_mlflow(settings, *send)
    assert sent.returncode == 0, sent.stderr
    *_, done, fetch = sent.stdout.splitlines()
    assert done.startswith(f"registered {metadata['name']} {version} as models:/{MODEL}/1 of http://{address}: ")
    assert PASSWORD not in sent.stdout + sent.stderr
    looked = in_mlflow(settings, "-c", LOOK.format(model=MODEL))
    assert looked.returncode == 0, looked.stderr
    number, tags, run_tags, status, latest = json.loads(looked.stdout)
    assert (number, latest, status) == ("1", "1", "FINISHED")
    assert tags == tags_of(small_bundle)
    assert set(run_tags) - set(tags) <= {"mlflow.runName"}

    again = in_mlflow(settings, *send)
    assert again.returncode == 1
    assert f"models:/{MODEL} has a version {version} already: raise the version" in again.stderr
    assert in_mlflow(settings, "-c", RUNS).stdout == "1\n"  # neither of the dry run nor of the second try

    program, *arguments = fetch.removeprefix("fetched by: ").split()
    assert program == "mlflow"
    fetched = tmp_path / "fetched"
    got = in_mlflow(settings, "-m", program, *arguments[:-1], str(fetched))
    assert got.returncode == 0, got.stderr
    assert contents(fetched) == contents(packed)

    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(WITHOUT_PULMOZOO)
    shutil.copy(chest_ct, tmp_path / "chest.nii.gz")
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(fetched / "configs/inference.json")]
    command += ["--device", "cpu", "--dataset_dir", "chest.nii.gz", "--output_dir", "results"]
    elsewhere = {**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}
    run = subprocess.run(command, cwd=tmp_path, env=elsewhere, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert (tmp_path / "results" / "chest" / "chest_seg.nii.gz").is_file()


@pytest.mark.e2e
def test_an_upload_that_fails_leaves_no_run(server, small_bundle):
    address, artifacts = server
    shutil.rmtree(artifacts)
    artifacts.touch()  # no folder any more, so nothing can be stored in it
    settings = {"MLFLOW_TRACKING_URI": f"http://ada:{PASSWORD}@{address}", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
    before = in_mlflow(settings, "-c", RUNS).stdout
    refused = in_mlflow(settings, "-m", "pulmozoo", "publish", str(small_bundle), "models:/other")
    assert refused.returncode == 1
    assert f"pulmozoo: http://{address} refused models:/other: " in refused.stderr
    assert PASSWORD not in refused.stdout + refused.stderr
    assert in_mlflow(settings, "-c", RUNS).stdout == before


@pytest.mark.e2e
def test_a_server_that_is_not_there(environment, small_bundle):
    settings = {"MLFLOW_TRACKING_URI": f"http://ada:{PASSWORD}@127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    lost = in_mlflow(settings, "-m", "pulmozoo", "publish", str(small_bundle), f"models:/{MODEL}")
    assert lost.returncode == 1
    assert f"pulmozoo: http://127.0.0.1:9 refused models:/{MODEL}: " in lost.stderr
    assert PASSWORD not in lost.stdout + lost.stderr
