"""What a radiologist reads off a map of tissue patterns: how much of the lungs each of them takes."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Transform
from monai.utils import convert_to_tensor
from torch import Tensor

HEALTHY = 1


def pattern_percents(labels: Tensor, label_names: Mapping[str, str]) -> dict[str, float | None]:
    """``<pattern>_percent`` of the labelled voxels, and ``disease_percent``, all but healthy; None without a voxel.

    Args:
        labels: integers of any shape; 0 is no lung, 1 healthy.
        label_names: ``{"1": "healthy", ...}``; ``"0"`` is background.
    """
    ids = {int(index): name.replace(" ", "_") for index, name in label_names.items() if int(index) > 0}
    counts = torch.bincount(labels.flatten().long(), minlength=max(ids) + 1)[list(ids)]
    total = int(counts.sum())
    percents = (100 * counts.double() / total).tolist() if total else [None] * len(ids)
    named = {index: None if value is None else round(value, 2) for index, value in zip(ids, percents, strict=True)}
    healthy = named[HEALTHY]
    return {
        **{f"{name}_percent": named[index] for index, name in ids.items()},
        "disease_percent": None if healthy is None else round(100 - healthy, 2),
    }


class PatternNumbersd(Transform):
    """Add to ``data["result"]`` the volume of the lungs (mL) and :func:`pattern_percents` of both lungs and of each.

    Where there are lobes, those of each lobe, too, ``left_upper_lobe_ground_glass_percent`` and so on.

    Args:
        label_names: of the patterns.
        lobe_names: of the lobe labels.
        lungs_key, lobes_key: on the grid of the labels; left lung 1, right 2.
    """

    def __init__(
        self,
        key: str,
        label_names: Mapping[str, str],
        lobe_names: Mapping[str, str],
        *,
        lungs_key: str = "lungs",
        lobes_key: str = "lobes",
    ) -> None:
        self.key = key
        self.label_names, self.lobe_names = label_names, lobe_names
        self.lungs_key, self.lobes_key = lungs_key, lobes_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        mapped: MetaTensor = data[self.key]
        labels, sides = mapped.as_tensor().cpu(), convert_to_tensor(data[self.lungs_key]).cpu()
        voxel_ml = float(mapped.pixdim.prod()) / 1000
        parts = {"": labels, "left_lung_": labels[sides == 1], "right_lung_": labels[sides == 2]}
        if self.lobes_key in data:
            lobes = convert_to_tensor(data[self.lobes_key]).cpu()
            parts |= {
                f"{name.replace(' ', '_')}_": labels[lobes == int(index)]
                for index, name in self.lobe_names.items()
                if int(index) > 0
            }
        numbers: dict[str, float | None] = {"lungs_volume_ml": round(int((labels > 0).sum()) * voxel_ml, 2)}
        for prefix, part in parts.items():
            numbers |= {f"{prefix}{key}": value for key, value in pattern_percents(part, self.label_names).items()}
        return {**data, "result": {**data.get("result", {}), **numbers}}
