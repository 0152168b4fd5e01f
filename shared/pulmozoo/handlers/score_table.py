"""One row a scan with its scores, and their mean."""

import csv
import logging
import os
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

logger = logging.getLogger(__name__)


class ScoreTable:
    """Write each ``output["result"]`` of an evaluator to ``path`` (csv), the mean over scans in the last row."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.add)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def start(self, engine: Engine) -> None:
        self.rows = []

    def add(self, engine: Engine) -> None:
        state: Any = engine.state
        for batch, output in zip(state.batch, state.output, strict=True):
            name = Path(str(batch["image"].meta["filename_or_obj"])).name
            self.rows.append({"scan": name, **output["result"]})
            shown = ", ".join(f"{key} {value:.3f}" for key, value in output["result"].items() if value is not None)
            logger.info("%s: %s", name, shown)

    def mean(self) -> dict[str, float | None]:
        """Mean of each score over the scans that have it; None where no scan does."""
        means = {}
        for column in dict.fromkeys(key for row in self.rows for key in row if key != "scan"):
            known = [row[column] for row in self.rows if row.get(column) is not None]
            means[column] = sum(known) / len(known) if known else None
        return means

    def write(self, engine: Engine) -> None:
        mean = {"scan": "mean", **self.mean()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(".unfinished")
        with unfinished.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, list(mean))
            table.writeheader()
            table.writerows([*self.rows, mean])
        os.replace(unfinished, self.path)
        logger.info("mean of %d scans: %s, written to %s", len(self.rows), mean, self.path)
