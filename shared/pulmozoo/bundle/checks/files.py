"""Which files a bundle has, and how large they are."""

import hashlib
import re
from pathlib import Path, PurePosixPath, PureWindowsPath

from monai.bundle import ConfigParser

from ..errors import BadInput
from ..pack import LARGE_FILES, REPOSITORY, WEIGHTS, check_private, own_files
from .candidate import INFERENCE, METADATA, TRAINING, Candidate
from .extra import need

REQUIRED = (
    "LICENSE",
    METADATA,
    INFERENCE,
    TRAINING,
    "configs/logging.conf",
    "docs/README.md",
    "docs/data_license.txt",
    WEIGHTS,
)
LICENCES = ("Apache License", "MIT License")  # those that MONAI recognises when it publishes to Hugging Face
MIB = 2**20
MAX_MIB, MAX_WEIGHTS_MIB = 25, 26
HASH_TYPES = ("md5", "sha1", "sha256", "sha512")


def required_files(bundle: Candidate) -> None:
    missing = [name for name in REQUIRED if not (bundle.root / name).is_file()]
    if missing:
        raise BadInput(f"there is no {', '.join(missing)}: a bundle needs them")


def licence(bundle: Candidate) -> None:
    if "LICENSE" not in {path.name for path in bundle.root.iterdir()}:  # as written, also where case does not matter
        raise BadInput("there is no LICENSE: the model zoo wants a file of exactly this name, without suffix")
    if not any(name in bundle.text("LICENSE") for name in LICENCES):
        raise BadInput(f"LICENSE is not one that MONAI recognises: expected {' or '.join(LICENCES)}")


def file_sizes(bundle: Candidate) -> None:
    for path, data in own_files(bundle.root).items():
        limit = MAX_WEIGHTS_MIB if path == WEIGHTS else MAX_MIB
        if len(data) > limit * MIB:
            raise BadInput(f"{path} has {len(data) / MIB:.1f} MiB: expected at most {limit}, see large_files")


def large_files(bundle: Candidate) -> None:
    """In a folder the list may be there, complete; a zip holds the files themselves."""
    for path in (bundle.root / name for name in sorted(LARGE_FILES)):
        if path.is_file() and bundle.archive:
            raise BadInput(f"the zip holds {path.name}: expected the files themselves, pack the bundle again")
        if path.is_file():
            check_large_files(path)


def check_large_files(path: Path) -> None:
    """Raise BadInput unless each entry says what to fetch from where, to which place, and how to know it."""
    if path.suffix != ".json":
        need("yaml")
    content = ConfigParser.load_config_file(path)
    entries = content.get("large_files") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise BadInput(f"{path.name} has no list 'large_files' with entries: write it or remove the file")
    for entry in entries:
        missing = [key for key in ("path", "url", "hash_val", "hash_type") if not entry.get(key)]
        if missing:
            raise BadInput(f"{path.name}: {entry.get('path')} has no {', '.join(missing)}")
        place, kind = str(entry["path"]), entry["hash_type"]
        if PureWindowsPath(place).anchor or ".." in PurePosixPath(place).parts:
            raise BadInput(f"{path.name}: {place} leads out of the bundle: expected a path relative to it")
        if kind not in HASH_TYPES:
            raise BadInput(f"{path.name}: {place} has hash_type {kind!r}: expected one of {', '.join(HASH_TYPES)}")
        digits = 2 * hashlib.new(kind, usedforsecurity=False).digest_size
        if not re.fullmatch(rf"[0-9a-f]{{{digits}}}", str(entry["hash_val"])):
            raise BadInput(f"{path.name}: {place} has no {kind} as hash_val: expected {digits} hexadecimal digits")


def nothing_private(bundle: Candidate) -> None:
    check_private(own_files(bundle.root), [Path.home(), bundle.root, REPOSITORY])
