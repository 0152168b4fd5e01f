"""Where a bundle's own files lie, whatever the working directory."""

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve()


def bundle_root(name: str) -> str:
    """Folder of the bundle ``name``: the first of the candidates whose ``configs/metadata.json`` has that name.

    Candidates, in this order: the bundle that this code is vendored in; the bundle that MONAI runs (it puts the parent
    of ``configs`` on ``sys.path``, behind the first entry); the working directory and its parent; the repository. So a
    copied bundle uses its own files, and stops when they are missing.

    Raises FileNotFoundError when there is none.
    """
    vendored, repository = HERE.parents[2], HERE.parents[3] / "bundles" / name
    candidates = [vendored, *(Path(entry) for entry in sys.path[1:]), Path.cwd(), Path.cwd().parent, repository]
    for folder in candidates:
        if bundle_name(folder) == name:
            return str(folder.resolve())
    raise FileNotFoundError(f"no bundle {name!r} here: run from inside it or pass --bundle_root")


def bundle_name(folder: Path) -> str | None:
    """Name in the folder's metadata; None where there is no readable metadata."""
    try:
        metadata = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return metadata.get("name") if isinstance(metadata, dict) else None
