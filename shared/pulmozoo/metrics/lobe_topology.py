"""Whether five lobes lie to each other as lobes do: each in one piece, parted where anatomy parts them."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from scipy import ndimage

NAMES = {1: "lul", 2: "lll", 3: "rul", 4: "rll", 5: "rml"}
NEIGHBOURS = ((1, 2), (3, 4), (3, 5), (4, 5))  # of the same lung; a fissure lies between the two
TOUCH_CM2 = 2.0  # less is no contact: lobes meet at corners, lungs in front of the heart
ONE_PIECE = 0.99  # share of a lobe that its largest part must hold

_CUBE = np.ones((3, 3, 3), dtype=bool)  # 26 neighbours

Pair = tuple[int, int]


def largest_part(mask: np.ndarray) -> float | None:
    """Share of a bool mask ``(X, Y, Z)`` that its largest 26-connected component holds; None if it is empty."""
    if not mask.any():
        return None
    parts, _ = ndimage.label(mask, _CUBE)
    sizes = np.bincount(parts.ravel())[1:]
    return float(sizes.max() / sizes.sum())


def boundary(lobes: np.ndarray, pairs: tuple[Pair, ...] = NEIGHBOURS) -> np.ndarray:
    """Voxels of lobes ``(X, Y, Z)`` that share a face with the other lobe of one of the pairs, bool."""
    found = np.zeros(lobes.shape, dtype=bool)
    for axis in range(3):
        before, after = _either_side(lobes, axis)
        met = np.zeros(before.shape, dtype=bool)
        for one, other in pairs:
            met |= ((before == one) & (after == other)) | ((before == other) & (after == one))
        for side in _either_side(found, axis):
            side |= met
    return found


def contacts_cm2(lobes: np.ndarray, spacing_mm: Sequence[float]) -> dict[Pair, float]:
    """Area of the voxel faces between each two lobes of ``(X, Y, Z)``.

    A slanted border has up to 1.7 times as much of them as it has area.
    """
    kinds = max(NAMES) + 1
    areas = np.zeros((kinds, kinds))
    for axis in range(3):
        before, after = _either_side(lobes, axis)
        met = before != after
        faces = np.bincount(before[met] * kinds + after[met], minlength=kinds**2)
        areas += faces.reshape(kinds, kinds) * np.prod(np.delete(spacing_mm, axis)) / 100
    return {(one, other): float(areas[one, other] + areas[other, one]) for one, other in combinations(NAMES, 2)}


def topology_numbers(lobes: np.ndarray, spacing_mm: Sequence[float]) -> dict[str, float | str | None]:
    """How the lobes ``(X, Y, Z)`` lie.

    ``<lobe>_largest_part_percent`` (None where the lobe is missing); ``connected_lobes``, those that are in one piece
    but for 1 %; ``<one>_<other>_contact_cm2`` of the lobes of one lung; ``missing_neighbours`` and
    ``wrong_neighbours``: pairs that should touch and do not, or the other way round, as ``rul-rll rml-rll``; empty is
    right.
    """
    numbers: dict[str, float | str | None] = {}
    shares = {name: largest_part(lobes == lobe) for lobe, name in NAMES.items()}
    for name, share in shares.items():
        numbers[f"{name}_largest_part_percent"] = None if share is None else 100 * share
    numbers["connected_lobes"] = sum(share is not None and share >= ONE_PIECE for share in shares.values())
    contacts = contacts_cm2(lobes, spacing_mm)
    for one, other in NEIGHBOURS:
        numbers[f"{NAMES[one]}_{NAMES[other]}_contact_cm2"] = contacts[one, other]
    touching = {pair for pair, area in contacts.items() if area >= TOUCH_CM2}
    numbers["missing_neighbours"] = _named(set(NEIGHBOURS) - touching)
    numbers["wrong_neighbours"] = _named(touching - set(NEIGHBOURS))
    return numbers


def _either_side(volume: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Views of the voxels before and after each face across an axis."""
    along = np.moveaxis(volume, axis, 0)
    return along[:-1], along[1:]


def _named(pairs: set[Pair]) -> str:
    return " ".join(f"{NAMES[one]}-{NAMES[other]}" for one, other in sorted(pairs))
