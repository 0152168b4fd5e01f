"""Scores of emphysema: a row a scan, and how well they agree with the true ones."""

from math import isnan
from pathlib import Path

from ignite.engine import Engine

from ..files import write_json
from ..metrics.agreement import agreement, confusion_table, linear_kappa
from ..metrics.emphysema_scores import CLE, PSE
from .score_table import ScoreTable

SCALES = {"cle": CLE, "pse": PSE}


class EmphysemaScoreTable(ScoreTable):
    """As :class:`ScoreTable`; the mean also holds ``cle_accuracy`` and ``cle_kappa`` (linear weights), the same of PSE,
    and ``kappa``, the mean of both.

    A row needs ``cle_score`` and ``cle_truth``, and the same of PSE. A kappa is None where one score is all there is.

    Args:
        agreement_path: where to write :func:`..metrics.agreement.agreement` of both (json), which needs the eval extra.
    """

    def __init__(self, path: str | Path, *, log_each: bool = False, agreement_path: str | Path | None = None) -> None:
        super().__init__(path, log_each=log_each)
        self.agreement_path = None if agreement_path is None else Path(agreement_path)

    def column(self, name: str) -> list[int]:
        return [row[name] for row in self.rows]

    def mean(self) -> dict[str, float | None]:
        means = super().mean()
        kappas = []
        for subtype, scale in SCALES.items() if self.rows else ():
            table = confusion_table(self.column(f"{subtype}_score"), self.column(f"{subtype}_truth"), len(scale.grades))
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
