"""A cohort as COPDGene's: who has which emphysema and how much, and the table of what its label files hold.

Scores are shared out roughly as in the development set of Xie et al., Scientific Reports 2023,
https://doi.org/10.1038/s41598-023-40116-6 (CLE 782, 431, 478, 430, 275, 111; PSE 1145, 739, 623).
"""

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from ..files import write_rows
from ..metrics.emphysema_scores import CLE, PSE, Scale
from .centrilobular import Centrilobular
from .fields import Draws
from .lobe_shape import LOBES
from .paraseptal import Paraseptal
from .scene import Disease

FREE_SHARE = 0.3  # of the subjects, who have no emphysema at all
CLE_SHARES = (0.1, 0.21, 0.22, 0.2, 0.15, 0.12)  # of the others, by score
PSE_SHARES = (0.34, 0.34, 0.32)
MOST_CLE_PERCENT, MOST_PSE_PERCENT = 55.0, 15.0
TABLE = "emphysema.csv"
SCORES = {  # folder of the labels: scale, column of the score in COPDGene's table, name in the columns of percents
    Centrilobular.name: (CLE, "CT_Visual_Emph_Severity_P1", "cle"),
    Paraseptal.name: (PSE, "CT_Visual_Emph_Paraseptal_P1", "pse"),
}
PARTS = {  # prefix of a column: numbers of its lobes
    "": tuple(LOBES.values()),
    "left_lung_": (LOBES["left upper"], LOBES["left lower"]),
    "right_lung_": (LOBES["right upper"], LOBES["right lower"], LOBES["right middle"]),
    **{f"{name.replace(' ', '_')}_lobe_": (number,) for name, number in LOBES.items()},
}


def draw_emphysema(draws: Draws) -> list[Disease]:
    """Both kinds of emphysema of one subject, the paraseptal one first; a percent of 0 is none."""
    if draws.chance(FREE_SHARE):
        return [Paraseptal(0.0), Centrilobular(0.0)]
    pse = _draw_percent(draws, PSE, PSE_SHARES, MOST_PSE_PERCENT)
    cle = _draw_percent(draws, CLE, CLE_SHARES, MOST_CLE_PERCENT)
    return [Paraseptal(pse), Centrilobular(cle)]


def _draw_percent(draws: Draws, scale: Scale, shares: Sequence[float], most_percent: float) -> float:
    """A percent of the lungs of a random score, 0 for score 0."""
    at, score = draws.uniform(0, sum(shares)), 0
    while score < len(shares) - 1 and at >= shares[score]:
        at, score = at - shares[score], score + 1
    if score == 0:
        return 0.0
    low, high = (100 * share for share in scale.interval(score))
    return draws.uniform(low, min(high, most_percent))


def write_emphysema_table(folder: Path, subjects: Sequence[str]) -> Path:
    """Write ``emphysema.csv``: scores and percents of each subject by its label files; returns its path."""
    rows = [emphysema_row(folder, subject) for subject in subjects]
    write_rows(folder / TABLE, rows, rows[0])
    return folder / TABLE


def emphysema_row(folder: Path, subject: str) -> dict[str, str | int | float]:
    """One subject's scores of the whole lungs, and percents of the lungs, each lung and each lobe; empty where a part
    is not in the scan."""
    lobes = _read(folder / "labels" / f"{subject}.nii.gz")
    volumes = np.bincount(lobes.ravel(), minlength=len(LOBES) + 1)
    row: dict[str, str | int | float] = {"subject": subject}
    percents: dict[str, str | float] = {}
    for name, (scale, column, short) in SCORES.items():
        affected = np.bincount(lobes[_read(folder / name / f"{subject}.nii.gz") > 0], minlength=len(volumes))
        row[column] = scale.score(float(affected[1:].sum() / volumes[1:].sum()))
        for prefix, numbers in PARTS.items():
            percents[f"{prefix}{short}_percent"] = _percent(affected[list(numbers)].sum(), volumes[list(numbers)].sum())
    return row | percents


def _read(path: Path) -> np.ndarray:
    return np.asarray(nib.Nifti1Image.from_filename(path).dataobj)


def _percent(affected: int, volume: int) -> str | float:
    return round(100 * float(affected / volume), 3) if volume else ""
