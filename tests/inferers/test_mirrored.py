"""The mean over a film and its mirror image, by hand."""

import pytest
import torch

from pulmozoo.inferers.mirrored import MirroredInferer

FILM = torch.tensor([[[[1.0, 2.0, 4.0], [0.0, 0.0, 8.0]]]])


def left_neighbour(film):
    """What is one column to the left, so that a mirrored film has another answer."""
    return film.roll(1, dims=-1)


def test_the_mean_of_both_by_hand():
    answer = MirroredInferer()(FILM, left_neighbour)
    assert answer.tolist() == [[[[(4 + 2) / 2, (1 + 4) / 2, (2 + 1) / 2], [(8 + 0) / 2, (0 + 8) / 2, 0]]]]


def test_a_mirrored_film_has_the_mirrored_answer():
    inferer = MirroredInferer()
    assert torch.equal(inferer(FILM.flip(-1), left_neighbour), inferer(FILM, left_neighbour).flip(-1))


@pytest.mark.parametrize("amp", [True, False])
def test_the_film_alone(amp):
    answer = MirroredInferer(amp=amp, mirrored=False)(FILM, left_neighbour)
    assert torch.equal(answer, left_neighbour(FILM))
