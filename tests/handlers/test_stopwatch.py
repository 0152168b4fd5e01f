import time
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.engines.utils import IterationEvents

from pulmozoo.handlers.stopwatch import Stopwatch
from pulmozoo.transforms.reading import READING_SECONDS

STEP = 0.05


class Inferer:
    def __init__(self) -> None:
        self.seconds = {"stage_1": STEP / 5, "stage_2": STEP * 4 / 5}


def timed(stopwatch: Stopwatch) -> dict[str, float]:
    """Each part of one iteration takes a step, reading a fifth of the first."""

    def iterate(engine: Engine, batch: Any) -> None:
        time.sleep(STEP)
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        time.sleep(STEP)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)

    def batches() -> Any:
        time.sleep(STEP)
        yield {"ct_hu": MetaTensor(torch.zeros(1, 1, 2, 2, 2), meta={READING_SECONDS: torch.tensor([STEP / 5])})}

    engine = Engine(iterate)
    engine.register_events(*IterationEvents)
    stopwatch.attach(engine)
    engine.run(batches(), epoch_length=1)
    return stopwatch.seconds


@pytest.mark.parametrize(
    ("inferer", "network"), [(None, {"network": STEP}), (Inferer(), Inferer().seconds)], ids=["whole", "in parts"]
)
def test_every_part_has_its_own_time(inferer, network):
    seconds = timed(Stopwatch(inferer))
    assert list(seconds) == ["reading", "preprocessing", *network, "postprocessing"]
    expected = {"reading": STEP / 5, "preprocessing": STEP * 4 / 5, **network, "postprocessing": STEP}
    for part, value in expected.items():
        assert seconds[part] == pytest.approx(value, abs=0.8 * STEP), part
    assert sum(seconds.values()) == pytest.approx(3 * STEP, abs=0.8 * STEP)  # nothing is counted twice
