"""Fleischner scores of emphysema: the share of the lungs that each visual score stands for, and the other way round.

Source: Xie et al., Scientific Reports 2023, https://doi.org/10.1038/s41598-023-40116-6, Table 1, and the published
program; a sentence of the paper that gives score 2 as 1 to 5 % contradicts both.
"""

from bisect import bisect_right
from typing import NamedTuple


class Scale(NamedTuple):
    """A visual score: score ``i`` is a share in ``[lower[i], lower[i + 1])``.

    Args:
        lower: smallest share of the lungs of each score.
        grades: what each score is called.
    """

    lower: tuple[float, ...]
    grades: tuple[str, ...]

    def interval(self, score: int) -> tuple[float, float]:
        """Smallest share of a score, and the first that is too large for it; all lung is a little less than 1.0001."""
        return (*self.lower, 1.0001)[score : score + 2]  # type: ignore[return-value]

    def score(self, share: float) -> int:
        """Score of a share of the lungs in [0, 1]."""
        return bisect_right(self.lower, share) - 1


CLE = Scale(
    lower=(0.0, 0.01, 0.05, 0.1, 0.2, 0.3),
    grades=("absent", "trace", "mild", "moderate", "confluent", "advanced destructive"),
)
PSE = Scale(lower=(0.0, 0.01, 0.05), grades=("absent", "mild", "substantial"))
