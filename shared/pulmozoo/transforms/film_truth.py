"""What is known of a film: the mask of its pneumothorax, or only whether there is one."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.transforms import LoadImage, Transform


class LoadFilmTruthd(Transform):
    """``data[key]``: the path of a mask becomes ``(1, X, Y)`` with the film's axes, a number 0 or 1 a tensor ``()``."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.load = LoadImage(ensure_channel_first=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        truth = data[self.key]
        return {**data, self.key: torch.tensor(truth) if isinstance(truth, int | float) else self.load(truth)}
