"""How far the surfaces of two lobe maps lie apart."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.metrics import compute_hausdorff_distance
from monai.transforms import Transform, generate_spatial_bounding_box
from torch import Tensor
from torch.nn import functional as F


def hd95_mm(prediction: Tensor, truth: Tensor, spacing_mm: Sequence[float]) -> float | None:
    """95th percentile of the surface distances of two masks ``(1, X, Y, Z)`` in mm; None where one is empty.

    MONAI's: the larger one of both directions.
    """
    if not (prediction.any() and truth.any()):
        return None
    start, end = generate_spatial_bounding_box(prediction | truth)
    window = (slice(None), *(slice(low, high) for low, high in zip(start, end, strict=True)))
    # a voxel around: where a mask ends at the edge of the volume MONAI finds no surface, and no distance
    found, wanted = (F.pad(mask[window][None].float(), (1,) * 6) for mask in (prediction, truth))
    distance = compute_hausdorff_distance(
        found,
        wanted,
        include_background=True,
        percentile=95,
        spacing=list(spacing_mm),
    )
    return float(distance)


class LobeHd95d(Transform):
    """Add ``<label name>_hd95_mm`` and ``mean_hd95_mm`` of ``data[key]`` against ``data[truth_key]`` to
    ``data["result"]``; both are ``(1, X, Y, Z)`` labels on one grid."""

    def __init__(self, key: str, truth_key: str, label_names: Mapping[str, str]) -> None:
        self.key = key
        self.truth_key = truth_key
        self.names = [label_names[str(index)].replace(" ", "_") for index in range(1, len(label_names))]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        spacing_mm = data[self.truth_key].pixdim.tolist()
        prediction, truth = (data[key].as_tensor().cpu() for key in (self.key, self.truth_key))
        result = {
            f"{name}_hd95_mm": hd95_mm(prediction == label, truth == label, spacing_mm)
            for label, name in enumerate(self.names, start=1)
        }
        known = [distance for distance in result.values() if distance is not None]
        result["mean_hd95_mm"] = sum(known) / len(known) if known else None
        return {**data, "result": {**data.get("result", {}), **result}}
