"""Go on where a killed training stopped."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite import distributed as idist
from ignite.engine import Engine, Events

from ..files import whole

logger = logging.getLogger(__name__)


class Resume:
    """Save after every epoch and load at the start: no more than an epoch is lost.

    A training goes on with as many epochs left, however many scans the data set has by then.

    Args:
        path: the one file that is written, replaced as a whole.
        parts: what has a state: ``network``, ``optimizer``, ``scheduler``, ...
    """

    def __init__(self, path: str | Path, parts: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.parts = parts

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.load)
        if idist.get_rank() == 0:  # of several processes that train together one writes
            engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def load(self, engine: Engine) -> None:
        if not self.path.exists():
            return
        state = torch.load(self.path, map_location="cpu", weights_only=True)
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        engine.state.epoch = state["epoch"]
        engine.state.iteration = state["epoch"] * engine.state.epoch_length
        logger.info("resumed %s after epoch %d", self.path, state["epoch"])

    def save(self, engine: Engine) -> None:
        state = {name: part.state_dict() for name, part in self.parts.items()}
        with whole(self.path) as unfinished:
            torch.save({**state, "epoch": engine.state.epoch, "iteration": engine.state.iteration}, unfinished)
