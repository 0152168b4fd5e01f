"""A published checkpoint as a file: downloaded once, told by its digest, read without running anything in it."""

import hashlib
import logging
import os
import pickle
import struct
import tempfile
from collections.abc import Iterable
from functools import partial
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import Protocol
from urllib.request import urlopen
from zipfile import is_zipfile

from torch import Tensor
from torch._weights_only_unpickler import get_globals_in_pkl
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from ..bundle.errors import BadInput, innermost_reason
from ..bundle.weights_file import read_tensors, sha256
from .published import Published

logger = logging.getLogger(__name__)

CHUNK_BYTES = 8 * 2**20
TIMEOUT_S = 60.0
LEGACY_PICKLES = 4  # magic number, protocol version, system, then what was saved


class Downloadable(Protocol):
    """Where a file lies, and the kind and hex digest that tell it."""

    @property
    def url(self) -> str: ...

    @property
    def identity(self) -> tuple[str, str]: ...


def home() -> Path:
    """Where a user's downloads and imported bundles lie: ``PULMOZOO_HOME``, by default ``~/.cache/pulmozoo``."""
    return Path(os.environ.get("PULMOZOO_HOME") or Path.home() / ".cache" / "pulmozoo")


def fetch(bundle: str, published: Downloadable, option: str = "--checkpoint") -> Path:
    """The checkpoint's file in :func:`home`, downloaded unless it is there already; ``option`` takes one by hand."""
    target = home() / f"{bundle}_{PurePosixPath(published.url).name}"
    if not target.exists() or digest(target, published) != published.identity[1]:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".downloading_", dir=target.parent) as folder:
            unfinished = Path(folder) / target.name
            download(published.url, unfinished, option)
            check_identity(unfinished, published, origin=published.url)
            os.replace(unfinished, target)
    return target


def download(url: str, target: Path, option: str) -> None:
    """Write what an address gives to a file, saying how far it is; BadInput says how to do without.

    Not MONAI's ``download_url``: it waits for ever, and returns as if all were well where it may not write.
    """
    try:
        with urlopen(url, timeout=TIMEOUT_S) as response, target.open("wb") as file:
            logger.info("downloading %s (%s bytes)", url, response.headers["Content-Length"])
            for chunk in iter(partial(response.read, CHUNK_BYTES), b""):
                file.write(chunk)
                logger.info("downloaded %.0f MB", file.tell() / 1e6)
    except (OSError, HTTPException) as error:
        raise BadInput(
            f"{url} could not be downloaded ({innermost_reason(error)}): get the file by hand, on any machine, and "
            f"pass it with {option} FILE"
        ) from error


def git_blob_id(path: Path) -> str:
    """The name that git gives to a file's content."""
    blob = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            blob.update(chunk)
    return blob.hexdigest()


DIGESTS = {"git blob id": git_blob_id, "sha256": sha256}


def digest(path: Path, published: Downloadable) -> str:
    """Hex digest of a file, of the kind that the published one is known by."""
    return DIGESTS[published.identity[0]](path)


def check_identity(path: Path, published: Downloadable, origin: str | Path) -> None:
    """Raise BadInput, which names ``origin``, unless the file is the published one."""
    kind, expected = published.identity
    came = digest(path, published)
    if came != expected:
        raise BadInput(
            f"{origin} has {kind} {came}, expected {expected}: it is cut short, damaged or not the published "
            f"checkpoint; download {published.url} again"
        )


class _TakenForDict(type):
    """Makes a class equal to ``dict``: PyTorch sets items in nothing else, and pickles have subclasses of it."""

    def __eq__(cls, other: object) -> bool:
        return cls is other or other is dict

    __hash__ = type.__hash__


class Inert(metaclass=_TakenForDict):
    """Stands for whatever a pickle names beside tensors: takes what it is given and does nothing."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...

    def __setitem__(self, *_: object) -> None: ...


def read_state_dict(path: Path, published: Published) -> dict[str, Tensor]:
    """The authors' state dict, tensor by published name; nothing that the file names beside tensors is run or imported.

    Raises BadInput when the file is damaged or holds something else.
    """
    with safe_globals([(Inert, name) for name in named_globals(path)]):
        loaded = read_tensors(path)
    state = loaded.get(published.state_key) if isinstance(loaded, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise BadInput(f"{path} holds no tensors under {published.state_key!r}, expected those of {published.url}")
    return state


def named_globals(path: Path) -> Iterable[str]:
    """Functions and classes that the file names and PyTorch would refuse, found without loading it.

    Knows PyTorch's zip files and the older ones, which are pickles one behind the other.
    """
    try:
        if is_zipfile(path):
            return get_unsafe_globals_in_checkpoint(path)
        with path.open("rb") as file:
            return {name for _ in range(LEGACY_PICKLES) for name in get_globals_in_pkl(file)}
    except (pickle.UnpicklingError, EOFError, RuntimeError, ValueError, LookupError, struct.error) as error:
        raise BadInput(f"{path} is damaged or no PyTorch checkpoint: download it again") from error
