"""Find the chest films below a path and name them."""

from collections.abc import Iterator
from pathlib import Path

from ..bundle.errors import BadInput
from .discovery import unique_ids, visible_folders
from .scans import is_dicom

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
EXPECTED = "a chest film (.png, .jpg, .jpeg, .dcm or DICOM without suffix) or a folder of films"


def find_films(dataset_dir: str | Path) -> list[dict[str, str]]:
    """List the films at or below a path as ``{"image": path, "scan": id}``, sorted by path.

    Each picture and each DICOM file is a film. Ids are made as in :func:`pulmozoo.datasets.scans.find_scans`: the path
    relative to ``dataset_dir`` without suffix, ``/`` as ``__``.

    Raises BadInput if the path does not exist or holds no film.
    """
    root = Path(dataset_dir).expanduser()
    if not root.exists():
        raise BadInput(f"{root} does not exist: expected {EXPECTED}")
    paths = sorted(_films_in(root)) if root.is_dir() else [root]
    if not paths or not is_film_file(paths[0]):
        raise BadInput(f"{root} holds no film: expected {EXPECTED}")
    ids = unique_ids(paths, root, [_suffix(path) for path in paths])
    return [{"image": str(path), "scan": film_id} for path, film_id in zip(paths, ids, strict=True)]


def is_picture(path: Path) -> bool:
    """Whether a file is named as PNG or JPEG."""
    return path.suffix.lower() in PICTURE_SUFFIXES


def is_film_file(path: Path) -> bool:
    """Whether a file is a picture, or DICOM by name or by content; the index file DICOMDIR is not."""
    return is_picture(path) or (path.name != "DICOMDIR" and is_dicom(path))


def _suffix(path: Path) -> str:
    return path.suffix if path.suffix.lower() in (*PICTURE_SUFFIXES, ".dcm") else ""


def _films_in(root: Path) -> Iterator[Path]:
    for _, files in visible_folders(root):
        yield from (path for path in files if is_film_file(path))
