from math import nextafter

import pytest

from pulmozoo.metrics.emphysema_scores import CLE, PSE

# Scores by their smallest share (fact sheet, section 3); score 2 is 5 to 10 %, as the table says and the text does not.
TABLES = [(CLE, [0, 0.01, 0.05, 0.1, 0.2, 0.3]), (PSE, [0, 0.01, 0.05])]
either = pytest.mark.parametrize(("scale", "lower"), TABLES, ids=["CLE", "PSE"])


@either
def test_intervals_are_half_open(scale, lower):
    for score, share in enumerate(lower):
        assert scale.score(share) == score
        assert scale.score(nextafter(share, 2)) == score
        if score:
            assert scale.score(nextafter(share, 0)) == score - 1
    assert scale.score(1.0) == len(lower) - 1


@either
def test_interval_of_a_score_holds_what_gets_that_score(scale, lower):
    for score, first in enumerate(lower):
        low, high = scale.interval(score)
        assert low == first
        assert high == ([*lower, 1.0001])[score + 1]
        assert scale.score((low + min(high, 1.0)) / 2) == score


def test_grades_are_those_of_the_fleischner_society():
    assert CLE.grades == ("absent", "trace", "mild", "moderate", "confluent", "advanced destructive")
    assert PSE.grades == ("absent", "mild", "substantial")
