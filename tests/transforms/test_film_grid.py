import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor

from pulmozoo.transforms.film_grid import (
    MaskToFilmGridd,
    OnFilmd,
    ToFilmGridd,
    equalised,
    normalised,
    on_film,
    to_grid,
)
from pulmozoo.transforms.film_mask import film_mask

SIZES = [(301, 200), (200, 301), (97, 60), (60, 98), (90, 90)]
SIZE = 128  # of the grid: larger than some films, smaller than others


def blob(shape: tuple[int, int], place: tuple[float, float], width: float = 6.0) -> Tensor:
    """A smooth spot ``(1, *shape)`` around a place, given in pixel indices."""
    first, second = torch.meshgrid(*(torch.arange(float(n)) for n in shape), indexing="ij")
    return torch.exp(-((first - place[0]) ** 2 + (second - place[1]) ** 2) / (2 * width**2))[None]


def centre(picture: Tensor) -> tuple[float, float]:
    weights = picture[0].double() / picture[0].sum()
    return tuple(float((weights.sum(dim=1 - axis) * torch.arange(n)).sum()) for axis, n in enumerate(picture.shape[1:]))


def off_middle(columns: int, rows: int) -> tuple[float, float]:
    return columns * 0.4 + 0.3, rows * 0.6 - 0.2


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_landmark_stays_where_it_is_there_and_back(size):
    columns, rows = size
    x, y = off_middle(*size)
    film = blob(size, (x, y), width=max(size) / 20)
    grid = to_grid(film, SIZE)
    assert grid.shape == (1, SIZE, SIZE)
    step = max(size) / SIZE
    left, top = (max(size) - columns) // 2, (max(size) - rows) // 2
    assert centre(grid) == pytest.approx(((y + top + 0.5) / step - 0.5, (x + left + 0.5) / step - 0.5), abs=0.02)
    back = on_film(grid, columns, rows)
    assert back.shape == film.shape
    assert centre(back) == pytest.approx((x, y), abs=0.02)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_affine_of_the_grid_leads_to_the_same_place(size):
    x, y = off_middle(*size)
    affine = torch.diag(torch.tensor([0.2, 0.3, 1.0, 1.0], dtype=torch.float64))
    film = MetaTensor(blob(size, (x, y), width=max(size) / 20), affine=affine)
    grid = ToFilmGridd("image", SIZE)({"image": film})["image"]
    row, column = centre(to_grid(film.as_tensor(), SIZE))
    place = grid.affine @ torch.tensor([row, column, 0, 1], dtype=torch.float64)
    assert place[:2].tolist() == pytest.approx([0.2 * x, 0.3 * y], abs=0.02)


def test_a_square_of_the_size_of_the_grid_is_only_turned_upright():
    film = torch.rand(1, 32, 32)
    assert torch.equal(to_grid(film, 32), film.mT)
    assert torch.equal(on_film(film.mT, 32, 32), film)


def test_the_border_is_black_and_the_film_not_stretched():
    grid = to_grid(torch.ones(1, 64, 32), 64)
    assert grid[0, 16:48].min() == 1
    assert grid[0, :15].max() == grid[0, 49:].max() == 0


def test_enlarging_keeps_the_values_at_the_border():
    assert on_film(torch.full((1, 32, 32), 0.3), 101, 77) == pytest.approx(torch.full((1, 101, 77), 0.3), abs=1e-6)


def test_making_a_film_smaller_does_not_alias():
    stripes = (torch.arange(512) % 2).float().expand(1, 512, 512)
    assert to_grid(stripes, 128)[0, 4:-4, 4:-4] == pytest.approx(torch.full((120, 120), 0.5), abs=0.05)


def test_the_network_gets_three_channels_normalised_by_hand():
    made = normalised(torch.full((1, 2, 2), 0.5))
    expected = [(0.5 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (0.5 - 0.406) / 0.225]
    assert made[:, 0, 0].tolist() == pytest.approx(expected)
    film = MetaTensor(torch.rand(1, 90, 70), meta={"filename_or_obj": "a.png", "reading_seconds": 0.5})
    grid = ToFilmGridd("image")({"image": film, "scan": "a"})["image"]
    assert (grid.shape, grid.dtype) == ((3, 256, 256), torch.float32)
    assert grid.meta["reading_seconds"] == 0.5
    assert torch.equal(film.affine, torch.eye(4, dtype=torch.float64))


def test_equalised_films_no_longer_differ_by_their_exposure():
    texture = 0.2 * torch.rand(1, 128, 128, generator=torch.Generator().manual_seed(0))
    dark, bright = equalised(0.1 + texture), equalised(0.5 + 2 * texture)
    assert (dark.shape, dark.dtype) == ((1, 128, 128), torch.float32)
    assert [float(value) for value in dark.aminmax()] == pytest.approx([0, 1])
    assert (dark - bright).abs().max() < 0.02


def test_a_rounding_error_above_white_is_white():
    film = torch.linspace(0, 1, 64).expand(1, 64, 64)
    assert torch.equal(equalised(film + 1e-7), equalised((film + 1e-7).clamp(max=1)))


def test_only_the_grid_is_equalised():
    film = MetaTensor(0.2 + 0.1 * torch.rand(1, 40, 30))
    kept = film.clone()
    grid = ToFilmGridd("image", size=64, equalised=True)({"image": film})["image"]
    assert torch.equal(film, kept)
    expected = normalised(equalised(to_grid(film.as_tensor(), 64)))
    assert torch.equal(grid.as_tensor(), expected)


def test_a_mask_goes_the_way_of_its_film():
    mask = torch.zeros(1, 96, 64)
    mask[0, 10:20, 30:50] = 255
    made = MaskToFilmGridd("label", 48)({"label": mask})["label"]
    assert made.unique().tolist() == [0, 1]
    rows, columns = made[0].nonzero().unbind(dim=1)
    assert [int(n) for n in (rows.min(), rows.max(), columns.min(), columns.max())] == [23, 32, 5, 9]


@pytest.mark.parametrize("size", [(850, 1024), (200, 151)], ids=str)
def test_a_mask_comes_back_almost_as_it_was(size):
    mask = (blob(size, off_middle(*size), width=max(size) / 20) > 0.5).float()
    back = on_film(to_grid(mask, 256), *size) >= 0.5
    overlap = (back & (mask > 0)).sum()
    assert 2 * overlap / (back.sum() + mask.sum()) > 0.98


def answer(size: int = 64, film_probability: float = 0.8) -> Tensor:
    """A large part above on the left, a small one below on the right, and the film's own probability."""
    grid = torch.zeros(2, size, size)
    grid[0, 10:30, 12:22] = 0.9
    grid[0, 50:54, 48:52] = 0.7
    grid[1] = film_probability
    return grid


@pytest.fixture
def film() -> MetaTensor:
    """128 columns, 96 rows: the grid's pixel is two of the film's, 16 rows above and below are padding."""
    return MetaTensor(torch.rand(1, 128, 96), meta={"filename_or_obj": "a.png", "spacing_mm": (2.0, 3.0)})


def test_the_answer_on_the_film(film):
    data = OnFilmd("pred", "film")({"pred": answer(), "film": film})
    mask = data["pred"]
    assert (mask.shape, mask.dtype, mask.meta["filename_or_obj"]) == ((1, 128, 96), torch.uint8, "a.png")
    expected = torch.zeros(1, 128, 96, dtype=torch.uint8)
    expected[0, 24:44, 4:44] = expected[0, 96:104, 84:92] = 1
    for column, row in ((96, 84), (96, 91), (103, 84), (103, 91)):  # 9/16 of 0.7
        expected[0, column, row] = 0
    assert torch.equal(mask.as_tensor(), expected)
    assert data["probabilities"].shape == (2, 128, 96)
    assert data["probabilities"][1] == pytest.approx(torch.full((128, 96), 0.8), abs=1e-6)


def test_options_of_the_mask(film):
    def area(**options: float) -> int:
        return int(OnFilmd("pred", "film", **options)({"pred": answer(), "film": film})["pred"].sum())

    assert area() == 20 * 40 + 8 * 8 - 4
    assert area(threshold=0.72) == 18 * 38  # 3/4 of 0.9 is less
    assert area(min_area_px=14) == area()  # the small part has 60 pixels of the film, 15 of the grid
    assert area(min_area_px=15) == 20 * 40
    assert area(class_threshold=0.79) == area()
    assert area(class_threshold=0.81) == 0


def test_parts_join_over_a_corner_and_must_be_larger_than_the_limit():
    probabilities = torch.zeros(2, 6, 6)
    probabilities[0, 0, 0] = probabilities[0, 1, 1] = probabilities[0, 4, 4] = 1
    assert film_mask(probabilities, min_area_px=1)[0].nonzero().tolist() == [[0, 0], [1, 1]]
    assert not film_mask(probabilities, min_area_px=2).any()
    assert film_mask(probabilities, threshold=1).sum() == 3


def test_half_precision_and_meta_tensors_are_fine(film):
    data = OnFilmd("pred", "film")({"pred": MetaTensor(answer().bfloat16()), "film": film})
    assert data["probabilities"].dtype == torch.float32


@pytest.mark.parametrize("shape", [(1, 64, 64), (2, 64, 32), (2, 1, 64, 64)], ids=str)
def test_an_answer_of_another_shape_is_named(film, shape):
    with pytest.raises(ValueError, match=r"probabilities must have shape \(2, size, size\), got"):
        OnFilmd("pred", "film")({"pred": torch.zeros(shape), "film": film})


def test_nothing_found_is_an_empty_mask(film):
    data = OnFilmd("pred", "film", min_area_px=5)({"pred": torch.zeros(2, 64, 64), "film": film})
    assert not data["pred"].any()
    assert np.asarray(data["pred"]).shape == (1, 128, 96)
