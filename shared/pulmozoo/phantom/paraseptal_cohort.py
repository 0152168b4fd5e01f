"""A cohort for learning to outline paraseptal emphysema: as that of COPDGene, but most subjects have some."""

from .emphysema import MOST_PSE_PERCENT, draw_emphysema
from .fields import Draws
from .paraseptal import Paraseptal
from .scene import Disease

ADDED_SHARE = 0.7  # of the subjects who would have none
LEAST_PERCENT = 1.0


def draw_paraseptal(draws: Draws) -> list[Disease]:
    """Both kinds of emphysema of one subject, the paraseptal one first; a percent of 0 is none."""
    paraseptal, centrilobular = draw_emphysema(draws)
    if isinstance(paraseptal, Paraseptal) and not paraseptal.percent and draws.chance(ADDED_SHARE):
        paraseptal = Paraseptal(draws.uniform(LEAST_PERCENT, MOST_PSE_PERCENT))
    return [paraseptal, centrilobular]
