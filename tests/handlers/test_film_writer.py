import json
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image
from pydicom.data import get_testdata_file

from pulmozoo.bundle.errors import BadInput
from pulmozoo.handlers.film_overlay import film_overlay_png
from pulmozoo.handlers.film_writer import FilmWriter
from pulmozoo.handlers.stopwatch import Stopwatch

NAMES = {"0": "background", "1": "pneumothorax"}


@pytest.fixture
def film() -> dict[str, Any]:
    """A film 30 pixels wide and 20 high; its mask lies in the upper left."""
    mask = torch.zeros(1, 30, 20, dtype=torch.uint8)
    mask[0, 2:8, 1:5] = 1
    meta = {"filename_or_obj": "/films/a.png"}
    return {
        "scan": "a",
        "film": MetaTensor(torch.linspace(0, 1, 600).reshape(1, 30, 20), meta=meta),
        "pred": MetaTensor(mask[0]),
        "probabilities": MetaTensor(mask * 0.5),
        "result": {"pneumothorax_probability": 0.75},
    }


@pytest.fixture
def make_writer(tmp_path):
    (tmp_path / "bundle" / "configs").mkdir(parents=True)
    (tmp_path / "bundle" / "model.pt").write_bytes(b"weights")
    metadata = {"name": "films", "version": "0.1.0", "weights": {"tier": "phantom"}}
    (tmp_path / "bundle" / "configs" / "metadata.json").write_text(json.dumps(metadata))

    def make(**options: Any) -> FilmWriter:
        bundle = tmp_path / "bundle"
        return FilmWriter(tmp_path / "OUT", bundle, bundle / "model.pt", "phantom", NAMES, Stopwatch(), **options)

    return make


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_mask_has_the_pixels_of_the_film(make_writer, film, tmp_path):
    make_writer().write(film, {}, "cpu")
    assert files_in(tmp_path / "OUT") == ["a/a_seg.png", "a/overlay.png", "a/results.json"]
    image = Image.open(tmp_path / "OUT" / "a" / "a_seg.png")
    assert image.size == (30, 20)
    assert np.array_equal(np.asarray(image), film["pred"].numpy().T)
    assert image.convert("RGB").getpixel((2, 1)) != (0, 0, 0)
    results = json.loads((tmp_path / "OUT" / "a" / "results.json").read_text())
    assert results["numbers"] == film["result"]
    assert make_writer().finished("a") == results


def test_probabilities_are_a_grey_picture(make_writer, film, tmp_path):
    make_writer(probability_maps=True).write(film, {}, "cpu")
    image = Image.open(tmp_path / "OUT" / "a" / "a_pneumothorax_probability.png")
    assert (image.mode, image.size) == ("L", (30, 20))
    assert image.getpixel((2, 1)) == 128
    assert image.getpixel((20, 10)) == 0


def test_a_dicom_film_gets_a_dicom_seg(make_writer, film, tmp_path):
    source = tmp_path / "film.dcm"
    header = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    header.Modality = "CR"
    for keyword in ("FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient"):
        delattr(header, keyword)
    header.save_as(source)
    columns, rows = header.Columns, header.Rows
    mask = torch.zeros(1, columns, rows, dtype=torch.uint8)
    mask[0, 5:50, 3:9] = 1
    meta = {"filename_or_obj": str(source)}
    film |= {"film": MetaTensor(torch.rand(1, columns, rows), meta=meta), "pred": MetaTensor(mask[0])}
    make_writer().write(film, {}, "cpu")
    seg = highdicom.seg.segread(tmp_path / "OUT" / "a" / "a_seg.dcm")
    assert np.array_equal(np.squeeze(seg.pixel_array), mask[0].numpy().T)
    (segment,) = seg.SegmentSequence
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Pneumothorax"
    assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
    assert (seg.StudyInstanceUID, seg.PatientID) == (header.StudyInstanceUID, header.PatientID)


@pytest.mark.parametrize("option", [{"output_ext": ".nii.gz"}, {"output_dtype": "float32"}])
def test_masks_in_another_form_are_refused(make_writer, option):
    with pytest.raises(BadInput, match=r"choose uint8 and \.png"):
        make_writer(**option).check_source(Path("a.png"), dicom=False)


def test_the_overlay_shows_the_film_beside_its_mask(film, tmp_path):
    film_overlay_png(film["film"], film["pred"][None], tmp_path / "overlay.png", {1: "pneumothorax"})
    picture = np.asarray(Image.open(tmp_path / "overlay.png")).astype(int)
    coloured = (picture.max(axis=2) - picture.min(axis=2)) > 30
    legend = picture.shape[0] - 24
    columns = np.flatnonzero(coloured[:legend].any(axis=0))
    assert coloured[:legend].any()
    assert columns.min() > picture.shape[1] / 2  # only the panel on the right
    assert columns.max() < picture.shape[1] * 0.7  # in its left part
    assert coloured[legend:].any()


def test_the_overlay_needs_one_grid(film, tmp_path):
    with pytest.raises(ValueError, match="one shape"):
        film_overlay_png(film["film"], film["pred"][None, :, :-1], tmp_path / "overlay.png", {})
