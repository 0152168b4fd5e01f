"""Remove islands and holes from a pulmonary lobe label map.

Source: released inference of CTSU-Net, DIAGNijmegen/bodyct-pulmonary-lobe-segmentation (the paper has no clean-up).
Labels: 0 background, 1 LUL, 2 LLL, 3 RUL, 4 RLL, 5 RML.
Where the source leaves it open: lungs and lobes are treated in label order, each on what the one before left;
a tie goes to the smallest label.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ensure_tuple
from scipy import ndimage

LUNGS: tuple[tuple[int, ...], ...] = ((1, 2), (3, 4, 5))
LOBES = (1, 2, 3, 4, 5)
ROUNDS = 5
_CUBE = np.ones((3, 3, 3), dtype=bool)  # 26 neighbours

Box = tuple[slice, ...]


def _grown(box: Sequence[slice], shape: Sequence[int]) -> Box:
    """The box one voxel larger on each side, cut at the volume."""
    return tuple(slice(max(s.start - 1, 0), min(s.stop + 1, n)) for s, n in zip(box, shape, strict=True))


def _bounding_box(mask: np.ndarray) -> Box | None:
    """Smallest box around the mask, or None if the mask is empty."""
    box: list[slice] = []
    for axis in range(mask.ndim):
        hits = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        if not hits.size:
            return None
        box.append(slice(int(hits[0]), int(hits[-1]) + 1))
    return tuple(box)


def _mask(labels: np.ndarray, values: Sequence[int]) -> np.ndarray:
    """Where a map has one of the values, which are consecutive; several times faster than ``np.isin``."""
    mask: np.ndarray = labels == values[0] if len(values) == 1 else (labels >= values[0]) & (labels <= values[-1])
    return mask


def _ring_majority(labels: np.ndarray, part: np.ndarray) -> int:
    """Most frequent non-zero label among the 26-neighbours of ``part``; the smallest on a tie, 0 if there is none."""
    ring = ndimage.binary_dilation(part, _CUBE) & ~part
    votes = np.bincount(labels[ring], minlength=2)
    votes[0] = 0
    return int(votes.argmax())


def _relabel_parts(labels: np.ndarray, parts: np.ndarray, keep: int, to_zero: bool = False) -> bool:
    """Give each numbered part but ``keep`` its ring's majority (or 0), in place; True if there was such a part.

    Parts of one numbering never touch each other, so their order does not matter.
    """
    changed = False
    for number, box in enumerate(ndimage.find_objects(parts), start=1):
        if box is None or number == keep:
            continue
        window = _grown(box, parts.shape)
        part = parts[window] == number
        labels[window][part] = 0 if to_zero else _ring_majority(labels[window], part)
        changed = True
    return changed


def _relabel_islands(labels: np.ndarray, values: Sequence[int], to_zero: bool = False) -> bool:
    """All components of the union of ``values`` but the largest take their ring's majority; True if there were any."""
    mask = _mask(labels, values)
    box = _bounding_box(mask)
    if box is None:
        return False
    # One voxel of margin, so that rings are complete.
    window = _grown(box, labels.shape)
    parts, count = ndimage.label(mask[window], _CUBE)
    if count < 2:
        return False
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return _relabel_parts(labels[window], parts, keep=int(sizes.argmax()), to_zero=to_zero)


def _fill_holes(labels: np.ndarray, values: Sequence[int]) -> None:
    """Background parts (6-connected) shut in by the union of ``values`` take their ring's majority, in place."""
    mask = _mask(labels, values)
    box = _bounding_box(mask)
    if box is None:
        return
    # The padding makes one outer background, which then is part 1 because it holds the first voxel.
    outside, _ = ndimage.label(~np.pad(mask[box], 1))
    holes = (outside > 1)[1:-1, 1:-1, 1:-1]
    parts, _ = ndimage.label(holes, _CUBE)
    _relabel_parts(labels[box], parts, keep=0)


def clean_up_lobes(labels: np.ndarray) -> np.ndarray:
    """Lobe label map without islands and holes; the input stays as it is.

    1. In each lung the largest component stays, each other one takes the majority label of its ring.
    2. Holes of each lung take the majority label of their ring.
    3. Up to five rounds: each non-largest component of a lobe takes the majority label of its ring; what is left
       after them becomes 0.

    The ring is the set of 26-neighbours of a component; background does not vote, and without a vote the answer is 0.

    Args:
        labels: ``(X, Y, Z)`` integers 0 to 5.

    A second pass changes nothing on maps that are lungs with islands and holes; it may on noise, where step 3 opens
    new holes.

    Returns the same shape and type; raises ValueError for another rank or another label.
    """
    if labels.ndim != 3:
        raise ValueError(f"lobe labels must have shape (X, Y, Z), got {labels.shape}")
    if labels.size and (labels.min() < 0 or labels.max() > LOBES[-1]):
        raise ValueError(f"lobe labels must lie in 0..5, got {labels.min()}..{labels.max()}")
    cleaned = labels.astype(np.uint8)
    lungs = _bounding_box(cleaned > 0)
    if lungs is not None:
        _clean_up(cleaned[_grown(lungs, cleaned.shape)])
    return cleaned.astype(labels.dtype)


def _clean_up(labels: np.ndarray) -> None:
    """The three steps of :func:`clean_up_lobes`, in place."""
    for lung in LUNGS:
        _relabel_islands(labels, lung)
    for lung in LUNGS:
        _fill_holes(labels, lung)
    for _ in range(ROUNDS):
        # A list, not a generator: every lobe has its turn in every round.
        if not any([_relabel_islands(labels, (lobe,)) for lobe in LOBES]):
            break
    for lobe in LOBES:
        _relabel_islands(labels, (lobe,), to_zero=True)


def _clean_tensor(labels: torch.Tensor) -> torch.Tensor:
    """``(1, X, Y, Z)`` labels, cleaned, with the meta data of the input."""
    if labels.ndim != 4 or labels.shape[0] != 1:
        raise ValueError(f"lobe labels must have shape (1, X, Y, Z), got {tuple(labels.shape)}")
    plain = labels.as_tensor() if isinstance(labels, MetaTensor) else labels
    cleaned = torch.from_numpy(clean_up_lobes(plain[0].cpu().numpy()))[None].to(plain.device)
    return MetaTensor(cleaned).copy_meta_from(labels) if isinstance(labels, MetaTensor) else cleaned


class CleanUpLobesd(MapTransform):
    """Dictionary form of :func:`clean_up_lobes` for ``(1, X, Y, Z)`` label tensors; type, device and affine stay."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return {**data, **{key: _clean_tensor(data[key]) for key in ensure_tuple(self.keys)}}
