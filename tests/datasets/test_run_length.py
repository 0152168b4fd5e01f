import numpy as np
import pytest

from pulmozoo.bundle.errors import BadInput
from pulmozoo.datasets.run_length import read_all_runs, read_runs, write_runs

EXAMPLE = np.array([[0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 1, 0], [1, 0, 0, 0]])


def test_the_example_by_hand():
    assert np.array_equal(read_runs("2 3 4 2", 4, 4, "a"), EXAMPLE)
    assert write_runs(EXAMPLE) == "2 3 4 2"


def test_columns_come_first_on_unequal_sides():
    mask = np.zeros((2, 3))
    mask[1, 0] = mask[0, 1] = mask[1, 2] = 1
    assert write_runs(mask) == "1 2 2 1"
    assert np.array_equal(read_runs("1 2 2 1", 2, 3, "a"), mask)


@pytest.mark.parametrize("text", ["-1", " -1", "-1 "])
def test_no_pneumothorax(text):
    assert not read_runs(text, 4, 4, "a").any()
    assert write_runs(np.zeros((4, 4))) == "-1"


@pytest.mark.parametrize(("text", "pixels"), [("15 1", [15]), ("0 16", range(16)), ("0 1 14 1", [0, 15])])
def test_runs_reach_the_first_and_the_last_pixel(text, pixels):
    mask = read_runs(text, 4, 4, "a")
    assert np.flatnonzero(mask.T).tolist() == list(pixels)
    assert write_runs(mask) == text


def test_there_and_back_on_random_masks():
    rng = np.random.default_rng(0)
    for shape in ((7, 5), (1, 9), (16, 16)):
        mask = rng.random(shape) < 0.5
        assert np.array_equal(read_runs(write_runs(mask), *shape, "a"), mask)


def test_all_annotations_of_an_image_are_joined():
    joined = read_all_runs(["0 2", "1 3", "-1"], 4, 4, "a")
    assert np.flatnonzero(joined.T).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("text", ["15 2", "0 17", "16 1", "3 1 11 2"])
def test_runs_over_the_end_name_the_image(text):
    with pytest.raises(BadInput, match=r"image 1\.2\.3 has runs up to pixel 17: expected at most 16 \(4 x 4\)"):
        read_runs(text, 4, 4, "1.2.3")


@pytest.mark.parametrize("text", ["", "1", "1 2 3", "a b", "-1 2", "1.5 2", "1 2 -1"])
def test_what_is_no_run_length_names_the_image(text):
    with pytest.raises(BadInput, match=r"image 1\.2\.3 has the run lengths '.*': expected pairs of gap and length"):
        read_runs(text, 4, 4, "1.2.3")
