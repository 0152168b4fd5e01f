"""Scores of annotated slices: a row each, and their means weighted by lesion area."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine

from ..metrics.area_weighted import area_weighted
from ..metrics.slice_histograms import BINS, best_threshold, scores_at_thresholds, soft_dice_loss
from .score_table import ScoreTable

SCORES = ("dice", "jaccard", "mean_accuracy")


class SliceScoreTable(ScoreTable):
    """As :class:`ScoreTable` with a row a slice, and in the last row means weighted by the area of the lesion.

    Beside each mean its weighted standard deviation (``_sd``) and standard error (``_se``); ``false_percent``, how much
    is found of the lung on slices without lesion; ``best_threshold`` and its ``best_dice``; ``loss``, the soft Dice
    loss of all slices together.

    Args:
        threshold: at which the scores are taken.
        class_weights: of background and lesion in the loss.
    """

    def __init__(self, path: str | Path, threshold: float, class_weights: Sequence[float]) -> None:
        super().__init__(path, log_each=False)
        self.threshold, self.class_weights = threshold, class_weights
        self.histograms: list[torch.Tensor] = []

    def start(self, engine: Engine) -> None:
        super().start(engine)
        self.histograms = []

    def add(self, engine: Engine) -> None:
        state: Any = engine.state
        for batch, output in zip(state.batch, state.output, strict=True):
            histogram = output["histogram"]
            scores = scores_at_thresholds(histogram[None])
            pixels = int(histogram[0].sum())
            row = {
                "scan": Path(str(batch["image"].meta["filename_or_obj"])).name,
                "slice": int(batch["slice"]),
                "area_cm2": pixels * float(batch["pixel_cm2"]),
            }
            at = round(self.threshold * BINS)
            named = zip(SCORES, scores, strict=True)
            self.rows.append({**row, **{name: values[0, at].item() if pixels else None for name, values in named}})
            self.histograms.append(histogram)

    def mean(self) -> dict[str, float | None]:
        """Of what was scored since the last start; empty if nothing was."""
        means: dict[str, float | None] = {}
        if not self.rows:
            return means
        histograms = torch.stack(self.histograms)
        with_lesion = [row for row in self.rows if row["area_cm2"] > 0]
        if with_lesion:
            areas = [row["area_cm2"] for row in with_lesion]
            for name in SCORES:
                means[name], means[f"{name}_sd"], means[f"{name}_se"] = area_weighted(
                    [row[name] for row in with_lesion], areas
                )
            means["best_threshold"], means["best_dice"] = best_threshold(histograms)
        healthy = histograms[histograms[:, 0].sum(dim=-1) == 0][:, 1].sum(dim=0)
        if healthy.sum():
            means["false_percent"] = 100 * (healthy[round(self.threshold * BINS) :].sum() / healthy.sum()).item()
        means["loss"] = soft_dice_loss(histograms, self.class_weights)
        return means
