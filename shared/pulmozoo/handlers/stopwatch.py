"""How long each part of a scan took."""

import time
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents

from ..transforms.reading import READING_SECONDS


class Stopwatch:
    """``seconds`` of the last scan: ``reading``, ``preprocessing``, ``network``, ``postprocessing``.

    Args:
        inferer: one whose ``seconds`` say how long the parts of the network took; they replace ``network``.
    """

    def __init__(self, inferer: Any = None) -> None:
        self.inferer = inferer
        self.seconds: dict[str, float] = {}
        self.last = time.monotonic()

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.GET_BATCH_STARTED, self.start)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self.prepared)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self.inferred)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self.postprocessed)

    def start(self, engine: Engine) -> None:
        self.seconds = {}
        self.last = time.monotonic()

    def prepared(self, engine: Engine) -> None:
        state: Any = engine.state
        reading = float(torch.as_tensor(state.batch["image"].meta[READING_SECONDS]).sum())
        self.seconds["reading"] = round(reading, 3)
        self.seconds["preprocessing"] = round(self.lap() - reading, 3)

    def inferred(self, engine: Engine) -> None:
        network = self.lap()
        parts = {"network": network} if self.inferer is None else self.inferer.seconds
        self.seconds |= {part: round(seconds, 3) for part, seconds in parts.items()}

    def postprocessed(self, engine: Engine) -> None:
        self.seconds["postprocessing"] = round(self.lap(), 3)

    def lap(self) -> float:
        """Seconds since the last call."""
        before, self.last = self.last, time.monotonic()
        return self.last - before
