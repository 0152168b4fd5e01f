"""The way of somebody who has a bundle's address and nothing of pulmozoo, for each bundle; `scripts/test.sh --e2e`.

Their environment, ``.venv-stranger``, holds what the bundles' metadata name and no more; it is made at the first time.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from conftest import REPOSITORY
from local_web import local_web
from pulmozoo.bundle.publish import publish
from pulmozoo.bundle.weights_file import read_metadata

VENV = REPOSITORY / ".venv-stranger"


def requirements(bundle: Path) -> list[str]:
    """What a bundle needs, as pip takes it."""
    metadata = read_metadata(bundle)
    versions = {
        "monai": metadata["monai_version"],
        "torch": metadata["pytorch_version"],
        "numpy": metadata["numpy_version"],
        **metadata["required_packages_version"],
    }
    return [f"{name}=={version}" for name, version in versions.items()]


@pytest.fixture
def stranger(bundle) -> str:
    """The Python of the stranger's environment."""
    python = str(VENV / "bin" / "python")
    if not VENV.exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    subprocess.run([python, "-m", "pip", "install", "-q", *requirements(bundle)], check=True)
    alone = "from importlib.util import find_spec; assert find_spec('pulmozoo') is None"
    subprocess.run([python, "-I", "-c", alone], check=True)
    return python


def timed(command: list[str], folder: Path) -> float:
    """Seconds that a command takes in a folder; it has to end well."""
    started = time.monotonic()
    alone = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    run = subprocess.run(command, cwd=folder, env=alone, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return time.monotonic() - started


@pytest.mark.e2e
def test_a_stranger_downloads_the_bundle_and_runs_it(bundle, stranger, example, tmp_path):
    web = tmp_path / "web"
    fetch = publish(bundle, str(web)).splitlines()[-1].removeprefix("fetched by: python ")
    with local_web(web) as address:
        command = [stranger, *fetch.replace(f"<address of {web}>", address).split(), "--bundle_dir", "."]
        downloading = timed(command, tmp_path)
    command = [stranger, "-m", "monai.bundle", "run", "--config_file", "configs/inference.json", "--device", "cpu"]
    command += ["--dataset_dir", str(example), "--output_dir", str(tmp_path / "out")]
    running = timed(command, tmp_path / bundle.name)
    sys.stdout.write(f"{bundle.name}: downloaded in {downloading:.1f} s, run in {running:.1f} s\n")
    results = json.loads((tmp_path / "out" / "chest" / "results.json").read_text())
    assert results["weights"]["sha256"] == read_metadata(bundle)["weights"]["sha256"]
    with Image.open(tmp_path / "out" / "chest" / "overlay.png") as overlay:
        shades = overlay.convert("L").getextrema()
    assert shades[0] < shades[1]
