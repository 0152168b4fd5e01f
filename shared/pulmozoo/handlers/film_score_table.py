"""Scores of films: a row each, and what can only be said of all of them together."""

from ..metrics.film_scores import accuracy, area_under_curve
from .score_table import ScoreTable


class FilmScoreTable(ScoreTable):
    """As :class:`ScoreTable`; the last row also holds ``accuracy`` and ``auc`` of the films' probabilities.

    The rows come from :class:`pulmozoo.metrics.film_scores.FilmScoresd`. ``auc`` is None where all films are alike.
    """

    def mean(self) -> dict[str, float | None]:
        means = super().mean()
        if not self.rows:
            return means
        probabilities = [row["probability"] for row in self.rows]
        truths = [row["truth"] for row in self.rows]
        both = set(truths) == {0, 1}
        auc = area_under_curve(probabilities, truths) if both else None
        return {**means, "accuracy": accuracy(probabilities, truths), "auc": auc}
