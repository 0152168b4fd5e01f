"""A cohort for learning to outline paraseptal emphysema: as that of COPDGene, but most subjects have some."""

from dataclasses import replace

from .emphysema import MOST_PSE_PERCENT, draw_emphysema
from .exam import Exam
from .fields import Draws
from .paraseptal import Paraseptal
from .scene import Disease

ADDED_SHARE = 0.7  # of the subjects who would have none
LEAST_PERCENT = 1.0
# At 2 mm and 3 mm walls and air of a cyst run into each other, and there is next to nothing to see.
PIXEL_MM, SLICE_MM = 1.0, 1.5
SLAB_SLICES = 24
WIDEST_MM = 340.0
MOST_OFF_CENTRE = 0.3  # of the height of the scan


def draw_paraseptal(draws: Draws) -> list[Disease]:
    """Both kinds of emphysema of one subject, the paraseptal one first; a percent of 0 is none."""
    paraseptal, centrilobular = draw_emphysema(draws)
    if isinstance(paraseptal, Paraseptal) and not paraseptal.percent and draws.chance(ADDED_SHARE):
        paraseptal = Paraseptal(draws.uniform(LEAST_PERCENT, MOST_PSE_PERCENT))
    return [paraseptal, centrilobular]


def thin_slab(exam: Exam, draws: Draws) -> Exam:
    """Thin slices of small pixels, at a height of their own: a slab holds few more voxels than a coarse chest."""
    width_mm = min(exam.shape[0] * exam.spacing_mm[0], WIDEST_MM)
    middle = draws.uniform(-MOST_OFF_CENTRE, MOST_OFF_CENTRE) * exam.shape[2] * exam.spacing_mm[2]
    shape = (round(width_mm / PIXEL_MM), round(width_mm / PIXEL_MM), SLAB_SLICES)
    centre_mm = (*exam.scanner.centre_mm[:2], middle)
    scanner = replace(exam.scanner, slice_mm=SLICE_MM, centre_mm=centre_mm, turn_degrees=(0.0, 0.0, 0.0))
    return Exam(shape, (PIXEL_MM, PIXEL_MM, SLICE_MM), scanner, exam.axes)
