"""Subtypes without a network: low attenuation is paraseptal near the pleura, centrilobular elsewhere."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Transform
from scipy import ndimage

from ..losses.dram import LAA_HU
from ..metrics.emphysema_scores import CLE, PSE
from .emphysema_truth import CENTRILOBULAR, PARASEPTAL, share
from .grid import with_meta


def laa_by_depth(
    ct_hu: np.ndarray, lungs: np.ndarray, spacing_mm: np.ndarray, rim_mm: float, limit_hu: float
) -> np.ndarray:
    """Lung darker than a limit, 2 nearer to the pleura than ``rim_mm`` and 1 deeper; uint8 of one 3D shape."""
    depth_mm = ndimage.distance_transform_edt(np.pad(lungs > 0, 1), sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
    subtype = np.where(depth_mm < rim_mm, PARASEPTAL, CENTRILOBULAR)
    return (subtype * ((lungs > 0) & (ct_hu < limit_hu))).astype(np.uint8)


class LaaByDepthd(Transform):
    """Put the label map of :func:`laa_by_depth` under ``key``, and its percents and scores into ``data["result"]``.

    The baseline that a network must beat.

    Args:
        rim_mm: how deep paraseptal emphysema reaches.
        limit_hu: below it attenuation is low.
        ct_key, lungs_key: ``(1, X, Y, Z)`` on the scan's grid.
    """

    def __init__(
        self,
        key: str = "pred",
        *,
        rim_mm: float = 10.0,
        limit_hu: float = LAA_HU,
        ct_key: str = "ct_hu",
        lungs_key: str = "lungs",
    ) -> None:
        self.key = key
        self.rim_mm, self.limit_hu = rim_mm, limit_hu
        self.ct_key, self.lungs_key = ct_key, lungs_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        ct: MetaTensor = data[self.ct_key]
        lungs = torch.as_tensor(data[self.lungs_key]).cpu()
        found = laa_by_depth(
            ct.as_tensor()[0].cpu().numpy(), lungs[0].numpy(), ct.pixdim.numpy(), self.rim_mm, self.limit_hu
        )
        labels = torch.from_numpy(found)[None]
        numbers: dict[str, float | int] = {}
        for subtype, scale, label in (("cle", CLE, CENTRILOBULAR), ("pse", PSE, PARASEPTAL)):
            part = share(labels == label, lungs)
            numbers |= {f"{subtype}_score": scale.score(part), f"{subtype}_percent": round(100 * part, 3)}
        result = {**data.get("result", {}), **numbers}
        return {**data, self.key: with_meta(labels, ct, ct.affine.clone()), "result": result}
