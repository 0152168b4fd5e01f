"""A confusion matrix as a picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from monai.utils import optional_import

from ..bundle.errors import BadInput
from ..files import whole

figure, has_matplotlib = optional_import("matplotlib.figure")

INCHES = 5.0


def row_shares(counts: np.ndarray) -> np.ndarray:
    """Of counts ``(truth, prediction)`` the share of each true class that was called so; 0 where a class is missing."""
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def draw_confusion(names: Sequence[str], shares: np.ndarray, path: Path) -> None:
    """A square for each pair of classes with its percent, true classes from top to bottom.

    Args:
        names: of the classes.
        shares: see :func:`row_shares`.
        path: of the picture (png).

    Raises BadInput without matplotlib.
    """
    if not has_matplotlib:
        raise BadInput("the figures need the eval extra: pip install 'pulmozoo[eval]'")
    page = figure.Figure(figsize=(INCHES, INCHES))
    panel = page.subplots()
    panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ticks = [name.replace("_", " ") for name in names]
    panel.set_xticks(range(len(names)), ticks, rotation=45, ha="right")
    panel.set_yticks(range(len(names)), ticks)
    panel.set_xlabel("called")
    panel.set_ylabel("true")
    for (row, column), share in np.ndenumerate(shares):
        panel.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color="w" if share > 0.5 else "k")
    page.tight_layout()
    with whole(path) as unfinished:
        page.savefig(unfinished, format="png", dpi=120)
