"""The user's own copy of a bundle with the authors' weights, so that the bundle in the repository stays as it is."""

import logging
import os
import tempfile
from pathlib import Path

from ..bundle.errors import BadInput
from ..bundle.weights_file import read_metadata
from .import_weights import import_weights
from .published import PUBLISHED, published_of
from .published_file import home

logger = logging.getLogger(__name__)


def released_copy(bundle: str) -> Path:
    """Where the copy of a bundle lies, such as ``~/.cache/pulmozoo/lung_lobe_ct_segmentation_released``."""
    return home() / f"{bundle}_{published_of(bundle).preset}"


def import_copy(source: Path, checkpoint: str | None = None, out: str | None = None) -> Path:
    """Make a copy of a bundle with the authors' weights.

    Args:
        source: the bundle, which stays as it is.
        checkpoint: the authors' file; without it, it is downloaded.
        out: a new folder; by default :func:`released_copy`, whose copy of before is replaced.

    Returns the folder. Raises BadInput as :func:`import_weights`; nothing is written then.
    """
    file = None if checkpoint is None else Path(str(checkpoint))
    if out is not None:
        import_weights(source, file, Path(str(out)))
        return Path(str(out))
    copy = released_copy(read_metadata(source)["name"])
    copy.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".importing_", dir=copy.parent) as folder:
        new = Path(folder) / "new"
        import_weights(source, file, new)
        if copy.exists():
            os.replace(copy, Path(folder) / "before")
        os.replace(new, copy)
    return copy


def bundle_to_run(source: Path, preset: str | None) -> Path:
    """The bundle itself, or its copy with the authors' weights where their preset is asked for.

    Says in the log how to get the authors' weights when those of the bundle have seen phantoms only. Raises BadInput
    that names the command when the copy is missing or was made of another version of the bundle.
    """
    metadata = read_metadata(source)
    name, weights = metadata["name"], metadata["weights"]
    if name not in PUBLISHED:
        return source
    released, copy = PUBLISHED[name].preset, released_copy(name)
    command = f"pulmozoo import-weights {metadata['short_name']}"
    if preset == released != weights["preset"]:
        if not copy.exists():
            raise BadInput(f"preset {preset!r} needs the authors' weights, which are not here: run `{command}` first")
        if read_metadata(copy)["version"] != metadata["version"]:
            raise BadInput(f"{copy} was made of another version of the bundle: run `{command}` again")
        logger.info("preset %s: the bundle in %s, with the authors' weights", preset, copy)
        return copy
    if preset is None and weights["tier"] == "phantom":
        first = "" if copy.exists() else f"`{command}`, then "
        logger.info(
            "these weights learnt on synthetic scans only; for the authors' own: %s--preset %s", first, released
        )
    return source
