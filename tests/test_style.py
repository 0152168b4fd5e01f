"""The code passes the linters that pre-commit runs, at the same pins."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "command", [("ruff", "check"), ("ruff", "format", "--check"), ("mypy",)], ids=["ruff check", "ruff format", "mypy"]
)
def test_linter(command: tuple[str, ...]) -> None:
    run = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_pre_commit_has_the_pins_of_the_dev_extra() -> None:
    settings = (ROOT / "pyproject.toml").read_text()
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    pins = set(re.findall(r"ruff==[\d.]+", settings))
    assert len(pins) == 1
    assert set(re.findall(r"ruff==[\d.]+", hooks)) == pins
