"""What is known of the emphysema in a scan: scores, and where they are painted a label map."""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Transform
from torch import Tensor

from ..bundle.errors import BadInput
from ..losses.dram import UNPAINTED
from ..metrics.emphysema_scores import CLE, PSE
from .emphysema_grid import labels_on_working_grid
from .grid import with_meta
from .lung_files import on_ct
from .upright_box import box_of, cut, turned, upright

CENTRILOBULAR, PARASEPTAL = 1, 2
SCALES = {"cle_score": (CLE, CENTRILOBULAR), "pse_score": (PSE, PARASEPTAL)}


class EmphysemaTruthd(Transform):
    """Give a scan ``cle_score`` and ``pse_score``, and ``label`` where somebody painted the emphysema.

    Paths under ``centrilobular`` and ``paraseptal`` (masks) or under ``label`` (1 centrilobular, 2 paraseptal) become a
    label map ``(1, X, Y, Z)`` on the grid of the CT. Scores that are in the sample stay; others are those of the share
    of the lungs that is labelled.

    Args:
        ct_key, lungs_key: on the scan's grid.

    Raises BadInput for other labels, or without both label map and scores.
    """

    def __init__(self, ct_key: str = "ct_hu", lungs_key: str = "lungs") -> None:
        self.ct_key, self.lungs_key = ct_key, lungs_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        made = dict(data)
        label = self.painted(data)
        if label is not None:
            made["label"] = label
        for key, (scale, subtype) in SCALES.items():
            if key not in made and label is None:
                raise BadInput(f"{data['image'].meta['filename_or_obj']} has neither {key} nor a label map: give one")
            if key not in made and label is not None:
                made[key] = scale.score(share(label.as_tensor() == subtype, data[self.lungs_key]))
        return made

    def painted(self, data: Mapping[Hashable, Any]) -> MetaTensor | None:
        """The label map, if there is one."""
        ct = data[self.ct_key]
        if "centrilobular" in data:
            label = on_ct(Path(data["centrilobular"]), ct)
            label[on_ct(Path(data["paraseptal"]), ct) > 0] = PARASEPTAL
            return label
        if "label" not in data:
            return None
        label = data["label"] if isinstance(data["label"], MetaTensor) else on_ct(Path(data["label"]), ct)
        if label.max() > PARASEPTAL:
            raise BadInput(
                f"the label map holds {int(label.max())}: expected 0, {CENTRILOBULAR} centrilobular and "
                f"{PARASEPTAL} paraseptal emphysema"
            )
        return label


class PaintedOnGridd(Transform):
    """Add ``painted``, the label map on the working grid ``(1, D, H, W)``; 255 throughout where nobody painted.

    Takes what :class:`EmphysemaTruthd` and :class:`~.emphysema_grid.EmphysemaGridd` left.

    Args:
        released: how :class:`~.emphysema_grid.EmphysemaGridd` prepared the scan.
        ct_key, label_key: on the scan's grid.
        image_key: the network's input, which tells the box it was cut from.
    """

    def __init__(
        self, *, released: bool = False, ct_key: str = "ct_hu", label_key: str = "label", image_key: str = "image"
    ) -> None:
        self.released = released
        self.ct_key, self.label_key, self.image_key = ct_key, label_key, image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        image = data[self.image_key]
        painted = torch.full(image.shape, UNPAINTED)
        if self.label_key in data:
            turn, affine = upright(data[self.ct_key])
            label = cut(turned(data[self.label_key], turn), box_of(image, affine))
            painted = labels_on_working_grid(label, image.shape[1:], released=self.released)
        return {**data, "painted": with_meta(painted.to(torch.uint8), image, image.affine)}


def share(mask: Tensor, lungs: Tensor) -> float:
    """Share of the lungs that is in a mask; both of one shape."""
    inside = torch.as_tensor(lungs) > 0
    return float((mask & inside).sum() / inside.sum().clamp(min=1))


def loss_batch(
    batch: Mapping[str, Any], device: str | torch.device | None = None, non_blocking: bool = False, **kwargs: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    """``prepare_batch`` of a trainer: network input, and the truth as :class:`..losses.dram.DRAMLoss` takes it."""
    moved = {
        key: torch.as_tensor(batch[key]).to(device=device, non_blocking=non_blocking, **kwargs)
        for key in ("image", "lung", "image_hu", "painted", *SCALES)
    }
    return moved.pop("image"), moved
