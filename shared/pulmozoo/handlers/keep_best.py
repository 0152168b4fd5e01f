"""Keep the best epoch of a training beside its last one, and stop when there is no better one for long."""

import logging
from pathlib import Path
from typing import Any

import torch
from ignite import distributed as idist
from ignite.engine import Engine, Events
from torch import nn

from ..files import whole
from .score_table import ScoreTable

logger = logging.getLogger(__name__)


class KeepBest:
    """Save the network whenever a validation's mean score is higher than in every epoch before.

    Attach it after what resumes and what validates. The file holds ``network``, ``epoch`` and ``score``, as
    ``pulmozoo adopt`` takes it; a training that is resumed goes on from the score in it.

    Args:
        path: the one file that is written, replaced as a whole.
        network: what is saved.
        scores: of the validation.
        score: name of the score, the higher the better.
        patience: epochs without a better score after which the training stops; None never stops it.
        least_gain: by what share of itself a score must rise to count as better for the patience.
        interval: epochs from one validation to the next.
        start: epochs at the beginning whose scores do not count.
    """

    def __init__(
        self,
        path: str | Path,
        network: nn.Module,
        scores: ScoreTable,
        score: str,
        patience: int | None = None,
        least_gain: float = 0.0,
        interval: int = 1,
        start: int = 0,
    ) -> None:
        self.path = Path(path)
        self.network = network
        self.scores = scores
        self.score = score
        self.patience = patience
        self.least_gain = least_gain
        self.interval = interval
        self.start = start
        self.best, self.gained, self.gained_epoch = float("-inf"), float("-inf"), start

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.interval), self)

    def load(self, engine: Engine) -> None:
        if engine.state.epoch and self.path.exists():
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            self.best = self.gained = state["score"]
            self.gained_epoch = state["epoch"]

    def __call__(self, engine: Engine) -> None:
        if engine.state.epoch <= self.start:
            return
        value = self.scores.mean().get(self.score)
        if value is not None and value > self.gained * (1 + self.least_gain):
            self.gained, self.gained_epoch = value, engine.state.epoch
        elif self.patience is not None and engine.state.epoch - self.gained_epoch >= self.patience:
            logger.info("no epoch was better than %d: the training stops", self.gained_epoch)
            engine.terminate()
        if value is None or value <= self.best:
            return
        self.best = value
        if idist.get_rank() == 0:  # of several processes that train together one writes
            self.save(engine.state.epoch, value)

    def save(self, epoch: int, value: float) -> None:
        state: dict[str, Any] = {"network": self.network.state_dict(), "epoch": epoch, "score": value}
        with whole(self.path) as unfinished:
            torch.save(state, unfinished)
        logger.info("epoch %d is the best so far: %s %.3f", epoch, self.score, value)
