"""Lobes without a network: fissure planes at their mean places inside a lung mask."""

from collections.abc import Hashable, Mapping
from typing import Any

from monai.data import MetaTensor
from monai.transforms import Transform

from ..phantom.lobe_shape import shape_prior
from .grid import with_meta
from .lungs import lungs_from_lobes


class ShapePriord(Transform):
    """Put the lobes of :func:`shape_prior` under ``key``, from the lungs of the true lobes under ``truth_key``.

    The baseline that a network must beat: it is given the true lungs. Both are ``(1, X, Y, Z)``.
    """

    def __init__(self, key: str, truth_key: str) -> None:
        self.key = key
        self.truth_key = truth_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        truth: MetaTensor = data[self.truth_key]
        lungs = lungs_from_lobes(truth.as_tensor().cpu()[0])
        lobes = shape_prior(lungs, truth.affine)
        return {**data, self.key: with_meta(lobes[None], truth, truth.affine.clone())}
