import functools

import pytest
import torch

from pulmozoo.handlers.learning_rate import phased_cosine


@pytest.mark.parametrize(
    ("epoch", "factor"),
    [(0, 1.0), (2, 0.55), (4, 1.0), (5, 0.55), (6, 0.1), (9, 0.1)],
    ids=["start", "middle of the first", "start of the second", "middle of the second", "end", "after the end"],
)
def test_each_phase_falls_from_one_to_the_lowest(epoch, factor):
    assert phased_cosine(epoch, phases=(0, 4), max_epochs=6, lowest=0.1) == pytest.approx(factor)


def test_an_empty_first_phase_is_passed_over():
    assert phased_cosine(0, phases=(0, 0), max_epochs=2, lowest=0.0) == 1.0
    assert phased_cosine(1, phases=(0, 0), max_epochs=2, lowest=0.0) == pytest.approx(0.5)


def test_a_resumed_schedule_follows_the_new_number_of_epochs():
    def schedule(max_epochs):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        curve = functools.partial(phased_cosine, phases=(0,), max_epochs=max_epochs, lowest=0.0)
        return torch.optim.lr_scheduler.LambdaLR(optimizer, curve)

    short, longer = schedule(2), schedule(4)
    short.optimizer.step()
    short.step()
    longer.load_state_dict(short.state_dict())
    longer.optimizer.step()
    longer.step()
    assert longer.get_last_lr() == [pytest.approx(0.5)]  # epoch 2 of 4
