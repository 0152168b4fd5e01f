"""The brightness baseline on films whose lung fields are drawn by hand."""

import pytest
import torch

from pulmozoo.bundle.errors import BadInput
from pulmozoo.inferers.lung_brightness import NO_MASK, LungBrightnessInferer, lung_brightness
from pulmozoo.transforms.film_grid import normalised


def film(left: float, right: float) -> torch.Tensor:
    """``(1, 64, 64)``, X then Y: a left and a right half around a ladder from 0 to 1 that fixes the stretch."""
    picture = torch.zeros(64, 64)
    picture[:32], picture[32:] = left, right
    picture[:, :4], picture[:, -4:] = 0.0, 1.0
    return picture[None]


def test_brightness_by_hand():
    mean, apart, spread, spread_apart = lung_brightness(film(0.2, 0.6))
    assert (mean, apart) == pytest.approx((0.4, 0.4), abs=1e-6)
    assert (spread, spread_apart) == pytest.approx((0.0, 0.0), abs=1e-6)


def test_a_mirrored_film_has_the_same_numbers():
    picture = torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(0))
    assert lung_brightness(picture.flip(1)) == pytest.approx(lung_brightness(picture), abs=1e-6)


def samples():
    """Films with a pneumothorax have one dark lung."""
    pairs = [(0.5, 0.45), (0.4, 0.45), (0.1, 0.5), (0.6, 0.2)]
    return [{"image": normalised(film(*pair).mT), "label": int(i > 1)} for i, pair in enumerate(pairs)]


def test_films_are_told_apart_and_nothing_is_outlined():
    inputs = torch.stack([normalised(film(*pair).mT) for pair in ((0.5, 0.5), (0.5, 0.1))])
    answer = LungBrightnessInferer(samples())(inputs, None)
    assert answer.shape == (2, 2, 64, 64)
    assert torch.all(answer[:, 0] == NO_MASK)
    assert answer[0, 1, 0, 0] < 0 < answer[1, 1, 0, 0]
    assert torch.equal(answer[:, 1, 0, 0], answer[:, 1, -1, -1])


def test_films_of_one_kind():
    with pytest.raises(BadInput, match="all 2 training films are alike: expected some with a pneumothorax"):
        LungBrightnessInferer(samples()[:2])(torch.zeros(1, 3, 64, 64), None)
