"""What both kinds of emphysema in the phantom share: which lung they may take, how much of it, and the air in it."""

import torch
from torch import Tensor

from ..bundle.errors import BadInput
from .fields import Draws, Points
from .fissures import LungBox
from .scene import Scene, Subject
from .trees import bend

SOLID_HU = -500.0  # denser tissue is no lung that could be destroyed: nodule, plaque, fissure, wall of an airway
PRUNED_HU, KEPT_HU = -400.0, 50.0  # fine vessels, as dense as the first, go with the tissue; the second ones stay
REMNANT = 0.14  # of the tissue that even the worst destruction leaves


def free_lung(scene: Scene) -> Tensor:
    """Where a disease may put its label, bool ``(X, Y, Z)``: aerated lung and its vessels that no other has taken."""
    lung = (scene.lobes > 0) & (scene.airways == 0) & ~scene.diseased
    return lung & ((scene.hu < SOLID_HU) | (scene.vessels > 0))


def check_percent(name: str, percent: float, most: float) -> None:
    """Raises BadInput for a share of the lungs that a disease cannot take."""
    if not 0 <= percent <= most:
        raise BadInput(f"percent of {name} must be from 0 to {most:g}, got {percent!r}")


def level_of(score: Tensor, survey: Scene, percent: float) -> float:
    """The level above which a score ``(X, Y, Z)`` on the survey holds ``percent`` of the lungs, of what is free there.

    Raises BadInput where there are not as many voxels with a score (above minus infinity).
    """
    free = score[free_lung(survey) & score.isfinite()]
    wanted = round(percent / 100 * int((survey.lobes > 0).sum()))
    if wanted > len(free):
        most = 100 * len(free) / int((survey.lobes > 0).sum())
        raise BadInput(f"percent is {percent:g}: this chest has room for at most {most:.1f} percent; ask for less")
    if wanted == 0:
        return 1e30  # no score is as high; with infinity smoothstep would give NaN
    return float(free.kthvalue(len(free) - wanted + 1).values)


def take_tissue(hu: Tensor, share: Tensor, air_hu: float) -> None:
    """Turn a share of each voxel ``(X, Y, Z)`` into air, in place; thick vessels that run through it stay."""
    vessel = ((hu - PRUNED_HU) / (KEPT_HU - PRUNED_HU)).clamp(0, 1)
    hu += (1 - REMNANT) * share * (1 - vessel) * (air_hu - hu)


def scattered(draws: Draws, box: LungBox, pitch_mm: float, jitter: float) -> Points:
    """One position in each cube of a lattice over a lung's box, off its middle by up to ``jitter`` of the pitch."""
    axes = [torch.arange(low, high + pitch_mm, pitch_mm) for low, high in zip(box.low, box.high, strict=True)]
    lattice = torch.cartesian_prod(*axes)
    return Points(lattice + draws.points(len(lattice), [-jitter * pitch_mm] * 3, [jitter * pitch_mm] * 3))


def height_in(box: LungBox, positions: Tensor) -> Tensor:
    """Height of positions ``(N, 3)`` in a lung: 0 at its base, 1 at its apex."""
    return (positions[:, 2] - box.low[2]) / box.height


def from_root(subject: Subject, positions: Tensor) -> Tensor:
    """Distance in mm of positions ``(N, 3)`` to the nearer of the two lung roots."""
    return torch.cdist(positions, bend(subject.chest, torch.tensor(subject.chest.mediastinum.roots))).amin(dim=1)
