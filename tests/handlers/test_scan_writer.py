import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage

from pulmozoo.bundle.weights_file import sha256
from pulmozoo.handlers import results_writer, scan_writer
from pulmozoo.handlers.scan_writer import ScanWriter
from pulmozoo.handlers.stopwatch import Stopwatch

AFFINE = torch.tensor([[0, -2.5, 0, 10], [-1.5, 0, 0, -20], [0, 0, 4.0, 30], [0, 0, 0, 1]], dtype=torch.float64)
SECONDS = {"reading": 0.25, "network": 1.5}
NAMES = {"0": "background", "1": "left lung", "2": "right lung"}


@pytest.fixture
def bundle(tmp_path) -> Path:
    """What the writer reads of a bundle: metadata and weights."""
    (tmp_path / "bundle" / "configs").mkdir(parents=True)
    (tmp_path / "bundle" / "model.pt").write_bytes(b"weights")
    weights = {"tier": "phantom", "sha256": sha256(tmp_path / "bundle" / "model.pt")}
    metadata = {"name": "lungs", "version": "0.1.0", "weights": weights}
    (tmp_path / "bundle" / "configs" / "metadata.json").write_text(json.dumps(metadata))
    return tmp_path / "bundle"


@pytest.fixture
def make_writer(bundle, tmp_path) -> Callable[..., ScanWriter]:
    def make(**options: Any) -> ScanWriter:
        return ScanWriter(
            tmp_path / "OUT",
            bundle,
            bundle / "model.pt",
            **{"preset": "phantom", "options": {"fast": False}, **options},
            label_names=NAMES,
            stopwatch=Stopwatch(),
        )

    return make


@pytest.fixture
def data() -> dict[str, Any]:
    """A scan of unequal axes with two labels."""
    labels = torch.zeros(1, 8, 9, 10, dtype=torch.uint8)
    labels[0, 1:3, 2:7, 3:9], labels[0, 5:7, 2:7, 3:9] = 1, 2
    ct_hu = MetaTensor(labels.to(torch.int16) * 100 - 1000, affine=AFFINE, meta={"filename_or_obj": "/scans/a.nii"})
    return {
        "scan": "p1__a.b",
        "ct_hu": ct_hu,
        "pred": MetaTensor(labels, affine=AFFINE),
        "result": {"volume_ml": 1.5, "mean_hu": None},
    }


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_places_in_a_folder_a_scan(make_writer, tmp_path):
    folder = tmp_path / "OUT" / "a"
    assert make_writer().places("a") == {
        "labels": folder / "a_seg.nii.gz",
        "overlay": folder / "overlay.png",
        "results": folder / "results.json",
    }


def test_places_side_by_side(make_writer, tmp_path):
    writer = make_writer(separate_folder=False, output_postfix="lobes", output_ext=".mha")
    assert writer.places("a") == {
        "labels": tmp_path / "OUT" / "a_lobes.mha",
        "overlay": tmp_path / "OUT" / "a_overlay.png",
        "results": tmp_path / "OUT" / "a_results.json",
    }


@pytest.mark.parametrize("separate", [True, False])
@pytest.mark.parametrize("extension", [".nii.gz", ".nii", ".mha", ".nrrd"])
def test_the_files_are_where_places_says_and_nowhere_else(make_writer, data, tmp_path, separate, extension):
    writer = make_writer(separate_folder=separate, output_ext=extension)
    writer.write(data, dict(SECONDS), "cpu")
    places = writer.places(data["scan"]).values()
    assert files_in(tmp_path / "OUT") == {str(place.relative_to(tmp_path / "OUT")) for place in places}


def test_the_label_map_keeps_values_grid_and_type(make_writer, data):
    writer = make_writer(output_dtype="int16")
    writer.write(data, dict(SECONDS), "cpu")
    image = nib.load(writer.places(data["scan"])["labels"])
    assert np.array_equal(np.asarray(image.dataobj), data["pred"][0].numpy())
    assert np.array_equal(image.affine, AFFINE.numpy())
    assert image.get_data_dtype() == np.int16


@pytest.mark.parametrize("extension", [".nii.gz", ".nii", ".mha", ".nrrd"])
def test_the_label_map_can_be_read_back(make_writer, data, extension):
    writer = make_writer(output_ext=extension)
    writer.write(data, dict(SECONDS), "cpu")
    labels = LoadImage(ensure_channel_first=True)(writer.places(data["scan"])["labels"])
    assert torch.equal(labels.as_tensor().to(torch.uint8), data["pred"].as_tensor())
    assert torch.allclose(labels.affine, AFFINE)


def test_results_json_holds_all_that_is_known_of_the_scan(make_writer, data, bundle):
    writer = make_writer()
    writer.write(data, dict(SECONDS), "cuda:0")
    results = json.loads(writer.places(data["scan"])["results"].read_text())
    writing = results["seconds"].pop("writing")
    assert results["seconds"] == {**SECONDS, "total": pytest.approx(1.75 + writing)}
    assert {key: value for key, value in results.items() if key != "seconds"} == {
        "scan": "p1__a.b",
        "image": "/scans/a.nii",
        "bundle": "lungs",
        "version": "0.1.0",
        "preset": "phantom",
        "fast": False,
        "weights": {"tier": "phantom", "sha256": sha256(bundle / "model.pt")},
        "labels": NAMES,
        "numbers": {"volume_ml": 1.5, "mean_hu": None},
        "device": "cuda:0",
        "files": {"labels": "p1__a.b_seg.nii.gz", "overlay": "overlay.png", "results": "results.json"},
    }


def test_weights_that_the_metadata_do_not_describe_borrow_nothing_from_them(make_writer, data, bundle):
    (bundle / "model.pt").write_bytes(b"weights of my own")
    writer = make_writer()
    writer.write(data, dict(SECONDS), "cpu")
    weights = json.loads(writer.places(data["scan"])["results"].read_text())["weights"]
    assert weights == {"tier": "not described", "preset": "phantom", "sha256": sha256(bundle / "model.pt")}


def test_a_scan_is_finished_once_it_is_written(make_writer, data):
    writer = make_writer()
    assert writer.finished(data["scan"]) is None
    writer.write(data, dict(SECONDS), "cpu")
    assert writer.finished(data["scan"])["numbers"] == data["result"]
    assert writer.finished("another scan") is None


def other_weights(bundle: Path, results: Path) -> None:
    (bundle / "model.pt").write_bytes(b"other weights")


def another_version(bundle: Path, results: Path) -> None:
    file = bundle / "configs" / "metadata.json"
    file.write_text(file.read_text().replace("0.1.0", "0.2.0"))


def no_label_map(bundle: Path, results: Path) -> None:
    results.with_name("p1__a.b_seg.nii.gz").unlink()


def truncated_results(bundle: Path, results: Path) -> None:
    results.write_text(results.read_text()[:40])


def other_results(bundle: Path, results: Path) -> None:
    results.write_text("[]")


def no_weights(bundle: Path, results: Path) -> None:
    (bundle / "model.pt").unlink()


@pytest.mark.parametrize(
    "change", [other_weights, another_version, no_label_map, truncated_results, other_results, no_weights]
)
def test_a_scan_is_not_finished_after(make_writer, data, bundle, change):
    writer = make_writer()
    writer.write(data, dict(SECONDS), "cpu")
    change(bundle, writer.places(data["scan"])["results"])
    assert writer.finished(data["scan"]) is None


def test_a_scan_is_not_finished_in_the_other_speed(make_writer, data):
    make_writer().write(data, dict(SECONDS), "cpu")
    assert make_writer(options={"fast": True}).finished(data["scan"]) is None


def test_a_scan_is_not_finished_in_another_preset(make_writer, data):
    make_writer().write(data, dict(SECONDS), "cpu")
    assert make_writer(preset="paper").finished(data["scan"]) is None


def test_a_failure_leaves_nothing(make_writer, data, tmp_path, monkeypatch):
    def fails(*args: Any) -> None:
        raise RuntimeError("no picture")

    monkeypatch.setattr(scan_writer, "overlay_png", fails)
    with pytest.raises(RuntimeError, match="no picture"):
        make_writer().write(data, dict(SECONDS), "cpu")
    assert list((tmp_path / "OUT").iterdir()) == []


def test_a_failure_keeps_the_earlier_results(make_writer, data, tmp_path, monkeypatch):
    writer = make_writer()
    writer.write(data, dict(SECONDS), "cpu")
    before = {path: path.read_bytes() for path in (tmp_path / "OUT").rglob("*") if path.is_file()}
    monkeypatch.setattr(results_writer, "sha256", lambda path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        writer.write({**data, "pred": data["pred"] * 0}, dict(SECONDS), "cpu")
    assert {path: path.read_bytes() for path in (tmp_path / "OUT").rglob("*") if path.is_file()} == before


def test_an_unfinished_folder_of_a_killed_run_is_no_obstacle(make_writer, data, tmp_path):
    (tmp_path / "OUT" / ".p1__a.b.unfinished").mkdir(parents=True)
    (tmp_path / "OUT" / ".p1__a.b.unfinished" / "overlay.png").write_bytes(b"half")
    make_writer().write(data, dict(SECONDS), "cpu")
    assert [path.name for path in (tmp_path / "OUT").iterdir()] == ["p1__a.b"]


def test_an_extension_that_nothing_writes(make_writer, data, tmp_path):
    with pytest.raises((OSError, ValueError, RuntimeError)):
        make_writer(output_ext=".docx").write(data, dict(SECONDS), "cpu")
    assert files_in(tmp_path / "OUT") == set()


def test_data_must_be_json_at_the_time_of_writing(make_writer, data, tmp_path):
    with pytest.raises(TypeError, match="not JSON serializable"):
        make_writer().write({**data, "result": {"volume_ml": torch.ones(1)}}, dict(SECONDS), "cpu")
    assert files_in(tmp_path / "OUT") == set()
