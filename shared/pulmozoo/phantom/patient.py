"""Who is scanned: the few numbers from which the size and the tissues of a chest follow."""

import math
from dataclasses import dataclass

from .fields import Draws


@dataclass(frozen=True)
class Patient:
    """One person in the scanner.

    Args:
        female: sex.
        age: years.
        stature_m: height of the body.
        bmi: body mass index in kg/m2.
        inflation: standard deviations from a usual full inspiration: -2 breathed out, 2 and more hyperinflated.
        enhanced: whether contrast agent is in the blood.
        arms_down: whether the arms lie beside the trunk.
        collapsed: number of a lobe that has lost volume, 0 for none.
    """

    female: bool
    age: float
    stature_m: float
    bmi: float
    inflation: float
    enhanced: bool
    arms_down: bool
    collapsed: int

    @property
    def ageing(self) -> float:
        """0 in the young, 1 at 80 years."""
        return min(max((self.age - 30) / 50, 0.0), 1.2)


def draw_patient(draws: Draws) -> Patient:
    """One adult. Distributions are wide and rounded, not those of one country or hospital."""
    female = draws.chance(0.5)
    return Patient(
        female=female,
        age=draws.uniform(18, 92),
        stature_m=draws.normal(1.63, 0.07) if female else draws.normal(1.76, 0.075),
        bmi=min(max(math.exp(draws.normal(math.log(26), 0.2)), 15.5), 45),
        inflation=draws.uniform(1.2, 3) if draws.chance(0.15) else draws.normal(0, 1),
        enhanced=draws.chance(0.5),
        arms_down=draws.chance(0.2),
        collapsed=draws.integer(1, 5) if draws.chance(0.08) else 0,
    )
