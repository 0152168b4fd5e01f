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


def rates_of(epochs: int, start: float, **law) -> list[float]:
    """What a training of so many epochs would log, the schedule stepped after each epoch as MONAI's handler does."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=start)
    curve = functools.partial(phased_cosine, max_epochs=epochs, **law)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, curve)
    rates = []
    for _ in range(epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_schedule_that_is_stepped_first_logs_the_rates_of_the_pneumothorax_paper():
    """Three epochs from 5e-4 to 1e-4, then forty to 5e-5, as PyTorch's cosine annealing after its first step."""
    rates = rates_of(43, 5e-4, phases=(0, 3), lowest=(0.2, 0.1), ahead=True)
    assert rates[:3] == pytest.approx([4.0e-4, 2.0e-4, 1.0e-4])
    assert rates[-1] == pytest.approx(5e-5)
    assert rates[22] == pytest.approx((5e-4 + 5e-5) / 2)  # the twentieth of forty
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=5e-4)
    annealing = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40, eta_min=5e-5)
    expected = []
    for _ in range(40):
        optimizer.step()
        annealing.step()
        expected.append(annealing.get_last_lr()[0])
    assert rates[3:] == pytest.approx(expected)


def test_each_phase_has_its_lowest():
    law = {"phases": (0, 2), "max_epochs": 4, "lowest": (0.5, 0.1)}
    assert [phased_cosine(epoch, **law) for epoch in range(5)] == pytest.approx([1, 0.75, 1, 0.55, 0.1])
    assert [phased_cosine(epoch, **law, ahead=True) for epoch in range(5)] == pytest.approx([0.75, 0.5, 0.55, 0.1, 0.1])
