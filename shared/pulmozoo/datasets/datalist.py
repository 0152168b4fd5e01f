"""What a training reads of a MONAI datalist."""

import json
from pathlib import Path
from typing import Any

from monai.data import load_decathlon_datalist

from ..bundle.errors import BadInput


def validation_entries(dataset_dir: str | Path) -> list[dict[str, Any]]:
    """Entries of the split ``validation`` of ``datalist.json``, paths absolute; none where there is no such split.

    Without a data set there are none either: MONAI Label fills its own in. Raises BadInput where there is no list.
    """
    if not dataset_dir:
        return []
    path = Path(dataset_dir) / "datalist.json"
    if not path.is_file():
        raise BadInput(f"{path} does not exist: expected a MONAI datalist, see pulmozoo phantom and pulmozoo prepare")
    if "validation" not in json.loads(path.read_text(encoding="utf-8")):
        return []
    entries: list[dict[str, Any]] = load_decathlon_datalist(str(path), True, "validation", str(dataset_dir))
    return entries
