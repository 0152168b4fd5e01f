import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from authors_file import BUNDLE, published_state, row_for, write_checkpoint
from monai.bundle import run as run_bundle

from conftest import network_of
from pulmozoo.bundle.errors import BadInput
from pulmozoo.bundle.pack import PACKAGE, import_closure, pack, unpack
from pulmozoo.bundle.weights_file import check_preset, read_metadata, read_weights, sha256
from pulmozoo.weights import convert
from pulmozoo.weights.ctsunet import released_network
from pulmozoo.weights.import_weights import import_weights
from pulmozoo.weights.published import PUBLISHED
from seeded import seeded_input

LOBES = PUBLISHED[BUNDLE]


@pytest.fixture(scope="module", params=[False, True], ids=["zip", "legacy"])
def authors_file(request, tmp_path_factory) -> Path:
    """The stand-in for the published checkpoint, in either format."""
    path = tmp_path_factory.mktemp("authors") / "best.pth"
    return write_checkpoint(path, published_state(), legacy=request.param)


@pytest.fixture
def published(authors_file, monkeypatch) -> Path:
    """The stand-in, taken for the published checkpoint."""
    monkeypatch.setitem(PUBLISHED, BUNDLE, row_for(authors_file))
    return authors_file


@pytest.fixture
def source(small_bundle, tmp_path) -> Path:
    """A bundle with phantom weights, whose preset ``released`` is the whole network."""
    return shutil.copytree(small_bundle, tmp_path / "bundle")


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def check_imported(bundle: Path) -> None:
    """The bundle holds the stand-in's weights, in half precision, and says so in every file."""
    weights = bundle / "models" / "model.pt"
    state, expected = read_weights(weights), convert(BUNDLE, published_state())
    assert list(state) == list(expected)
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor.half() if tensor.is_floating_point() else tensor), name
    for name in ("inference.json", "train.json"):
        assert json.loads((bundle / "configs" / name).read_text())["preset"] == "released"
    check_preset(bundle, "released")
    metadata = read_metadata(bundle)
    assert metadata["weights"] == {
        "tier": "authors",
        "trained_on": LOBES.trained_on,
        "score": LOBES.score,
        "command": "python -m monai.bundle run --config_file configs/import_weights.json",
        "source": LOBES.url,
        "licence": "Apache-2.0",
        "preset": "released",
        "sha256": sha256(weights),
    }
    assert metadata["data_source"] == LOBES.trained_on
    assert "eval_metrics" not in metadata


def test_new_bundle_with_the_authors_weights(published, source, tmp_path):
    before = content_of(source)
    out = tmp_path / "new" / "lobes"
    assert import_weights(source, published, out) == out / "models" / "model.pt"
    check_imported(out)
    assert content_of(source) == before
    assert [path.name for path in out.parent.iterdir()] == ["lobes"]


def test_config_changes_the_bundle_in_which_it_lies(published, source, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path[:])
    (source / "out").mkdir()
    others = {name for name in content_of(source) if not name.startswith(("configs", "models"))}
    monkeypatch.chdir(tmp_path)
    run_bundle(config_file="bundle/configs/import_weights.json", checkpoint=str(published))
    check_imported(source)
    assert {name for name in content_of(source) if not name.startswith(("configs", "models"))} == others
    assert (source / "out").is_dir()


def test_downloaded_file_is_used(published, source, tmp_path, monkeypatch):
    monkeypatch.setenv("PULMOZOO_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    shutil.copy(published, tmp_path / "home" / f"{BUNDLE}_best.pth")
    import_weights(source)
    check_imported(source)


def test_another_file_changes_nothing(authors_file, source, monkeypatch):
    """The stand-in has not the digest of the published file."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    before = content_of(source)
    with pytest.raises(SystemExit, match=r"^pulmozoo: .*best.pth has git blob id \w{40}, expected 4bf5a915.*\Z"):
        run_bundle(config_file=str(source / "configs" / "import_weights.json"), checkpoint=str(authors_file))
    with pytest.raises(SystemExit, match=r"^pulmozoo: no/best.pth does not exist: expected the file that https://.*\Z"):
        run_bundle(config_file=str(source / "configs" / "import_weights.json"), checkpoint="no/best.pth")
    assert content_of(source) == before


@pytest.mark.parametrize("in_place", [False, True])
def test_weights_of_another_network_change_nothing(source, tmp_path, in_place, monkeypatch):
    state = {name: tensor for name, tensor in published_state().items() if name != "unet2.outs.0.bias"}
    path = write_checkpoint(tmp_path / "best.pth", state, legacy=False)
    monkeypatch.setitem(PUBLISHED, BUNDLE, row_for(path))
    before = content_of(tmp_path)
    with pytest.raises(BadInput, match=r"the checkpoint lacks patch_unet\.lobe_head\.bias"):
        import_weights(source, path, None if in_place else tmp_path / "new")
    assert content_of(tmp_path) == before


def test_bundle_whose_authors_published_nothing(source):
    metadata = {**read_metadata(source), "name": "other_ct_segmentation"}
    (source / "configs" / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(BadInput, match=rf"published weights are known for .*{BUNDLE}.*, got 'other_ct_segmentation'"):
        import_weights(source)


def test_what_the_config_brings_into_the_zip_is_small():
    closure = import_closure(PACKAGE, ["pulmozoo.weights.import_weights.import_in_place"])
    folders = {file.parent.relative_to(PACKAGE).as_posix() for file in closure}
    assert folders == {".", "blocks", "bundle", "networks", "weights"}


def test_an_unpacked_bundle_imports_where_pulmozoo_is_not(small_bundle, tmp_path):
    path = write_checkpoint(tmp_path / "best.pth", published_state(), legacy=True)
    unpacked = unpack(pack(small_bundle, tmp_path / "dist"), tmp_path / "unpacked")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("import sys\nsys.modules['pulmozoo'] = None\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}

    def run() -> subprocess.CompletedProcess[str]:
        """The documented command, in the bundle's folder."""
        options = ["--config_file", "configs/import_weights.json", "--checkpoint", str(path)]
        command = [sys.executable, "-m", "monai.bundle", "run", *options]
        return subprocess.run(command, cwd=unpacked, env=environment, capture_output=True, text=True, check=False)

    before = content_of(unpacked)
    refused = run()
    assert refused.returncode == 1
    said = [line for line in refused.stderr.splitlines() if line.startswith("pulmozoo: ")]
    assert len(said) == 1
    assert "expected 4bf5a915c8b785c401ab1d446c989b4587acc7a4" in said[0]
    assert "Traceback" not in refused.stderr
    assert {name: data for name, data in content_of(unpacked).items() if "__pycache__" not in name} == before

    table = unpacked / f"{BUNDLE}_code" / "weights" / "published.py"
    table.write_text(table.read_text().replace(LOBES.identity[1], row_for(path).identity[1]))
    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    check_imported(unpacked)


def test_inference_with_the_imported_weights(source, tmp_path, monkeypatch):
    """One small volume through the bundle's own network and weights; half precision is all that is lost."""
    path = write_checkpoint(tmp_path / "best.pth", published_state(), legacy=False)
    monkeypatch.setitem(PUBLISHED, BUNDLE, row_for(path))
    ours, authors = network_of(import_weights(source, path).parents[1]), released_network().eval()
    ours.load_state_dict(read_weights(source / "models" / "model.pt"))
    authors.load_state_dict(convert(BUNDLE, published_state(), authors))
    image = seeded_input("image", [1, 1, 32, 32, 32], seed=1)
    with torch.no_grad():
        logits, scan_logits, expected = ours(image), ours.scan_logits(image), authors.scan_logits(image)
    assert logits.shape == (1, 7, 32, 32, 32)
    assert logits.isfinite().all()
    assert (scan_logits - expected).abs().max() < 0.01 * expected.std()
