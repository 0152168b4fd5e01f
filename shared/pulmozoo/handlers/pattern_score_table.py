"""Scores of scans with annotated tissue patterns: a row each, and the balanced accuracy of all pixels together."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine
from torch import Tensor

from ..files import write_text
from ..metrics.balanced_accuracy import balanced_accuracy
from .score_table import ScoreTable


class PatternScoreTable(ScoreTable):
    """As :class:`ScoreTable`, but the last row pools the pixels of all scans, as the paper's scores do.

    Each row has ``balanced_accuracy`` and, of each pattern, ``<pattern>_recall`` and ``<pattern>_pixels``; the
    confusion matrix, true pattern by row, goes to ``<name>_confusion.csv`` beside.

    Args:
        path: as for :class:`ScoreTable`.
        label_names: ``{"1": "healthy", ...}``; ``"0"`` is background.
    """

    def __init__(self, path: str | Path, label_names: Mapping[str, str]) -> None:
        super().__init__(path, log_each=False)
        self.patterns = [name.replace(" ", "_") for index, name in label_names.items() if int(index) > 0]
        self.confusions: list[Tensor] = []

    def start(self, engine: Engine) -> None:
        super().start(engine)
        self.confusions = []

    def add(self, engine: Engine) -> None:
        state: Any = engine.state
        for batch, output in zip(state.batch, state.output, strict=True):
            name = Path(str(batch["image"].meta["filename_or_obj"])).name
            self.rows.append({"scan": name, **self.scores(output["confusion"])})
            self.confusions.append(output["confusion"])

    def scores(self, confusion: Tensor) -> dict[str, float | None]:
        """Of a confusion matrix with at least one pixel."""
        pixels, right = confusion.sum(dim=1).tolist(), confusion.diagonal().tolist()
        recalls = [hit / count if count else None for hit, count in zip(right, pixels, strict=True)]
        return {
            "balanced_accuracy": balanced_accuracy(confusion),
            **{f"{name}_recall": recall for name, recall in zip(self.patterns, recalls, strict=True)},
            **{f"{name}_pixels": count for name, count in zip(self.patterns, pixels, strict=True)},
        }

    def mean(self) -> dict[str, float | None]:
        """Of all pixels together; empty where nothing was scored."""
        return self.scores(torch.stack(self.confusions).sum(dim=0)) if self.confusions else {}

    def write(self, engine: Engine) -> None:
        super().write(engine)
        total = torch.stack(self.confusions).sum(dim=0).tolist()
        lines = [",".join(["truth", *self.patterns])]
        lines += [",".join([name, *map(str, row)]) for name, row in zip(self.patterns, total, strict=True)]
        write_text(self.path.with_name(f"{self.path.stem}_confusion.csv"), "\n".join(lines) + "\n")
