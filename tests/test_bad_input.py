"""What a user gets for input that cannot be used: one sentence, an exit code other than 0, nothing half-written."""

import csv
import errno
import gzip
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import itk
import nibabel as nib
import numpy as np
import pytest
import torch

from conftest import Outcome, labels_by_density, network_of, run_inference, write_nifti
from dicom_writer import edit, write_ct_series
from pulmozoo.handlers import results_writer, scan_writer
from pulmozoo.inferers.two_stage import TwoStageInferer

AFFINE = np.diag([-12.0, -14.0, 16.0, 1.0])
SHAPE = (20, 18, 16)


def chest(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Air, a body in it and lungs in the body."""
    ct_hu = np.full(shape, -1000, dtype=np.int16)
    ct_hu[3:-3, 3:-3] = 40
    ct_hu[6:-6, 6:-6] = -850
    return ct_hu


nifti = partial(write_nifti, affine=AFFINE)


def no_such_file(folder: Path) -> Path:
    return folder / "scan.nii.gz"


def not_an_image(folder: Path) -> Path:
    path = folder / "scan.nii.gz"
    path.write_bytes(gzip.compress(b"this is no image"))
    return path


def truncated_gzip(folder: Path) -> Path:
    path = nifti(folder / "scan.nii.gz", chest() + np.random.default_rng(0).integers(-20, 20, SHAPE, dtype=np.int16))
    path.write_bytes(path.read_bytes()[:-2000])
    return path


def truncated_nifti(folder: Path) -> Path:
    path = nifti(folder / "scan.nii", chest())
    path.write_bytes(path.read_bytes()[:-2000])
    return path


def empty_file(folder: Path) -> Path:
    path = folder / "scan.nii.gz"
    path.write_bytes(b"")
    return path


def without_voxels(folder: Path) -> Path:
    path = nifti(folder / "scan.nii", chest(), dim=[3, 20, 0, 16, 1, 1, 1, 1])
    path.write_bytes(path.read_bytes()[:352])
    return path


def with_value(value: float) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        values = chest().astype(np.float32)
        values[2, 3, 4] = value
        return nifti(folder / "scan.nii.gz", values)

    return build


def scaled_to(low: float, high: float) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        share = (chest().astype(np.float32) + 1000) / 1040
        return nifti(folder / "scan.nii.gz", (low + share * (high - low)).astype(np.float32))

    return build


def of_shape(*shape: int) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        values = np.full(shape, 40, dtype=np.int16)
        values[: shape[0] // 2] = -1000
        return nifti(folder / "scan.nii.gz", values)

    return build


def colour(folder: Path) -> Path:
    values = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    return nifti(folder / "scan.nii.gz", values)


def constant(folder: Path) -> Path:
    return nifti(folder / "scan.nii.gz", np.full(SHAPE, -1000, dtype=np.int16))


def spacing(*pixdim: float) -> Callable[[Path], Path]:
    return lambda folder: nifti(folder / "scan.nii", chest(), pixdim=[1, *pixdim, 0, 0, 0, 0], sform_code=0)


def mha_without_spacing(folder: Path) -> Path:
    path = folder / "scan.mha"
    itk.imwrite(itk.image_from_array(np.ascontiguousarray(chest().T)), str(path))
    head, spacing_line, tail = path.read_bytes().partition(b"ElementSpacing")
    assert spacing_line
    path.write_bytes(head + tail.partition(b"\n")[2])
    return path


def dicom_without_spacing(folder: Path) -> Path:
    for file in write_ct_series(folder / "series", chest(), AFFINE):
        edit(file, PixelSpacing=None)
    return folder / "series"


def dicom_with_a_gap(folder: Path) -> Path:
    files = write_ct_series(folder / "series", chest(), AFFINE)
    files[5].unlink()
    files[6].unlink()
    return folder / "series"


def dicom_of_another_modality(folder: Path) -> Path:
    write_ct_series(folder / "series", chest(), AFFINE, modality="MR")
    return folder / "series"


def two_series(folder: Path) -> Path:
    write_ct_series(folder / "series", chest(), AFFINE, series_uid="1.2.3.1", description="thin")
    write_ct_series(folder / "series", chest(), AFFINE, series_uid="1.2.3.2", description="thick")
    return folder / "series"


def no_scan_in_folder(folder: Path) -> Path:
    (folder / "scan.txt").write_text("notes")
    return folder


BAD_SCANS = {
    "missing": (no_such_file, "does not exist: expected"),
    "folder without scan": (no_scan_in_folder, "holds no scan: expected"),
    "no image": (not_an_image, "cannot be read as a CT image"),
    "empty file": (empty_file, "scan.nii.gz"),
    "truncated gzip": (truncated_gzip, "truncated or damaged"),
    "truncated NIfTI": (truncated_nifti, "cannot be read as a CT image"),
    "no voxels": (without_voxels, "the image is empty"),
    "constant": (constant, "every voxel is -1000: expected Hounsfield units"),
    "NaN": (with_value(np.nan), "1 voxels are NaN or infinite: expected Hounsfield units"),
    "infinite": (with_value(np.inf), "1 voxels are NaN or infinite: expected Hounsfield units"),
    "2D": (of_shape(20, 18), "the image has 2 axes (20 x 18): expected one 3D CT"),
    "4D": (of_shape(20, 18, 16, 3), "the image has 4 axes (20 x 18 x 16 x 3): expected one 3D CT"),
    "colour": (colour, "colour image (RGB): expected one value in HU a voxel"),
    "0 to 255": (scaled_to(0, 255), "the values 0 to 255 look like an 8-bit or normalised image"),
    "0 to 1": (scaled_to(0, 1), "the values 0 to 1 look like an 8-bit or normalised image"),
    "with an offset": (scaled_to(24, 2000), "look like a CT stored with an offset"),
    "spacing 0": (spacing(3, 0, 4), "the voxel spacing is 3 x 0 x 4: expected mm above 0"),
    "spacing negative": (spacing(3, 3, -4), "the voxel spacing is 3 x 3 x -4: expected mm above 0"),
    "spacing of another unit": (spacing(0.003, 0.003, 0.004), "is the header in another unit?"),
    "spacing missing": (mha_without_spacing, "the header gives no voxel spacing"),
    "DICOM spacing missing": (dicom_without_spacing, "lacks PixelSpacing"),
    "too few slices": (of_shape(20, 18, 7), "20 x 18 x 7 voxels: expected at least 8 along each axis"),
    "missing slices": (dicom_with_a_gap, "has 2 missing slices"),
    "another modality": (dicom_of_another_modality, "expected modality CT, found MR"),
    "two series": (two_series, "several CT series, pick one with --series UID: 1.2.3.1 (16 slices, CT thin); 1.2.3.2"),
}


def assert_nothing_half_written(output_dir: Path) -> None:
    """No file of a scan and nothing unfinished; the table with the reason is all there may be."""
    files = [path.name for path in output_dir.rglob("*") if path.is_file() or path.name.endswith("unfinished")]
    assert set(files) <= {"results.csv"}


def assert_failed(outcome: Outcome, output_dir: Path, sentence: str) -> None:
    """Exit code 1, one line a scan on standard error, the same sentence in the table where there is one."""
    assert outcome.code == 1
    assert sentence in outcome.said
    assert all(line.startswith("pulmozoo: ") for line in outcome.said.splitlines()), outcome.said
    assert "Traceback" not in outcome.said
    assert_nothing_half_written(output_dir)
    if (output_dir / "results.csv").exists():
        with (output_dir / "results.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert [row["status"] for row in rows] == ["failed"]
        assert sentence in rows[0]["reason"]


@pytest.fixture
def output_dir(tmp_path) -> Path:
    return tmp_path / "OUT"


@pytest.fixture
def scan(tmp_path) -> Path:
    """A scan that nothing is wrong with."""
    return nifti(tmp_path / "good.nii.gz", chest())


@pytest.mark.parametrize(("build", "sentence"), BAD_SCANS.values(), ids=BAD_SCANS)
def test_a_scan_that_cannot_be_used(small_bundle, tmp_path, output_dir, build, sentence):
    (tmp_path / "IN").mkdir()
    assert_failed(run_inference(small_bundle, build(tmp_path / "IN"), output_dir), output_dir, sentence)


def test_no_scan_given(small_bundle, output_dir):
    assert_failed(run_inference(small_bundle, "", output_dir), output_dir, "expected --dataset_dir")


def test_series_picks_one_of_two(small_bundle, tmp_path, output_dir):
    assert run_inference(small_bundle, two_series(tmp_path), output_dir, series="1.2.3.2").code == 0
    assert (output_dir / "series" / "series_seg.nii.gz").exists()


def test_a_series_that_is_not_there(small_bundle, tmp_path, output_dir):
    outcome = run_inference(small_bundle, two_series(tmp_path), output_dir, series="1.2.3.9")
    assert_failed(outcome, output_dir, "has no series 1.2.3.9; it has 1.2.3.1 (16 slices, CT thin)")


def test_no_lungs_in_view(small_bundle, scan, tmp_path, output_dir):
    blind = tmp_path / "blind.pt"
    torch.save(labels_by_density(network_of(small_bundle), finds_nothing=True), blind)
    outcome = run_inference(small_bundle, scan, output_dir, weights_path=str(blind))
    assert_failed(outcome, output_dir, "no lungs in view: expected a chest CT")


class Dangerous:
    """Pickled, it makes a file when it is loaded by a loader that executes code."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def truncated(path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def text(path: Path, state: dict[str, torch.Tensor]) -> None:
    path.write_text("<html>404: not found</html>")


def empty(path: Path, state: dict[str, torch.Tensor]) -> None:
    path.write_bytes(b"")


def missing(path: Path, state: dict[str, torch.Tensor]) -> None:
    path.unlink(missing_ok=True)


def of_another_network(path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save(torch.nn.Conv3d(1, 1, 3).state_dict(), path)


def with_a_surplus_tensor(path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save({**state, "third_unet.weight": torch.zeros(1)}, path)


def of_another_width(path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save({name: torch.cat([value, value]) if value.ndim else value for name, value in state.items()}, path)


def no_state_dict(path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save([1, 2, 3], path)


def with_code(path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save({**state, "extra": Dangerous(path.with_name("executed"))}, path)


BAD_WEIGHTS = {
    "missing": (missing, "are missing: expected a state dict there; the network never runs untrained"),
    "truncated": (truncated, "truncated or no PyTorch file"),
    "no PyTorch file": (text, "model.pt"),
    "empty file": (empty, "truncated or no PyTorch file"),
    "no state dict": (no_state_dict, "no bare state dict"),
    "another network": (of_another_network, "belong to another network: scan_unet"),
    "a surplus tensor": (with_a_surplus_tensor, "belong to another network: third_unet.weight has no place in it"),
    "another width": (of_another_width, "belong to another network or preset: scan_unet"),
    "pickled code": (with_code, "code in the file was not executed"),
}


@pytest.mark.parametrize(("spoil", "sentence"), BAD_WEIGHTS.values(), ids=BAD_WEIGHTS)
def test_weights_that_cannot_be_used(small_bundle, scan, tmp_path, output_dir, spoil, sentence):
    weights = tmp_path / "model.pt"
    spoil(weights, torch.load(small_bundle / "models" / "model.pt", weights_only=True))
    outcome = run_inference(small_bundle, scan, output_dir, weights_path=str(weights))
    assert_failed(outcome, output_dir, sentence)
    assert not (tmp_path / "executed").exists()


def test_the_dangerous_file_would_be_dangerous(tmp_path):
    with_code(tmp_path / "model.pt", {})
    torch.load(tmp_path / "model.pt", weights_only=False)
    assert (tmp_path / "executed").exists()


def test_weights_of_another_preset(small_bundle, scan, output_dir):
    outcome = run_inference(small_bundle, scan, output_dir, preset="paper")
    assert_failed(outcome, output_dir, "belong to preset 'phantom', asked for was 'paper': run with --preset phantom")


def test_a_preset_that_does_not_exist(small_bundle, scan, output_dir):
    outcome = run_inference(small_bundle, scan, output_dir, preset="realeased")
    assert_failed(outcome, output_dir, "there is no preset 'realeased': choose one of phantom, paper, released")


def test_a_copied_bundle_without_weights_does_not_borrow_others(small_bundle, scan, tmp_path, output_dir):
    copy = tmp_path / small_bundle.name
    shutil.copytree(small_bundle, copy, ignore=shutil.ignore_patterns("model.pt"))
    assert_failed(run_inference(copy, scan, output_dir), output_dir, f"the weights {copy}/models/model.pt are missing")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_cuda_without_a_gpu(small_bundle, scan, output_dir):
    outcome = run_inference(small_bundle, scan, output_dir, device="cuda")
    assert_failed(outcome, output_dir, "--device cuda was asked for, but PyTorch sees no GPU here: use --device cpu")


def test_a_device_that_does_not_exist(small_bundle, scan, output_dir):
    outcome = run_inference(small_bundle, scan, output_dir, device="gpu")
    assert_failed(outcome, output_dir, "there is no device 'gpu': expected cpu, cuda or cuda:N")


def test_an_output_folder_that_cannot_be_made(small_bundle, scan, tmp_path):
    (tmp_path / "file").write_text("in the way")
    outcome = run_inference(small_bundle, scan, tmp_path / "file" / "OUT")
    assert outcome == Outcome(
        1,
        f"pulmozoo: the output folder {tmp_path / 'file' / 'OUT'} is not writable: choose another --output_dir",
    )


def test_an_output_format_that_does_not_exist(small_bundle, scan, output_dir):
    outcome = run_inference(small_bundle, scan, output_dir, output_ext=".docx")
    assert_failed(outcome, output_dir, ".docx")


def disk_full(*args: Any, **kwargs: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", str(args[-1]) if args else None)


def test_a_full_disk_at_the_label_map(small_bundle, scan, output_dir, monkeypatch):
    monkeypatch.setattr(nib, "save", disk_full)
    assert_failed(run_inference(small_bundle, scan, output_dir), output_dir, "the disk is full: free some space")


def test_a_full_disk_at_the_overlay(small_bundle, scan, output_dir, monkeypatch):
    monkeypatch.setattr(scan_writer, "overlay_png", disk_full)
    assert_failed(run_inference(small_bundle, scan, output_dir), output_dir, "the disk is full: free some space")


@pytest.mark.parametrize("name", ["good_seg.nii.gz", "results.json"], ids=["first", "last"])
def test_a_file_that_cannot_be_put_in_its_place(small_bundle, scan, output_dir, monkeypatch, name):
    replace = results_writer.os.replace

    def full_at_one(source: Path, target: Path) -> None:
        if Path(target).name == name:
            disk_full(target)
        replace(source, target)

    monkeypatch.setattr(results_writer.os, "replace", full_at_one)
    assert_failed(run_inference(small_bundle, scan, output_dir), output_dir, "the disk is full: free some space")


@pytest.mark.parametrize("extension", [".nii", ".mha"])
def test_a_label_map_that_breaks_off_is_no_result(small_bundle, chest_ct, output_dir, extension):
    # The label map, 507 kB as float64, is the only file above the limit: ITK would cut it off without a word.
    limits = pytest.importorskip("resource")
    before = limits.getrlimit(limits.RLIMIT_FSIZE)
    limits.setrlimit(limits.RLIMIT_FSIZE, (400_000, before[1]))
    try:
        outcome = run_inference(small_bundle, chest_ct, output_dir, output_ext=extension, output_dtype="float64")
    finally:
        limits.setrlimit(limits.RLIMIT_FSIZE, before)
    assert outcome.code == 1
    assert_nothing_half_written(output_dir)


def test_a_full_disk_for_the_table(small_bundle, scan, output_dir, monkeypatch):
    monkeypatch.setattr("pulmozoo.bundle.run.write_csv", disk_full)
    outcome = run_inference(small_bundle, scan, output_dir)
    assert outcome.code == 1
    assert outcome.said.startswith("pulmozoo: the disk is full: free some space")


@pytest.mark.parametrize("stage", ["reading", "network", "writing"])
def test_the_scan_after_a_failed_one_is_run(small_bundle, scan, tmp_path, output_dir, monkeypatch, stage):
    (tmp_path / "IN").mkdir()
    first, second = tmp_path / "IN" / "1.nii.gz", tmp_path / "IN" / "2.nii.gz"
    shutil.copy(scan, first)
    shutil.copy(scan, second)
    owner, name = {
        "reading": (None, None),
        "network": (TwoStageInferer, "one_scan"),
        "writing": (scan_writer, "overlay_png"),
    }[stage]
    if owner is None:
        first.write_bytes(b"broken")
    else:
        works, calls = getattr(owner, name), []

        def fails_at_first(*args: Any) -> Any:
            calls.append(args)
            if len(calls) == 1:
                raise RuntimeError("for the first scan only")
            return works(*args)

        monkeypatch.setattr(owner, name, fails_at_first)
    outcome = run_inference(small_bundle, tmp_path / "IN", output_dir)
    assert outcome.code == 3
    assert outcome.said.startswith("pulmozoo: 1: ")
    assert (output_dir / "2" / "2_seg.nii.gz").exists()
    assert not (output_dir / "1").exists()
