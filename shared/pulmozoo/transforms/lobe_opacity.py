"""How much of each lobe is opaque, and the CT severity score that follows from it.

Source: Pan et al., "Time course of lung changes at chest CT during recovery from coronavirus disease 2019 (COVID-19)",
Radiology 2020;295:715-721: each lobe from 0 to 5 by the share involved (none, below 5 %, to 25 %, to 49 %, to 75 %,
above), the sum from 0 to 25. Ours: between 49 and 50 % is 3.
"""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.transforms import Transform
from monai.utils import convert_to_tensor
from torch import Tensor

from .lung_files import file_of, on_ct


def severity_score(percent: float) -> int:
    """0 to 5 by the percent of a lobe that is involved."""
    return (percent > 0) + (percent >= 5) + (percent > 25) + (percent >= 50) + (percent > 75)


def opacity_numbers(opaque: Tensor, labels: Tensor, label_names: Mapping[str, str]) -> dict[str, float | None]:
    """``<lobe>_opacity_percent`` and ``<lobe>_severity_score`` of each lobe, None where it is absent, and their sum.

    Args:
        opaque: bool, any shape.
        labels: integers of the same shape.
        label_names: ``{"1": "left upper lobe", ...}``; ``"0"`` is background.
    """
    names = {int(index): name.replace(" ", "_") for index, name in label_names.items() if int(index) > 0}
    size = max(int(labels.max()), *names) + 1
    voxels = torch.bincount(labels.flatten().int(), minlength=size).tolist()
    found = torch.bincount(labels[opaque].int(), minlength=size).tolist()
    numbers: dict[str, float | None] = {}
    total = 0
    for index, name in names.items():
        percent = 100 * found[index] / voxels[index] if voxels[index] else None
        score = None if percent is None else severity_score(percent)
        numbers |= {
            f"{name}_opacity_percent": None if percent is None else round(percent, 3),
            f"{name}_severity_score": score,
        }
        total += score or 0
    return numbers | {"ct_severity_score": total}


class LobeOpacityd(Transform):
    """Add :func:`opacity_numbers` of the lobes ``data[key]`` to ``data["result"]``.

    Args:
        source: a file with the opacities, or a folder with one for each scan, as
            :class:`~.lung_files.LungFilesd` takes them; on the grid of the CT.
        classes: the values in it that count as opaque: 1 of a mask, or those of a label map.
    """

    def __init__(
        self, key: str, ct_key: str, label_names: Mapping[str, str], source: str | Path, classes: Sequence[int]
    ) -> None:
        self.key, self.ct_key = key, ct_key
        self.label_names = label_names
        self.source = Path(source).expanduser()
        self.classes = torch.tensor(classes, dtype=torch.uint8)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        opacities = on_ct(file_of(self.source, data["scan"]), data[self.ct_key]).as_tensor()
        opaque = torch.isin(opacities, self.classes)
        numbers = opacity_numbers(opaque, convert_to_tensor(data[self.key]).cpu(), self.label_names)
        return {**data, "result": {**data.get("result", {}), **numbers}}
