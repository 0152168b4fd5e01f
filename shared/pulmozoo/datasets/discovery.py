"""What every search for images below a folder shares: which files are looked at, and how what is found is named."""

import os
from collections.abc import Iterator, Sequence
from itertools import chain, count
from pathlib import Path


def visible_folders(root: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Each folder at or below the root with the files directly in it; hidden ones are left out, links followed once."""
    seen: set[Path] = set()
    for name, folders, names in os.walk(root, followlinks=True):
        folder = Path(name)
        if folder.resolve() in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(folder.resolve())
        folders[:] = [child for child in folders if not child.startswith(".")]
        files = (folder / file for file in names if not file.startswith("."))
        yield folder, [file for file in files if file.is_file()]


def unique_ids(paths: Sequence[Path], root: Path, suffixes: Sequence[str]) -> list[str]:
    """A name for each path: relative to the root, without its suffix, ``/`` as ``__``; the root's own name for itself.

    Where two would be the same, the later one keeps its suffix, or else is counted.
    """
    ids: dict[str, None] = {}
    for path, suffix in zip(paths, suffixes, strict=True):
        full = "__".join(path.relative_to(root).parts) or root.resolve().name
        candidates = chain((full.removesuffix(suffix), full), (f"{full}_{number}" for number in count(2)))
        ids[next(name for name in candidates if name not in ids)] = None
    return list(ids)
