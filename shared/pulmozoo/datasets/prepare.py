"""Turn a data set as it was downloaded into what a bundle's training takes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..bundle.errors import BadInput
from .annotated_slices import LABEL_FOLDERS, prepare_slices
from .copdgene import LAYOUTS as SCORE_LAYOUTS
from .copdgene import prepare_scored
from .lobe_scans import LAYOUTS as LOBE_LAYOUTS
from .lobe_scans import prepare_lobes
from .pattern_scans import LAYOUTS as PATTERN_LAYOUTS
from .pattern_scans import prepare_patterns
from .prepare_films import LAYOUTS as FILM_LAYOUTS
from .prepare_films import prepare_films


class Preparation(NamedTuple):
    """The layouts that a bundle's data may have, and what reads them: folder, new folder, layout, seed to a list."""

    layouts: Sequence[str]
    write: Callable[..., Path]


PREPARATIONS = {
    "lobes": Preparation(LOBE_LAYOUTS, prepare_lobes),
    "pneumothorax": Preparation(FILM_LAYOUTS, prepare_films),
    "emphysema": Preparation(SCORE_LAYOUTS, prepare_scored),
    "paraseptal": Preparation(tuple(LABEL_FOLDERS), prepare_slices),
    "ild": Preparation(PATTERN_LAYOUTS, prepare_patterns),
}


def prepare_data(
    bundle: str, data_dir: Path, output_dir: Path, layout: str, seed: int = 0, *, keep_all: bool = False
) -> Path:
    """Write the list of what there is to learn from, and ``left_out.csv`` with what is not, and why.

    Args:
        bundle: short name, a key of ``PREPARATIONS``; the function there says what it writes.
        layout: one of those that the bundle knows.
        seed: of the draw and the split.
        keep_all: of films, take all, not as many without as with the disease.

    Returns the path of the list; raises BadInput if the data set is not laid out so, or holds nothing to use.
    """
    if bundle not in PREPARATIONS:
        raise BadInput(f"there is nothing to prepare for {bundle!r}: choose one of {', '.join(PREPARATIONS)}")
    layouts, write = PREPARATIONS[bundle]
    if layout not in layouts:
        raise BadInput(f"there is no layout {layout!r}: choose one of {', '.join(layouts)}")
    if not data_dir.is_dir():
        raise BadInput(f"{data_dir} is no folder: expected the data set")
    if keep_all and write is not prepare_films:
        raise BadInput(f"keep_all is for films, and {bundle} has none: leave it out")
    return write(data_dir, output_dir, layout, seed, **({"keep_all": True} if keep_all else {}))
