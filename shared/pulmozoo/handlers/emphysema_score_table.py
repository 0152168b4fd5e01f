"""Scores of emphysema: a row a scan, and how well they agree with the true ones."""

from math import isnan
from pathlib import Path

import numpy as np
from ignite.engine import Engine

from ..files import write_json
from ..metrics.agreement import agreement, confusion_table, linear_kappa
from ..metrics.confusion_figure import draw_confusion, row_shares
from ..metrics.emphysema_scores import CLE, PSE
from .score_table import ScoreTable

SCALES = {"cle": CLE, "pse": PSE}


class EmphysemaScoreTable(ScoreTable):
    """As :class:`ScoreTable`; the mean also holds ``cle_accuracy`` and ``cle_kappa`` (linear weights), the same of PSE,
    and ``kappa``, the mean of both.

    A row needs ``cle_score`` and ``cle_truth``, and the same of PSE. A kappa is None where one score is all there is.

    Args:
        agreement_path: where to write :func:`..metrics.agreement.agreement` of both (json), and beside it a picture of
            each confusion, ``<name>_cle.png`` and ``<name>_pse.png``; they need the eval extra.
    """

    def __init__(self, path: str | Path, *, log_each: bool = False, agreement_path: str | Path | None = None) -> None:
        super().__init__(path, log_each=log_each)
        self.agreement_path = None if agreement_path is None else Path(agreement_path)

    def column(self, name: str) -> list[int]:
        return [row[name] for row in self.rows]

    def confusion(self, subtype: str) -> np.ndarray:
        """Counts ``(truth, prediction)``."""
        truth, found = (self.column(f"{subtype}_{kind}") for kind in ("truth", "score"))
        return confusion_table(truth, found, len(SCALES[subtype].grades))

    def mean(self) -> dict[str, float | None]:
        means = super().mean()
        kappas = []
        for subtype in SCALES if self.rows else ():
            table = self.confusion(subtype)
            kappa, _ = linear_kappa(table)
            kappas.append(kappa)
            means[f"{subtype}_accuracy"] = float(table.trace() / table.sum())
            means[f"{subtype}_kappa"] = None if isnan(kappa) else kappa
        defined = [kappa for kappa in kappas if not isnan(kappa)]
        return {**means, "kappa": sum(defined) / len(defined) if defined else None}

    def write(self, engine: Engine) -> None:
        super().write(engine)
        if self.agreement_path is not None:
            found = {
                subtype: agreement(self.column(f"{subtype}_truth"), self.column(f"{subtype}_score"), len(scale.grades))
                for subtype, scale in SCALES.items()
            }
            write_json(self.agreement_path, found)
            for subtype, scale in SCALES.items():
                picture = self.agreement_path.with_name(f"{self.agreement_path.stem}_{subtype}.png")
                draw_confusion(scale.grades, row_shares(self.confusion(subtype)), picture)
