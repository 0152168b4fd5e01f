"""Masks as SIIM-ACR writes them: pairs of gap and length, each gap counted from the end of the run before.

Pixels are counted down each column first. ``-1`` is an empty mask. On 4 x 4 pixels, ``2 3 4 2`` gives the rows
0100, 0010, 1010, 1000.
"""

from collections.abc import Sequence

import numpy as np

from ..bundle.errors import BadInput

EMPTY = "-1"


def read_runs(text: str, rows: int, columns: int, image_id: str) -> np.ndarray:
    """Mask ``(rows, columns)`` bool of one annotation; raises BadInput that names the image."""
    words = text.split()
    flat = np.zeros(rows * columns, dtype=bool)
    if words != [EMPTY]:
        if not words or len(words) % 2 or not all(word.isdecimal() for word in words):
            raise BadInput(
                f"image {image_id} has the run lengths {text[:40]!r}: expected pairs of gap and length, or {EMPTY} "
                "for none; take the file from its source again"
            )
        end = 0
        for gap, length in zip(words[::2], words[1::2], strict=True):
            start = end + int(gap)
            end = start + int(length)
            flat[start:end] = True
        if end > flat.size:
            raise BadInput(
                f"image {image_id} has runs up to pixel {end}: expected at most {flat.size} ({columns} x {rows}); are "
                "they those of another image, or absolute instead of relative?"
            )
    return flat.reshape(columns, rows).T


def read_all_runs(texts: Sequence[str], rows: int, columns: int, image_id: str) -> np.ndarray:
    """Mask ``(rows, columns)`` bool of everything that was annotated on an image."""
    masks = [read_runs(text, rows, columns, image_id) for text in texts]
    return np.logical_or.reduce(masks)


def write_runs(mask: np.ndarray) -> str:
    """The run lengths of a mask ``(rows, columns)``; a run may touch the last pixel."""
    flat = np.concatenate([[False], mask.T.ravel() > 0, [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])  # start, end, start, end, ...
    return " ".join(str(step) for step in np.diff(edges, prepend=0)) or EMPTY
