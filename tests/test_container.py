"""What the Dockerfile repeats of other files is the same there. Building it needs a builder: docs/container.md."""

import json
import re

import pytest

from conftest import REPOSITORY
from pulmozoo import cli
from pulmozoo.bundle.weights_file import read_metadata

LINES = [line for line in (REPOSITORY / "Dockerfile").read_text().splitlines() if line and not line.startswith("#")]
IGNORED = (REPOSITORY / ".dockerignore").read_text().splitlines()
SETTINGS = (REPOSITORY / "pyproject.toml").read_text()
SET_UP = (REPOSITORY / "scripts" / "env.sh").read_text()


def said(instruction: str) -> list[str]:
    """What follows an instruction, for each time that it comes."""
    return [line.removeprefix(f"{instruction} ") for line in LINES if line.startswith(f"{instruction} ")]


def default_of(argument: str) -> str:
    (value,) = (each.removeprefix(f"{argument}=") for each in said("ARG") if each.startswith(f"{argument}="))
    return value


def test_pytorch_is_the_one_that_the_scripts_install_and_the_bundles_name(bundle):
    torch = default_of("TORCH")
    assert f'TORCH="torch=={torch}"' in SET_UP
    assert (REPOSITORY / ".ci" / "constraints.txt").read_text().split() == [f"torch=={torch}"]
    assert read_metadata(bundle)["pytorch_version"] == torch
    assert all("torch==${TORCH}" in line for line in said("RUN") if "pip install" in line)


def test_python_is_one_that_the_project_supports():
    major, minor = map(int, default_of("PYTHON").split("."))
    oldest, newest = re.search(r"not \((\d+, \d+)\) <= .* <= \((\d+, \d+)\)", SET_UP).groups()
    assert tuple(map(int, oldest.split(","))) <= (major, minor) <= tuple(map(int, newest.split(",")))
    assert f'requires-python = ">={oldest.replace(", ", ".")}"' in SETTINGS
    assert said("FROM") == ["python:${PYTHON}-slim"]


def test_extras_exist():
    for extra in default_of("EXTRAS").split(","):
        assert re.search(rf"^{extra} = \[", SETTINGS, re.MULTILINE), extra
    assert '".[${EXTRAS}]"' in said("RUN")[1]


def test_bundles_lie_where_the_installed_package_looks_for_them():
    assert cli.BUNDLES.relative_to(REPOSITORY).as_posix() == "bundles"
    assert {"shared shared", "bundles bundles"} <= set(said("COPY"))
    assert "--editable" in said("RUN")[1]
    assert 'where = ["shared"]' in SETTINGS


def test_what_is_copied_exists_and_nothing_else_is_sent_to_the_builder():
    copied = {name for line in said("COPY") for name in line.split()[:-1]}
    assert all((REPOSITORY / name).exists() for name in copied)
    assert IGNORED[0] == "*"
    assert {line.removeprefix("!") for line in IGNORED if line.startswith("!")} == copied
    assert "bundles/*/out" in IGNORED


def test_it_runs_scans_and_not_as_root():
    program, command = json.loads(said("ENTRYPOINT")[0])
    assert f'{program} = "pulmozoo.cli:main"' in SETTINGS
    assert cli.COMMANDS[command] is cli.run
    assert int(said("USER")[-1]) > 0
    assert not any(line.startswith("RUN ") for line in LINES[LINES.index(f"USER {said('USER')[-1]}") :])


@pytest.mark.parametrize("word", ["curl", "wget", "import-weights", "ADD "])
def test_no_weights_are_downloaded(word):
    assert not any(word in line for line in LINES)
