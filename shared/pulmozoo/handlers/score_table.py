"""One row a scan with its scores, and their mean."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ignite import distributed as idist
from ignite.engine import Engine, Events

from ..files import write_rows

logger = logging.getLogger(__name__)


class ScoreTable:
    """Write each ``output["result"]`` of an evaluator to ``path`` (csv), the mean over scans in the last row.

    Args:
        path: made if missing, replaced as a whole.
        log_each: a line in the log for each scan; without it only for the mean.
    """

    def __init__(self, path: str | Path, *, log_each: bool = True) -> None:
        self.path = Path(path)
        self.log_each = log_each
        self.rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.add)
        if idist.get_rank() == 0:  # of several processes that train together one writes
            engine.add_event_handler(Events.COMPLETED, self.write)

    def start(self, engine: Engine) -> None:
        self.rows = []

    def add(self, engine: Engine) -> None:
        state: Any = engine.state
        for batch, output in zip(state.batch, state.output, strict=True):
            name = Path(str(batch["image"].meta["filename_or_obj"])).name
            self.rows.append({"scan": name, **output["result"]})
            if self.log_each:
                logger.info("%s: %s", name, as_text(output["result"]))

    def mean(self) -> dict[str, float | None]:
        """Mean of each score over the scans that have it as a number; None where no scan does."""
        means = {}
        for column in dict.fromkeys(key for row in self.rows for key in row if key != "scan"):
            known = [row[column] for row in self.rows if isinstance(row.get(column), int | float)]
            means[column] = sum(known) / len(known) if known else None
        return means

    def write(self, engine: Engine) -> None:
        mean = {"scan": "mean", **self.mean()}
        rows = [*self.rows, mean]
        write_rows(self.path, rows, dict.fromkeys(key for row in rows for key in row))
        logger.info("mean of %d scans: %s, written to %s", len(self.rows), as_text(self.mean()), self.path)


def as_text(scores: Mapping[str, Any]) -> str:
    """``dice 0.812, auc 0.900``, what is no number left out."""
    return ", ".join(f"{name} {value:.3f}" for name, value in scores.items() if isinstance(value, int | float))
