"""Read a chest film from DICOM, PNG or JPEG, or say in one sentence why it is none."""

import time
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor
from monai.transforms import Transform
from monai.utils import ImageMetaKey, MetaKeys

from ..bundle.errors import BadInput
from ..datasets.film_dicom import read_dicom_film
from ..datasets.film_picture import read_picture
from ..datasets.films import EXPECTED, is_picture
from ..datasets.scans import is_dicom
from .film_checks import check_film, film_warnings
from .reading import READING_SECONDS


def read_film(path: str | Path) -> MetaTensor:
    """Read one film as brightness 0..1, lungs dark: float32 ``(1, X, Y)``.

    X runs along a row from left to right and Y from top to bottom, as MONAI's readers and writers of pictures have it.
    The meta holds the file name, ``affine`` (steps in mm, or 1 where they are unknown), ``view`` (PA, AP, LATERAL or
    unknown), ``modality``, ``mirrored`` (the patient's left is on the left), ``warnings`` (a sentence a line) and,
    where it is known, ``spacing_mm`` (column, row).

    Raises BadInput with what was expected, what came and what to do.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise BadInput(f"{path} is no file: expected {EXPECTED}")
    with _named(path):
        if is_picture(path):
            stored = read_picture(path)
        elif is_dicom(path):
            stored = read_dicom_film(path)
        else:
            raise BadInput(f"it is neither a picture nor DICOM: expected {EXPECTED}")
        affine = np.diag([*(stored.spacing_mm or (1.0, 1.0)), 1.0, 1.0])
        meta: dict[str, Any] = {
            ImageMetaKey.FILENAME_OR_OBJ: str(path),
            MetaKeys.AFFINE: affine,
            MetaKeys.ORIGINAL_AFFINE: affine.copy(),
            MetaKeys.SPATIAL_SHAPE: np.asarray(stored.brightness.shape[::-1]),
            MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan"),
            "view": stored.view,
            "modality": stored.modality,
            "mirrored": stored.mirrored,
            "warnings": "\n".join(stored.warnings),
        }
        if stored.spacing_mm is not None:  # a batch cannot hold None
            meta["spacing_mm"] = stored.spacing_mm
        upright = np.ascontiguousarray(stored.brightness.T[None], dtype=np.float32)
        film = MetaTensor.ensure_torch_and_prune_meta(upright, meta)
        check_film(film)
    return film


class LoadFilmd(Transform):
    """Dictionary form of :func:`read_film`: replaces a path by the film.

    ``film_key`` gets the film, to stay on its own grid; ``key`` a copy for the preprocessing to change; ``warnings``
    what the user should know, a sentence a line (a batch cannot hold lists of unequal length). A MetaTensor under
    ``key`` (MONAI Label and Deploy may hand over loaded images) is taken as is and checked.
    """

    def __init__(self, key: str = "image", film_key: str = "film") -> None:
        self.key, self.film_key = key, film_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        source, started = data[self.key], time.monotonic()
        if isinstance(source, MetaTensor):
            check_film(source)
            film = MetaTensor(source.as_tensor().float(), meta=deepcopy(source.meta))
        elif isinstance(source, (str, PathLike)):
            film = read_film(Path(source))
        else:
            raise BadInput(f"{self.key!r} is a {type(source).__name__}: expected a path or a MetaTensor")
        warnings = [*film_warnings(film), film.meta.get("warnings", "")]
        film.meta[READING_SECONDS] = time.monotonic() - started
        image = MetaTensor(film.as_tensor().clone(), meta=deepcopy(film.meta))
        return {**data, self.key: image, self.film_key: film, "warnings": "\n".join(filter(None, warnings))}


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Put the path in front of a sentence that does not name it, and turn what a reader raises into one."""
    try:
        yield
    except BadInput as error:
        raise BadInput(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    except (OSError, ValueError, TypeError, AttributeError, NotImplementedError) as error:
        raise BadInput(f"{path} cannot be read as a chest film ({error}): copy or export it again") from error
