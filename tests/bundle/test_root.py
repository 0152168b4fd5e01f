import json
import sys
from pathlib import Path

import pytest

from pulmozoo.bundle import root
from pulmozoo.bundle.root import bundle_name, bundle_root

NAME = "some_bundle"
# Where the bundle may lie, in the order in which it is looked for.
CANDIDATES = {
    "vendored": "repository/shared",  # two folders above the package's own folder, as in <bundle>/<code>/bundle/root.py
    "sys.path": "monai",
    "working directory": "work/below",
    "its parent": "work",
    "repository": f"repository/bundles/{NAME}",
}


def write_bundle(folder: Path, name: str = NAME) -> Path:
    (folder / "configs").mkdir(parents=True, exist_ok=True)
    (folder / "configs" / "metadata.json").write_text(json.dumps({"name": name}))
    return folder


@pytest.fixture(autouse=True)
def nothing_there(tmp_path, monkeypatch):
    """Candidates of our own; none of them holds a bundle yet."""
    monkeypatch.setattr(root, "HERE", tmp_path / "repository" / "shared" / "code" / "bundle" / "root.py")
    monkeypatch.setattr(sys, "path", ["", str(tmp_path / "site-packages"), str(tmp_path / "monai")])
    (tmp_path / "work" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work" / "below")


def test_no_bundle_says_what_to_do():
    with pytest.raises(FileNotFoundError, match="no bundle 'some_bundle' here: run from inside it or pass"):
        bundle_root(NAME)


@pytest.mark.parametrize("place", CANDIDATES.values(), ids=CANDIDATES)
def test_each_candidate_is_found(tmp_path, place):
    write_bundle(tmp_path / place)
    assert bundle_root(NAME) == str(tmp_path / place)


def test_earlier_candidate_goes_first(tmp_path):
    for place in reversed(CANDIDATES.values()):
        folder = write_bundle(tmp_path / place)
        assert bundle_root(NAME) == str(folder)


def test_bundle_of_another_name_is_passed_over(tmp_path):
    for place in list(CANDIDATES.values())[:-1]:
        write_bundle(tmp_path / place, "other_bundle")
    expected = write_bundle(tmp_path / CANDIDATES["repository"])
    assert bundle_root(NAME) == str(expected)
    assert bundle_root("other_bundle") == str(tmp_path / CANDIDATES["vendored"])


def test_link_is_followed(tmp_path):
    folder = write_bundle(tmp_path / "real")
    (tmp_path / "monai").symlink_to(folder)
    assert bundle_root(NAME) == str(folder)


@pytest.mark.parametrize("text", [None, "", "{", "[1]", '{"version": "1"}', b"\xff\xfe"], ids=str)
def test_no_name_without_readable_metadata(tmp_path, text):
    write_bundle(tmp_path)
    metadata = tmp_path / "configs" / "metadata.json"
    if text is None:
        metadata.unlink()
    else:
        metadata.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert bundle_name(tmp_path) is None
