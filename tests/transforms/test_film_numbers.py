import json
import logging

import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch
from monai.transforms import Compose

from film_writer import chest_film, write_dicom_film
from pulmozoo.transforms.film_grid import OnFilmd, ToFilmGridd
from pulmozoo.transforms.film_numbers import FilmNumbersd, film_numbers
from pulmozoo.transforms.film_reading import LoadFilmd


def mask(left: int = 0, right: int = 0) -> torch.Tensor:
    """A mask of 40 columns and 30 rows with that many pixels in its left and its right half."""
    made = torch.zeros(1, 40, 30, dtype=torch.uint8)
    made[0, 3, :left] = 1
    made[0, 37, :right] = 1
    return made


def test_numbers_by_hand():
    assert film_numbers(mask(left=25), 0.912345, (2.0, 3.0)) == {
        "pneumothorax_probability": 0.9123,
        "mask_area_px": 25,
        "area_cm2": 1.5,
        "side": "right",
    }


def test_without_spacing_there_is_no_area():
    assert film_numbers(mask(left=25), 0.5, None)["area_cm2"] is None


@pytest.mark.parametrize(
    ("left", "right", "mirrored", "side"),
    [
        (10, 0, False, "right"),
        (0, 10, False, "left"),
        (10, 0, True, "left"),
        (0, 10, True, "right"),
        (9, 1, False, "right"),
        (1, 9, False, "left"),
        (8, 2, False, "both"),
        (8, 2, True, "both"),
        (0, 0, False, None),
        (0, 0, True, None),
    ],
)
def test_the_side_is_the_patients(left, right, mirrored, side):
    assert film_numbers(mask(left, right), 0.5, None, mirrored=mirrored)["side"] == side


def test_an_empty_mask_has_no_area():
    numbers = film_numbers(mask(), 0.1, (0.2, 0.2))
    assert (numbers["mask_area_px"], numbers["area_cm2"]) == (0, 0.0)


def test_the_transform_adds_plain_json_and_logs_the_warnings(caplog):
    film = MetaTensor(
        torch.rand(1, 40, 30), meta={"spacing_mm": [2.0, 3.0], "mirrored": True, "filename_or_obj": "a.dcm"}
    )
    probabilities = MetaTensor(torch.full((2, 40, 30), 0.25))
    data = {"pred": MetaTensor(mask(left=25)), "film": film, "probabilities": probabilities, "result": {"dice": 1.0}}
    with caplog.at_level(logging.WARNING):
        result = FilmNumbersd("pred")({**data, "warnings": "it is lateral\nit is old"})["result"]
    assert json.loads(json.dumps(result)) == {
        "dice": 1.0,
        "pneumothorax_probability": 0.25,
        "mask_area_px": 25,
        "area_cm2": 1.5,
        "side": "left",
        "warnings": ["it is lateral", "it is old"],
    }
    assert [record.getMessage() for record in caplog.records] == ["a.dcm: it is lateral", "a.dcm: it is old"]
    assert FilmNumbersd("pred")({**data, "warnings": ""})["result"]["warnings"] == []


def test_from_file_to_numbers_by_way_of_a_batch(tmp_path):
    """96 rows of 4 mm, 80 columns of 3 mm: a pixel of the grid is two of the film, four of its columns are padding."""
    path = write_dicom_film(tmp_path / "a.dcm", chest_film(), PixelSpacing=[4.0, 3.0], BodyPartExamined="KNEE")
    before = Compose([LoadFilmd(), ToFilmGridd("image", size=48)])
    (batch,) = DataLoader(Dataset([{"image": str(path)}], before), batch_size=1)
    assert batch["image"].shape == (1, 3, 48, 48)
    pred = torch.zeros(1, 2, 48, 48)
    pred[0, 0, 10:20, 30:35], pred[0, 1] = 1, 0.75
    (sample,) = decollate_batch({**batch, "pred": pred})
    result = Compose([OnFilmd("pred", "film"), FilmNumbersd("pred")])(sample)["result"]
    area_px = 20 * 10
    assert result == {
        "pneumothorax_probability": 0.75,
        "mask_area_px": area_px,
        "area_cm2": area_px * 12 / 100,
        "side": "left",
        "warnings": ["the file says that it shows KNEE, not the chest"],
    }
