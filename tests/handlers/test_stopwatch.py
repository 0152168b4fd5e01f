from typing import Any

import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.engines.utils import IterationEvents

from pulmozoo.handlers import stopwatch
from pulmozoo.handlers.stopwatch import Stopwatch
from pulmozoo.transforms.reading import READING_SECONDS


class Clock:
    """Stands for the module ``time``: goes on only when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def goes_on(self, seconds: float) -> None:
        self.now += seconds


class Inferer:
    def __init__(self) -> None:
        self.seconds = {"stage_1": 1.0, "stage_2": 3.0}


@pytest.mark.parametrize(
    ("inferer", "network"), [(None, {"network": 4.0}), (Inferer(), Inferer().seconds)], ids=["whole", "in parts"]
)
def test_every_part_has_its_own_time(monkeypatch, inferer, network):
    clock = Clock()
    monkeypatch.setattr(stopwatch, "time", clock)

    def batches() -> Any:
        clock.goes_on(2)
        yield {"image": MetaTensor(torch.zeros(1, 1, 2, 2, 2), meta={READING_SECONDS: torch.tensor([1.5])})}

    def iterate(engine: Engine, batch: Any) -> None:
        clock.goes_on(4)
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        clock.goes_on(8)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)

    watch, engine = Stopwatch(inferer), Engine(iterate)
    engine.register_events(*IterationEvents)
    watch.attach(engine)
    engine.run(batches(), epoch_length=1)
    expected = {"reading": 1.5, "preprocessing": 0.5, **network, "postprocessing": 8.0}
    assert list(watch.seconds.items()) == list(expected.items())
