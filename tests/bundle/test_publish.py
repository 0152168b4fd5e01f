"""Bundles that go to servers on this machine and come back by ``monai.bundle.download``."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from monai.bundle import download
from monai.bundle import scripts as monai_scripts

from local_hub import TOKEN, LocalHub, local_hub
from local_web import local_web
from pulmozoo.bundle.errors import BadInput
from pulmozoo.bundle.pack import pack, unpack
from pulmozoo.bundle.publish import publish
from pulmozoo.bundle.weights_file import read_metadata
from pulmozoo.files import write_json

REPO = "chest-lab/lobes"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with local_hub() as running:
        yield running


def in_another_process(
    hub: LocalHub, tmp_path: Path, *command: str, token: str = TOKEN
) -> subprocess.CompletedProcess[str]:
    """A command whose Hub is the local one: huggingface_hub looks at the environment when it is imported."""
    environment = os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": token,
        "HF_HOME": str(tmp_path / "hf_home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    return subprocess.run(
        [sys.executable, "-m", *command], env=environment, capture_output=True, text=True, check=False
    )


def test_round_trip_by_a_hub(hub, small_bundle, tmp_path):
    version = read_metadata(small_bundle)["version"]
    send = ("pulmozoo", "publish", str(small_bundle), f"hf://{REPO}")
    dry = in_another_process(hub, tmp_path, *send, "--dry_run")
    assert dry.returncode == 0, dry.stderr
    assert dry.stdout.startswith(f"would write {hub.url}/{REPO}, tag {version}: ")
    assert hub.repositories == {}

    sent = in_another_process(hub, tmp_path, *send)
    assert sent.returncode == 0, sent.stderr
    assert hub.strange == []
    repository = hub.repositories[REPO]
    assert repository["private"]
    assert set(repository["tags"]) == {version, "latest_version"}
    packed = unpack(pack(small_bundle, tmp_path / "dist"), tmp_path / "unpacked")
    wanted = contents(packed)
    assert {name: repository["files"][name] for name in wanted} == wanted
    assert repository["files"]["overlay.jpg"] == wanted["docs/overlay.jpg"]
    card = repository["files"]["README.md"].decode()
    assert "library_name: monai" in card
    assert TOKEN not in sent.stdout + sent.stderr

    again = in_another_process(hub, tmp_path, *send)
    assert again.returncode == 1
    assert f"has a version {version} already: raise the version" in again.stderr

    fetch = ("monai.bundle", "download", "--name", packed.name, "--version", version, "--repo", REPO)
    got = in_another_process(
        hub, tmp_path, *fetch, "--source", "huggingface_hub", "--bundle_dir", str(tmp_path / "fetched")
    )
    assert got.returncode == 0, got.stderr
    fetched = contents(tmp_path / "fetched" / packed.name)
    assert {name: fetched[name] for name in wanted} == wanted


def test_a_hub_that_refuses_the_token(hub, small_bundle, tmp_path):
    refused = in_another_process(
        hub, tmp_path, "pulmozoo", "publish", str(small_bundle), f"hf://{REPO}", token="hf_" + "y" * 34
    )
    assert refused.returncode == 1
    assert f"pulmozoo: {hub.url} refused {REPO}" in refused.stderr
    assert "is HF_TOKEN set to a token that may write there?" in refused.stderr
    assert "y" * 34 not in refused.stdout + refused.stderr


@pytest.fixture
def web(tmp_path) -> Iterator[tuple[Path, str]]:
    """A folder and the address of a web server that shows it."""
    folder = tmp_path / "web"
    folder.mkdir()
    with local_web(folder) as address:
        yield folder, address


def test_round_trip_by_a_web_server(web, small_bundle, tmp_path):
    folder, address = web
    said = publish(small_bundle, str(folder))
    name, version = (read_metadata(small_bundle)[key] for key in ("name", "version"))
    assert f"python -m monai.bundle download --name {name} --url" in said
    download(name=name, url=f"{address}/{name}_v{version}.zip", bundle_dir=str(tmp_path / "fetched"))
    packed = unpack(pack(small_bundle, tmp_path / "dist"), tmp_path / "unpacked")
    assert contents(tmp_path / "fetched" / name) == contents(packed)
    assert publish(small_bundle, str(folder)) == said  # the same bundle may be sent again


def test_round_trip_by_a_github_release(web, small_bundle, tmp_path, monkeypatch):
    folder, address = web
    said = publish(small_bundle, str(folder), github="chest-lab/zoo/v1")
    name, version = (read_metadata(small_bundle)[key] for key in ("name", "version"))
    release = f"{name}_v{version}"
    source = f"https://github.com/chest-lab/zoo/releases/download/v1/{release}.zip"
    assert json.loads((folder / "models" / "model_info.json").read_text())[release]["source"] == source
    assert f"--version {version} --source github --repo chest-lab/zoo/v1" in said
    asked = []

    def release_url(repo_owner: str, repo_name: str, tag_name: str, filename: str) -> str:
        asked.append((repo_owner, repo_name, tag_name, filename))
        return f"{address}/{filename}"

    monkeypatch.setattr(monai_scripts, "_get_git_release_url", release_url)
    download(name=name, version=version, source="github", repo="chest-lab/zoo/v1", bundle_dir=str(tmp_path / "fetched"))
    assert asked == [("chest-lab", "zoo", "v1", f"{release}.zip")]
    assert read_metadata(tmp_path / "fetched" / name)["version"] == version


def test_a_dry_run_leaves_the_folder_as_it_was(small_bundle, tmp_path):
    assert publish(small_bundle, str(tmp_path / "new"), dry_run=True).startswith("would write ")
    assert not (tmp_path / "new").exists()


def test_another_bundle_of_a_published_version_is_refused(small_bundle, tmp_path):
    small_copy = tmp_path / "copy"
    shutil.copytree(small_bundle, small_copy)
    publish(small_copy, str(tmp_path / "web"))
    before = contents(tmp_path / "web")
    metadata = read_metadata(small_copy)
    write_json(small_copy / "configs" / "metadata.json", metadata | {"description": "changed"})
    with pytest.raises(BadInput, match="holds another bundle of this version: raise the version"):
        publish(small_copy, str(tmp_path / "web"))
    assert contents(tmp_path / "web") == before


@pytest.mark.parametrize(
    ("target", "github", "sentence"),
    [
        ("hf://lobes", None, "a repository on the Hub is hf://<owner>/<repository>, got hf://lobes"),
        ("hf://a/b", "a/b/v1", "a GitHub release is made from a folder"),
        ("web", "a/b", "github must be <owner>/<repository>/<tag>, got 'a/b'"),
    ],
)
def test_targets_that_cannot_be(small_bundle, tmp_path, monkeypatch, target, github, sentence):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=sentence):
        publish(small_bundle, target, github=github)
    assert list(tmp_path.iterdir()) == []
