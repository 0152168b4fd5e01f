"""What a radiologist reads off a lobe map: volume and mean density of each lobe."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Transform
from torch import Tensor

from ..bundle.errors import BadInput


def lobe_numbers(
    ct_hu: Tensor, labels: Tensor, voxel_ml: float, label_names: Mapping[str, str]
) -> dict[str, float | None]:
    """Volume (mL) and mean HU per lobe and over all lobes; the mean of an absent lobe is None.

    Args:
        ct_hu: CT in Hounsfield units, any shape.
        labels: integers of the same shape.
        voxel_ml: volume of a voxel.
        label_names: ``{"1": "left upper lobe", ...}``; ``"0"`` is background.
    """
    ids = {int(index): name for index, name in label_names.items() if int(index) > 0}
    size = max(ids) + 1
    flat = labels.flatten().long()
    count = torch.bincount(flat, minlength=size).double()
    total = torch.bincount(flat, weights=ct_hu.flatten().double(), minlength=size)
    numbers: dict[str, float | None] = {}
    for index, name in ids.items():
        key = name.replace(" ", "_")
        numbers[f"{key}_volume_ml"] = round(count[index].item() * voxel_ml, 2)
        numbers[f"{key}_mean_hu"] = round((total[index] / count[index]).item(), 2) if count[index] else None
    known = torch.tensor(sorted(ids))
    voxels = count[known].sum()
    numbers["lungs_volume_ml"] = round(voxels.item() * voxel_ml, 2)
    numbers["lungs_mean_hu"] = round((total[known].sum() / voxels).item(), 2) if voxels else None
    return numbers


class LobeNumbersd(Transform):
    """Add :func:`lobe_numbers` to ``data["result"]``; a scan without a single lobe voxel raises BadInput."""

    def __init__(self, key: str, ct_key: str, label_names: Mapping[str, str]) -> None:
        self.key = key
        self.ct_key = ct_key
        self.label_names = label_names

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        labels: MetaTensor = data[self.key]
        if not labels.any():
            raise BadInput("no lungs in view: expected a chest CT, but the network found no lobe; check the scan")
        voxel_ml = float(labels.pixdim.prod()) / 1000
        numbers = lobe_numbers(
            data[self.ct_key].as_tensor().cpu(), labels.as_tensor().cpu(), voxel_ml, self.label_names
        )
        return {**data, "result": {**data.get("result", {}), **numbers}}
