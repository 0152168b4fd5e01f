"""What a radiologist reads off a lobe map: volume and density of each lobe."""

from collections.abc import Hashable, Mapping
from typing import Any

from monai.data import MetaTensor
from monai.transforms import Transform
from torch import Tensor

from ..bundle.errors import BadInput
from .densitometry import density_histograms, density_numbers


def lobe_numbers(
    ct_hu: Tensor, labels: Tensor, voxel_ml: float, label_names: Mapping[str, str]
) -> dict[str, float | None]:
    """The :func:`~.densitometry.density_numbers` of each lobe and of all, ``<lobe>_volume_ml``, ``lungs_mean_hu`` ...

    Args:
        ct_hu: integers from -1024, any shape.
        labels: integers of the same shape.
        voxel_ml: volume of a voxel.
        label_names: ``{"1": "left upper lobe", ...}``; ``"0"`` is background.
    """
    ids = {int(index): name.replace(" ", "_") for index, name in label_names.items() if int(index) > 0}
    histograms = density_histograms(ct_hu, labels, max(int(labels.max()), *ids) + 1)
    parts = {name: histograms[index] for index, name in ids.items()}
    parts["lungs"] = histograms[list(ids)].sum(dim=0)
    return {
        f"{part}_{quantity}": value
        for part, histogram in parts.items()
        for quantity, value in density_numbers(histogram, voxel_ml).items()
    }


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
