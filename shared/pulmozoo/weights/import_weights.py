"""Put the authors' weights into a bundle."""

from pathlib import Path

from ..bundle.adopt import adopt_state
from ..bundle.errors import BadInput, innermost_reason
from ..bundle.weights_file import read_metadata
from .published import convert, published_of
from .published_file import check_identity, fetch, read_state_dict

COMMAND = "python -m monai.bundle run --config_file configs/import_weights.json"


def import_weights(bundle_root: Path, checkpoint: Path | None = None, out: Path | None = None) -> Path:
    """Give a bundle the authors' weights, their preset, and in the metadata their origin.

    Args:
        bundle_root: a bundle whose authors published a checkpoint.
        checkpoint: the authors' file; without it, it is downloaded.
        out: a new folder for the bundle with these weights; without it, the bundle is changed in place.

    Returns the path of the weights. Raises BadInput when the file cannot be had or is not the published one; whatever
    goes wrong, everything stays as it was.
    """
    bundle = read_metadata(bundle_root)["name"]
    published = published_of(bundle)
    if checkpoint is None:
        checkpoint = fetch(bundle, published)
    elif not checkpoint.is_file():
        raise BadInput(f"{checkpoint} does not exist: expected the file that {published.url} offers")
    else:
        check_identity(checkpoint, published, origin=checkpoint)
    state = convert(bundle, read_state_dict(checkpoint, published))
    description = {
        "tier": "authors",
        "trained_on": published.trained_on,
        "score": published.score,
        "command": COMMAND,
        "source": published.url,
        "licence": published.licence,
    }
    return adopt_state(state, checkpoint, bundle_root, out or bundle_root, published.preset, description)


def import_in_place(bundle_root: str, checkpoint: str = "") -> None:
    """The ``run`` entry of ``import_weights.json``: change the bundle in which it lies.

    Stops with one sentence on standard error and exit code 1 when it cannot.
    """
    try:
        import_weights(Path(bundle_root), Path(str(checkpoint)) if checkpoint else None)
    except Exception as error:
        raise SystemExit(f"pulmozoo: {innermost_reason(error)}") from error
