"""Which diseases a cohort can have, by the name that ``write_cohort`` and ``pulmozoo phantom`` take."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..bundle.errors import BadInput
from .emphysema import draw_emphysema, write_emphysema_table
from .exam import Exam
from .fields import Draws
from .ild_cohort import ANNOTATIONS, draw_ild, high_resolution, write_annotations
from .paraseptal_cohort import draw_paraseptal, thin_slab
from .scene import Disease


class DiseaseCohort(NamedTuple):
    """What a cohort of ill people needs.

    Args:
        draw: the diseases of one subject, always of the same names in the same order; what a subject has not, it has to
            the extent of nothing.
        write_table: writes what there is to say of the subjects (folder, ids) once all label files are there.
        scan: how a subject is scanned where the cohort's spacing is not given.
        label: folder of the label that a bundle learns, if ``write_table`` makes one; the lobes have a key of their own
            then.
    """

    draw: Callable[[Draws], list[Disease]]
    write_table: Callable[[Path, Sequence[str]], object] | None = None
    scan: Callable[[Exam, Draws], Exam] | None = None
    label: str | None = None


COHORTS = {
    "emphysema": DiseaseCohort(draw_emphysema, write_emphysema_table),
    "paraseptal": DiseaseCohort(draw_paraseptal, write_emphysema_table, thin_slab),
    "ild": DiseaseCohort(draw_ild, write_annotations, high_resolution, ANNOTATIONS),
}


def disease_cohort(disease: str) -> DiseaseCohort:
    """A cohort by its name; raises BadInput for one that is not known."""
    if disease not in COHORTS:
        raise BadInput(f"there is no disease {disease!r} of a cohort: choose {' or '.join(COHORTS)}")
    return COHORTS[disease]


def disease_names(disease: str) -> list[str]:
    """Names of the labels that each subject of a cohort has."""
    return [each.name for each in disease_cohort(disease).draw(Draws(0))]
