import json
import shutil
from pathlib import Path

import pytest
from authors_file import BUNDLE, published_state, row_for, write_checkpoint

from pulmozoo.bundle.errors import BadInput
from pulmozoo.bundle.weights_file import read_metadata
from pulmozoo.files import write_json
from pulmozoo.weights.published import PUBLISHED
from pulmozoo.weights.released_copy import bundle_to_run, import_copy, released_copy


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("PULMOZOO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def authors_file(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("authors") / "best.pth", published_state(), legacy=False)


@pytest.fixture
def source(small_bundle, tmp_path) -> Path:
    return shutil.copytree(small_bundle, tmp_path / "bundle")


@pytest.fixture
def copy(source, home) -> Path:
    """What an import leaves, as far as choosing the bundle goes."""
    return shutil.copytree(source, home / f"{BUNDLE}_released")


def change_metadata(bundle: Path, **changes: object) -> None:
    write_json(bundle / "configs" / "metadata.json", {**read_metadata(bundle), **changes})


def test_import_makes_a_copy_and_replaces_the_one_before(authors_file, source, home, monkeypatch):
    monkeypatch.setitem(PUBLISHED, BUNDLE, row_for(authors_file))
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    for _ in range(2):
        copy = import_copy(source, str(authors_file))
        assert copy == released_copy(BUNDLE) == home / "lung_lobe_ct_segmentation_released"
        assert [path.name for path in home.iterdir()] == [copy.name]
        assert not (copy / "left over").exists()
        (copy / "left over").touch()
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before
    assert json.loads((copy / "configs" / "inference.json").read_text())["preset"] == "released"
    assert bundle_to_run(source, "released") == copy
    assert bundle_to_run(copy, None) == bundle_to_run(copy, "released") == copy


def test_import_into_a_folder_of_choice(authors_file, source, home, tmp_path, monkeypatch):
    monkeypatch.setitem(PUBLISHED, BUNDLE, row_for(authors_file))
    assert import_copy(source, str(authors_file), str(tmp_path / "mine")) == tmp_path / "mine"
    assert read_metadata(tmp_path / "mine")["weights"]["tier"] == "authors"
    assert not home.exists()
    with pytest.raises(BadInput, match="mine exists already"):
        import_copy(source, str(authors_file), str(tmp_path / "mine"))


def test_failed_import_keeps_the_copy_before(authors_file, source, copy, home):
    with pytest.raises(BadInput, match="has git blob id"):
        import_copy(source, str(authors_file))
    assert [path.name for path in home.iterdir()] == [copy.name]
    assert (copy / "models" / "model.pt").is_file()


def test_released_preset_names_the_command_until_there_is_a_copy(source):
    with pytest.raises(BadInput, match=r"'released' needs .* run `pulmozoo import-weights lobes` first"):
        bundle_to_run(source, "released")


def test_copy_of_another_version_is_not_run(source, copy):
    assert bundle_to_run(source, "released") == copy
    change_metadata(source, version="0.9.0")
    with pytest.raises(BadInput, match="another version of the bundle: run `pulmozoo import-weights lobes` again"):
        bundle_to_run(source, "released")


def test_other_presets_and_own_weights_run_the_bundle_itself(source, copy):
    assert [bundle_to_run(source, preset) for preset in (None, "phantom", "paper", "fantom")] == [source] * 4
    change_metadata(source, weights={"tier": "yours", "preset": "released"})
    assert bundle_to_run(source, "released") == source
    change_metadata(source, name="other_ct_segmentation")
    assert bundle_to_run(source, "released") == source


def test_phantom_weights_come_with_one_line_on_the_authors(source, home, caplog):
    caplog.set_level("INFO")
    bundle_to_run(source, None)
    shutil.copytree(source, released_copy(BUNDLE))
    bundle_to_run(source, None)
    first, then = caplog.messages
    assert first.endswith("for the authors' own: `pulmozoo import-weights lobes`, then --preset released")
    assert then.endswith("for the authors' own: --preset released")


def test_no_line_where_the_user_chose(source, caplog):
    caplog.set_level("INFO")
    bundle_to_run(source, "phantom")
    change_metadata(source, weights={"tier": "yours", "preset": "phantom"})
    bundle_to_run(source, None)
    assert caplog.messages == []
