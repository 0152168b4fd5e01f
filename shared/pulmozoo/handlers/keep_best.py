"""Keep the best epoch of a training beside its last one."""

import logging
import os
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import nn

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
    """

    def __init__(self, path: str | Path, network: nn.Module, scores: ScoreTable, score: str) -> None:
        self.path = Path(path)
        self.network = network
        self.scores = scores
        self.score = score
        self.best = float("-inf")

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def load(self, engine: Engine) -> None:
        if engine.state.epoch and self.path.exists():
            self.best = torch.load(self.path, map_location="cpu", weights_only=True)["score"]

    def __call__(self, engine: Engine) -> None:
        value = self.scores.mean().get(self.score)
        if value is None or value <= self.best:
            return
        self.best = value
        state: dict[str, Any] = {"network": self.network.state_dict(), "epoch": engine.state.epoch, "score": value}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(".unfinished")
        torch.save(state, unfinished)
        os.replace(unfinished, self.path)
        logger.info("epoch %d is the best so far: %s %.3f", engine.state.epoch, self.score, value)
