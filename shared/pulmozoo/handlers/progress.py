"""How a training goes, in one line an epoch and a few within."""

import logging
import time
from math import isfinite
from typing import Any

from ignite import distributed as idist
from ignite.engine import Engine, Events

logger = logging.getLogger(__name__)


class TrainingProgress:
    """Log the mean loss of each epoch with its seconds, and the running mean every ``every`` iterations.

    The mean loss is ``engine.state.metrics["loss"]``, too. Of several processes that train together one logs: running
    means of its own, the epoch's over all of them. A loss that is not finite stops the training with
    FloatingPointError.
    """

    def __init__(self, every: int = 50) -> None:
        self.every = every
        self.losses: list[float] = []
        self.started = 0.0

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.add)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.report)

    def start(self, engine: Engine) -> None:
        self.losses, self.started = [], time.monotonic()

    def add(self, engine: Engine) -> None:
        output: Any = engine.state.output
        loss = float(output["loss"].detach())
        if not isfinite(loss):
            raise FloatingPointError(f"the loss is {loss} in iteration {engine.state.iteration}: lower learning_rate")
        self.losses.append(loss)
        if len(self.losses) % self.every == 0 and idist.get_rank() == 0:
            recent = self.losses[-self.every :]
            logger.info("epoch %d, step %d: loss %.4f", engine.state.epoch, len(self.losses), sum(recent) / len(recent))

    def report(self, engine: Engine) -> None:
        total, count = idist.all_reduce(sum(self.losses)), idist.all_reduce(len(self.losses))
        mean = engine.state.metrics["loss"] = total / max(count, 1)
        seconds = time.monotonic() - self.started
        if idist.get_rank() == 0:
            logger.info("epoch %d of %d: loss %.4f, %.0f s", engine.state.epoch, engine.state.max_epochs, mean, seconds)
