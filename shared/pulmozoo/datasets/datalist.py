"""What a training reads of a MONAI datalist."""

import json
from pathlib import Path
from typing import Any

from monai.data import load_decathlon_datalist

from ..bundle.errors import BadInput


def validation_entries(dataset_dir: str | Path) -> list[dict[str, Any]]:
    """Entries of the split ``validation``; none without a data set: MONAI Label fills its own in."""
    return entries_of(Path(dataset_dir), "validation") if dataset_dir else []


def entries_of(dataset_dir: Path, split: str) -> list[dict[str, Any]]:
    """Entries of a split of ``datalist.json``, paths absolute; none where there is no such split.

    Raises BadInput where there is no list.
    """
    path = dataset_dir / "datalist.json"
    if not path.is_file():
        raise BadInput(f"{path} does not exist: expected a MONAI datalist, see pulmozoo phantom and pulmozoo prepare")
    if not json.loads(path.read_text(encoding="utf-8")).get(split):
        return []
    entries: list[dict[str, Any]] = load_decathlon_datalist(str(path), True, split, str(dataset_dir))
    return entries
