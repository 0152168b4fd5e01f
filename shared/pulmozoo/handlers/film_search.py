"""Find the threshold and the smallest part that give the best masks of validation films."""

import logging
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor

from ..files import write_json
from ..metrics.film_scores import best_postprocessing

logger = logging.getLogger(__name__)


class FilmSearch:
    """Write the best ``threshold`` and ``min_area_px`` over all films of an evaluator to ``path`` (json).

    Each output has ``pred``, probabilities ``(2, H, W)``, and ``label``, the mask ``(1, H, W)``, both on the network's
    grid.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.probabilities: list[Tensor] = []
        self.truths: list[Tensor] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.add)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def start(self, engine: Engine) -> None:
        self.probabilities, self.truths = [], []

    def add(self, engine: Engine) -> None:
        outputs: Any = engine.state.output
        for output in outputs:
            self.probabilities.append(torch.as_tensor(output["pred"]).float().cpu())
            self.truths.append(torch.as_tensor(output["label"]).cpu())

    def write(self, engine: Engine) -> None:
        best = best_postprocessing(self.probabilities, self.truths)._asdict()
        write_json(self.path, best)
        logger.info(
            "best of %d films: --threshold %g --min_area_px %g, Dice %.3f, written to %s",
            len(self.truths),
            best["threshold"],
            best["min_area_px"],
            best["dice"],
            self.path,
        )
