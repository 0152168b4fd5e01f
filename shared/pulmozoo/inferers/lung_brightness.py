"""The least that a network must beat: how bright the lung fields of a film are, and a logistic regression on that."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from monai.inferers import Inferer
from monai.utils import convert_to_tensor, optional_import
from torch import Tensor

from ..bundle.errors import BadInput
from ..transforms.film_checks import LUNGS, stretched_thumbnail

make_pipeline, has_sklearn = optional_import("sklearn.pipeline", name="make_pipeline")
StandardScaler, _ = optional_import("sklearn.preprocessing", name="StandardScaler")
LogisticRegression, _ = optional_import("sklearn.linear_model", name="LogisticRegression")

NO_MASK = -20.0  # logit of every pixel: the baseline outlines nothing
LEAST = 1e-6  # probability, so that its logit is a number


def lung_brightness(film: Tensor) -> list[float]:
    """Mean and spread of brightness in the lung fields of ``(1, X, Y)``: both lungs' mean, then what they differ by.

    The lung fields are the boxes of :mod:`pulmozoo.transforms.film_checks`, the brightness is stretched to 0..1. A
    mirrored film has the same four numbers.
    """
    small = stretched_thumbnail(film)
    means, spreads = ([float(value(small[box])) for box in LUNGS] for value in (torch.mean, torch.std))
    return [number for left, right in (means, spreads) for number in ((left + right) / 2, abs(left - right))]


class LungBrightnessInferer(Inferer):
    """Logits of films ``(N, 3, H, W) -> (N, 2, H, W)``, of the film by its brightness, no mask; no network is asked.

    Args:
        training: films with ``image`` ``(3, H, W)`` and ``label``, a mask or a number above 0 where there is a
            pneumothorax; read when the first film comes.
    """

    def __init__(self, training: Iterable[Mapping[str, Any]]) -> None:
        super().__init__()
        if not has_sklearn:
            raise BadInput("the brightness baseline needs scikit-learn: pip install 'pulmozoo[eval]'")
        self.training = training
        self.classifier: Any = None

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        if self.classifier is None:
            self.classifier = fitted(self.training)
        chances = self.classifier.predict_proba(np.array([features(image) for image in inputs]))[:, 1]
        answer = torch.full((len(inputs), 2, *inputs.shape[2:]), NO_MASK)
        answer[:, 1] = torch.logit(torch.from_numpy(chances).float(), LEAST)[:, None, None]
        return answer.to(inputs.device)


def fitted(films: Iterable[Mapping[str, Any]]) -> Any:
    """The logistic regression on standardised :func:`lung_brightness`; raises BadInput for films of one kind."""
    rows, truths = [], []
    for film in films:
        rows.append(features(film["image"]))
        truths.append(bool((convert_to_tensor(film["label"]) > 0).any()))
    if len(set(truths)) < 2:
        raise BadInput(f"all {len(truths)} training films are alike: expected some with a pneumothorax, some without")
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(np.array(rows), truths)


def features(image: Tensor) -> list[float]:
    """:func:`lung_brightness` of a network's input ``(3, H, W)``; its normalisation is stretched away."""
    return lung_brightness(convert_to_tensor(image[:1]).cpu().mT)
