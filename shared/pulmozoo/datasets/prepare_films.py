"""Turn a data set of chest films as it was downloaded into masks and a list of what there is to learn from."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..bundle.errors import BadInput
from .film_list import FilmCase, LeftOut, balanced, halves, write_lists
from .masked_films import masked_cases
from .nih import nih_films
from .siim import siim_cases

MASK_LAYOUTS: dict[str, Callable[[Path, Path], tuple[list[FilmCase], list[LeftOut]]]] = {
    "siim": siim_cases,
    "folders": masked_cases,
}
LAYOUTS = (*MASK_LAYOUTS, "nih")
REASONS_SHOWN = 8

logger = logging.getLogger(__name__)


def prepare_films(data_dir: Path, output_dir: Path, layout: str, seed: int = 0, *, keep_all: bool = False) -> Path:
    """Write ``datalist.json``, ``left_out.csv`` and, where there are masks, ``masks/*.png``; films stay in place.

    Films with masks are split in halves, ``training`` and ``validation``, by patient; entries are ``image``, ``label``
    (the mask) and ``has_pneumothorax`` (0 or 1). Films with image-level labels are one list, ``test``, of ``image`` and
    ``label`` (0 or 1).

    Args:
        layout: siim, folders or nih.
        seed: of the draw and the split.
        keep_all: take all films, not as many without as with a pneumothorax.

    Returns the path of the list; raises BadInput if the data set is not laid out so, or holds no film to use.
    """
    if layout == "nih":
        films, left_out = nih_films(data_dir)
        datalist: Mapping[str, Sequence[Mapping[str, Any]]] = {"test": films}
        positives = {"test": sum(int(film["label"]) for film in films)}
    else:
        cases, left_out = MASK_LAYOUTS[layout](data_dir, output_dir)
        if not keep_all:
            cases, not_drawn = balanced(cases, seed)
            left_out += not_drawn
        split = halves(cases, seed)
        datalist = {name: [_entry(case) for case in part] for name, part in split.items()}
        positives = {name: sum(case.pneumothorax for case in part) for name, part in split.items()}
    if not any(datalist.values()):
        raise BadInput(_nothing_left(data_dir, left_out))
    write_lists(output_dir, datalist, left_out)
    for name, films_of in datalist.items():
        logger.info("%s: %d films, %d with pneumothorax", name, len(films_of), positives[name])
    if left_out:
        logger.info("left out: %s; all in %s", _counted(left_out), output_dir / "left_out.csv")
    return output_dir / "datalist.json"


def _entry(case: FilmCase) -> dict[str, str | int]:
    return {"image": case.image, "label": case.label, "has_pneumothorax": case.pneumothorax}


def _counted(left_out: Sequence[LeftOut]) -> str:
    """How many for which reason, the most frequent first."""
    reasons = Counter(left.reason for left in left_out).most_common()
    shown = "; ".join(f"{count} ({reason})" for reason, count in reasons[:REASONS_SHOWN])
    rest = sum(count for _, count in reasons[REASONS_SHOWN:])
    return f"{shown}; {rest} for other reasons" if rest else shown


def _nothing_left(data_dir: Path, left_out: Sequence[LeftOut]) -> str:
    return (
        f"{data_dir} holds no film to use: expected some with and some without a pneumothorax, or --keep_all; "
        f"left out: {_counted(left_out)}"
    )
