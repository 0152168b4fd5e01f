"""The grain of lung tissue that is too fine to be drawn as vessels."""

import math

from torch import Tensor

from .fields import Draws
from .filters import correlated_noise

NORMAL_TISSUE_HU = 130.0  # of normal lung above air
GRAIN_MM = 0.5  # sd of the Gaussian that correlates lung grain: gone after about 3 mm (emphysema_texture.md)


def lung_grain(
    hu: Tensor,
    aerated: Tensor,
    grain_hu: float,
    spacing_mm: tuple[float, float, float],
    draws: Draws,
    skew: float = 0.0,
) -> None:
    """Add grain of ``grain_hu`` (sd in HU, of normal lung) to painted HU ``(X, Y, Z)`` where tissue is ``aerated``.

    In place; where there is less tissue there is less grain, none in air. With a ``skew`` above 0 the bright grains are
    few and far brighter than the dark ones are dark, as fine vessels and septa are: the grain is log-normal, and
    ``skew`` the sd of its logarithm.
    """
    sx, sy, sz = spacing_mm
    # Voxels larger than the grain average it out.
    averaged = min(1.0, ((3 * GRAIN_MM) ** 3 / (sx * sy * sz)) ** 0.5)
    grain = correlated_noise(draws, hu.shape, (GRAIN_MM / sx, GRAIN_MM / sy, GRAIN_MM / sz)).to(hu.device)
    if skew:
        grain = (skew * grain - skew**2 / 2).exp().sub(1).div(math.sqrt(math.expm1(skew**2)))
    tissue = ((hu + 1000) / NORMAL_TISSUE_HU).clamp(0, 1.5)
    hu += aerated * tissue * grain * (grain_hu * averaged)
