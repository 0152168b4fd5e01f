"""A packed bundle: the same bytes each time, nothing of the builder in it, and it runs without pulmozoo."""

import hashlib
import importlib
import io
import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from conftest import REPOSITORY
from pulmozoo.bundle import pack as packing
from pulmozoo.bundle.errors import BadInput
from pulmozoo.bundle.pack import PACKAGE, import_closure, is_target, pack, strings, unpack
from pulmozoo.bundle.weights_file import read_metadata
from pulmozoo.files import write_json

NAME = "lung_lobe_ct_segmentation"
VERSION = read_metadata(REPOSITORY / "bundles" / NAME)["version"]
TWIN = "other_ct_segmentation"

BLOCK_PULMOZOO = """
import sys
class Blocker:
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] == "pulmozoo":
            raise ModuleNotFoundError("pulmozoo is not installed here")
sys.meta_path.insert(0, Blocker)
"""

LOCATE_ALL_TARGETS = """
import sys
from importlib.util import find_spec
from pydoc import locate
bundle, *targets = sys.argv[1:]
sys.path.insert(0, bundle)
assert all(locate(target) for target in targets), [target for target in targets if not locate(target)]
assert not any(module.split(".")[0] == "pulmozoo" for module in sys.modules)
find_spec("pulmozoo")
"""


def rename(bundle: Path, name: str) -> Path:
    """Give a bundle another name, as an author does who copies one."""
    for file in bundle.glob("configs/*.json"):
        file.write_text(file.read_text().replace(NAME, name))
    return bundle


def targets_of(bundle: Path) -> set[str]:
    configs = [json.loads(file.read_text()) for file in bundle.rglob("configs/**/*.json")]
    return {value for config in configs for key, value in strings(config) if is_target(key)}


@pytest.fixture(scope="module")
def archive(small_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(small_bundle, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def unpacked(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(archive, tmp_path_factory.mktemp("unpacked"))


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment of a process in which pulmozoo cannot be imported."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(BLOCK_PULMOZOO)
    return {**os.environ, "PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}


def test_the_same_bytes_again_whatever_times_and_hidden_files_do(small_bundle, archive, tmp_path):
    again = shutil.copytree(small_bundle, tmp_path / "again")
    for file in again.rglob("*"):
        os.utime(file, (1, 1))
        file.chmod(0o700)
    for left_over in (".cache/x", ".env", "out/train/last.pt", "docs/__pycache__/x.pyc", "large_files.yml"):
        (again / left_over).parent.mkdir(parents=True, exist_ok=True)
        (again / left_over).write_text("left behind")
    assert pack(again, tmp_path / "dist").read_bytes() == archive.read_bytes()


def test_a_bundle_out_of_a_zip_packs_to_the_same_bytes(unpacked, archive, tmp_path):
    assert pack(unpacked, tmp_path).read_bytes() == archive.read_bytes()


def test_members_are_sorted_in_one_folder_with_fixed_times_and_rights(archive):
    with zipfile.ZipFile(archive) as opened:
        members = opened.infolist()
    assert archive.name == f"{NAME}_v{VERSION}.zip"
    names = [member.filename for member in members]
    assert names == sorted(names)
    assert {name.split("/")[0] for name in names} == {NAME}
    assert {(member.date_time, member.external_attr >> 16) for member in members} == {
        ((1980, 1, 1, 0, 0, 0), stat.S_IFREG | 0o644)
    }


def test_checksum_joins_what_model_info_holds(small_bundle, tmp_path):
    other = {"other_v0.2.0": {"checksum": "ab", "source": "https://example.org"}}
    write_json(tmp_path / "model_info.json", other)
    content = pack(small_bundle, tmp_path).read_bytes()
    entry = {"checksum": hashlib.sha1(content).hexdigest(), "source": ""}
    assert json.loads((tmp_path / "model_info.json").read_text()) == {f"{NAME}_v{VERSION}": entry, **other}
    assert {path.name for path in tmp_path.iterdir()} == {"model_info.json", f"{NAME}_v{VERSION}.zip"}


def test_only_targets_are_renamed_and_code_and_licences_travel_unchanged(small_bundle, unpacked):
    for config in small_bundle.rglob("configs/**/*.json"):
        before, after = (
            list(strings(json.loads(p.read_text()))) for p in (config, unpacked / config.relative_to(small_bundle))
        )
        assert [key for key, _ in before] == [key for key, _ in after]
        for (key, old), (_, new) in zip(before, after, strict=True):
            expected = f"{NAME}_code.{old[9:]}" if is_target(key) and old.startswith("pulmozoo.") else old
            assert new == expected
    for file in (unpacked / f"{NAME}_code").rglob("*.py"):
        assert file.read_bytes() == (PACKAGE / file.relative_to(unpacked / f"{NAME}_code")).read_bytes()
    licence = (small_bundle / "LICENSE").read_bytes()
    assert (unpacked / "LICENSE").read_bytes() == (unpacked / f"{NAME}_code" / "LICENSE").read_bytes() == licence
    assert (unpacked / "docs" / "data_license.txt").is_file()
    assert not any(target.startswith("pulmozoo") for target in targets_of(unpacked))


def test_no_name_or_path_of_the_builder(small_bundle, monkeypatch, tmp_path):
    source = shutil.copytree(small_bundle, tmp_path / "places_of_ada" / "bundle")
    monkeypatch.setenv("HOME", "/homes/ada_lovelace")
    monkeypatch.setenv("USER", "ada_lovelace")
    content = pack(source, tmp_path / "dist").read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as opened:
        texts = [content, *(opened.read(name) for name in opened.namelist())]
    for private in (b"ada_lovelace", b"places_of_ada", bytes(PACKAGE.parents[1]), bytes(tmp_path)):
        assert not any(private in text for text in texts)


def test_inference_alone_needs_neither_the_phantom_nor_the_command_line(small_bundle):
    config = json.loads((small_bundle / "configs" / "inference.json").read_text())
    named = {value for key, value in strings(config) if is_target(key) and value.startswith("pulmozoo.")}
    closure = {file.relative_to(PACKAGE).as_posix() for file in import_closure(PACKAGE, named)}
    assert {"__init__.py", "bundle/root.py", "blocks/criss_cross.py", "networks/ctsunet.py"} <= closure
    assert not any(file.startswith(("phantom/", "cli", "losses/", "weights/", "bundle/pack")) for file in closure)


def hand_made_package(folder: Path, **sources: str) -> Path:
    for name, source in sources.items():
        file = folder / "zoo" / f"{name.replace('_of_', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
    return folder / "zoo"


def test_closure_follows_every_kind_of_relative_import(tmp_path):
    package = hand_made_package(
        tmp_path,
        __init__="",
        nets_of___init__="from .deep.low import Low as Low",
        nets_of_a="from . import b\nfrom .. import top\nfrom ..nets.c import value",
        nets_of_b="import os, torch.nn\nfrom torch import nn",
        nets_of_c="value = 1",
        nets_of_unused="",
        nets_of_deep_of___init__="",
        nets_of_deep_of_low="from ...top import f\nclass Low: ...",
        top="def f():\n    from .late import g",
        late="g = 1",
        other_of___init__="",
    )
    closure = {file.relative_to(package).as_posix() for file in import_closure(package, ["zoo.nets.a.Net.make"])}
    nets = {"__init__.py", "a.py", "b.py", "c.py", "deep/__init__.py", "deep/low.py"}
    assert closure == {"__init__.py", "top.py", "late.py", *(f"nets/{file}" for file in nets)}


@pytest.mark.parametrize("line", ["import zoo.b", "import os, zoo", "from zoo.b import x", "from zoo import b"])
def test_closure_refuses_imports_by_the_own_name(line, tmp_path):
    package = hand_made_package(tmp_path, __init__="", a=f"\n{line}", b="x = 1")
    with pytest.raises(BadInput, match=r"a\.py:2 imports zoo by its name"):
        import_closure(package, ["zoo.a.f"])


def test_every_target_is_found_where_pulmozoo_is_not(unpacked, elsewhere):
    targets = sorted(target for target in targets_of(unpacked) if target.startswith(f"{NAME}_code."))
    assert len(targets) > 10
    command = [sys.executable, "-c", LOCATE_ALL_TARGETS, str(unpacked), *targets]
    run = subprocess.run(command, cwd="/", env=elsewhere, capture_output=True, text=True, check=False)
    assert run.stderr.endswith("ModuleNotFoundError: pulmozoo is not installed here\n"), run.stderr


def test_runs_where_pulmozoo_is_not_from_another_folder(unpacked, elsewhere, chest_ct, tmp_path):
    shutil.copy(chest_ct, tmp_path / "chest.nii.gz")
    config = str(unpacked / "configs" / "inference.json")
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", config, "--device", "cpu"]
    command += ["--dataset_dir", "chest.nii.gz", "--output_dir", "results"]
    run = subprocess.run(command, cwd=tmp_path, env=elsewhere, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    results = json.loads((tmp_path / "results" / "chest" / "results.json").read_text())
    assert (tmp_path / "results" / "chest" / "chest_seg.nii.gz").is_file()
    assert results["weights"]["sha256"] == hashlib.sha256((unpacked / "models" / "model.pt").read_bytes()).hexdigest()
    assert results["bundle"] == NAME


@pytest.mark.parametrize("first", [NAME, TWIN])
def test_two_bundles_in_one_process_use_their_own_code(first, small_bundle, unpacked, tmp_path, monkeypatch):
    twin = rename(shutil.copytree(small_bundle, tmp_path / "twin"), TWIN)
    bundles = {NAME: unpacked, TWIN: unpack(pack(twin, tmp_path), tmp_path / "unpacked")}
    monkeypatch.setattr(sys, "path", sys.path[:])
    try:
        for name in sorted(bundles, key=lambda name: name != first):
            sys.path.insert(1, str(bundles[name]))  # as monai.bundle does
            parser = ConfigParser()
            parser.read_config(str(bundles[name] / "configs" / "inference.json"))
            network = parser.get_parsed_content("network_def")
            assert type(network).__module__ == f"{name}_code.networks.ctsunet"
            module = importlib.import_module(type(network).__module__)
            assert Path(module.__file__).is_relative_to(bundles[name])
            assert parser.get_parsed_content("bundle_root") == str(bundles[name])
            assert type(parser.get_parsed_content("inferer")).__module__ == f"{name}_code.inferers.two_stage"
    finally:
        for module in [module for module in sys.modules if module.split(".")[0] in (f"{NAME}_code", f"{TWIN}_code")]:
            del sys.modules[module]


def add_to_inference(key, value):
    def change(bundle: Path) -> None:
        path = bundle / "configs" / "inference.json"
        write_json(path, {**json.loads(path.read_text()), key: value})

    return change


def set_in_metadata(key, value):
    def change(bundle: Path) -> None:
        write_json(bundle / "configs" / "metadata.json", {**read_metadata(bundle), key: value})

    return change


def write(path, content):
    def change(bundle: Path) -> None:
        (bundle / path).parent.mkdir(exist_ok=True)
        (bundle / path).write_text(content)

    return change


UNFIT = {
    "a linked file": (lambda bundle: (bundle / "docs" / "x").symlink_to("README.md"), r"docs/x is a link"),
    "a linked folder": (lambda bundle: (bundle / "data").symlink_to("docs"), r"data is a link"),
    "no weights": (lambda bundle: (bundle / "models" / "model.pt").unlink(), r"no models/model\.pt"),
    "other weights": (write("models/model.pt", "other"), r"sha256 d9298a10.* the metadata describe"),
    "more weights": (write("models/best.pt", ""), r"models/best\.pt lies beside"),
    "no licence": (lambda bundle: (bundle / "LICENSE").unlink(), "no LICENSE"),
    "broken config": (write("configs/train.json", "{"), r"configs/train\.json is no JSON"),
    "YAML": (write("configs/other.yaml", "a: 1"), r"other\.yaml is YAML"),
    "unknown target": (add_to_inference("x", {"_target_": "pulmozoo.cli.nothing"}), r"pulmozoo\.cli\.nothing.*exist"),
    "expression": (add_to_inference("x", "$pulmozoo.cli.run()"), "names pulmozoo in the expression"),
    "absolute path": (add_to_inference("dataset_dir", "/mnt/ct"), "absolute path '/mnt/ct'"),
    "Windows path": (add_to_inference("dataset_dir", "C:\\ct"), "absolute path"),
    "name": (set_in_metadata("name", "lung_vessels"), "cannot be released"),
    "name that leads out": (set_in_metadata("name", "../lobes"), "cannot be released"),
    "version": (set_in_metadata("version", "1"), "cannot be released"),
    "home folder": (write("docs/README.md", "see\n--dataset_dir /homes/ada/ct"), r"README\.md, line 2, .*/homes/ada"),
    "anyone's home folder": (write("docs/README.md", "see /home/bob-2/ct"), "/home/bob-2 of this machine"),
    "token": (write("docs/README.md", f"hf_{'a1' * 17}"), "secret token"),
    "code folder": (write(f"{NAME}_code/x.py", ""), "a folder lung_lobe_ct_segmentation_code already"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_refuses_what_is_not_fit_for_release(case, small_bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/homes/ada")
    bundle = shutil.copytree(small_bundle, tmp_path / "bundle")
    change, reason = UNFIT[case]
    change(bundle)
    with pytest.raises(BadInput, match=reason):
        pack(bundle, tmp_path / "dist")
    assert not (tmp_path / "dist").exists()


def test_refuses_to_write_into_the_bundle(small_bundle):
    with pytest.raises(BadInput, match="lies in the bundle"):
        pack(small_bundle, small_bundle / "dist")


def member(name: str, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


UNSAFE = {
    "link": ([member("a/x", stat.S_IFLNK | 0o777)], "a link or special file"),
    "device": ([member("a/x", stat.S_IFCHR)], "a link or special file"),
    "absolute": ([member("/a/x")], "the absolute path '/a/x'"),
    "drive": ([member("C:/a/x")], "the absolute path 'C:/a/x'"),
    "parent": ([member("a/../../x")], "leads out of the folder"),
    "backslash parent": ([member("a\\..\\..\\x")], "leads out of the folder"),
    "backslash": ([member("a\\x")], "with a backslash"),
    "two folders": ([member("a/x"), member("b/x")], r"holds 2 folders \(a, b\)"),
    "file outside a folder": ([member("a/x"), member("b")], "the file 'b' outside a folder"),
    "twice": ([member("a/x"), member("a/X")], "'a/X' twice"),
    "nothing": ([], "holds 0 folders"),
    "only a dot": ([member("./")], "holds 0 folders"),
}


@pytest.mark.parametrize("case", UNSAFE)
def test_unpack_refuses_a_zip_that_reaches_outside(case, tmp_path):
    members, reason = UNSAFE[case]
    path = tmp_path / "unsafe.zip"
    with zipfile.ZipFile(path, "w") as opened:
        for info in members:
            opened.writestr(info, b"")
    with pytest.raises(BadInput, match=reason):
        unpack(path, tmp_path / "folder")
    assert list(tmp_path.iterdir()) == [path]


def test_unpack_refuses_a_damaged_zip_and_leaves_nothing(archive, tmp_path):
    content = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as opened:
        weights = next(info for info in opened.infolist() if info.filename.endswith("model.pt"))
    content[weights.header_offset + weights.compress_size // 2] ^= 1
    (tmp_path / "damaged.zip").write_bytes(content)
    with pytest.raises(BadInput, match=r"damaged or no zip .*model\.pt"):
        unpack(tmp_path / "damaged.zip", tmp_path / "folder")
    assert not list((tmp_path / "folder").iterdir())


@pytest.mark.parametrize("size", [0, 1000], ids=["empty", "cut"])
def test_unpack_refuses_what_is_no_zip(size, archive, tmp_path):
    (tmp_path / "cut.zip").write_bytes(archive.read_bytes()[:size])
    with pytest.raises(BadInput, match="damaged or no zip"):
        unpack(tmp_path / "cut.zip", tmp_path)


def test_unpack_refuses_an_encrypted_zip(tmp_path):
    path = tmp_path / "locked.zip"
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr(member("a/x"), "content")
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1  # flag in the central directory
    path.write_bytes(content)
    with pytest.raises(BadInput, match="is encrypted"):
        unpack(path, tmp_path)


def test_unpack_refuses_a_zip_that_would_fill_the_disk(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "MAX_UNPACKED_BYTES", 1000)
    with pytest.raises(BadInput, match="more than 1000 bytes"):
        unpack(archive, tmp_path)


def test_unpack_keeps_what_is_there(archive, tmp_path):
    (tmp_path / NAME).mkdir()
    with pytest.raises(BadInput, match="exists already"):
        unpack(archive, tmp_path)
    assert not list((tmp_path / NAME).iterdir())
