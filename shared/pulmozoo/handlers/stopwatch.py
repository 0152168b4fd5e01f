"""How long each part of a scan took."""

import time

from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents


class Stopwatch:
    """``seconds`` of the last scan: ``reading`` (and preprocessing), ``network`` and ``postprocessing``."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.last = time.monotonic()

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.GET_BATCH_STARTED, self.start)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self.lap, "reading")
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self.lap, "network")
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self.lap, "postprocessing")

    def start(self, engine: Engine) -> None:
        self.seconds = {}
        self.last = time.monotonic()

    def lap(self, engine: Engine, part: str) -> None:
        now = time.monotonic()
        self.seconds[part] = round(now - self.last, 3)
        self.last = now
