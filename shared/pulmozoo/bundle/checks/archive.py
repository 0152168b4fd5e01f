"""The zip around a bundle."""

import hashlib
import zipfile
from pathlib import Path

from ..errors import BadInput
from ..pack import EPOCH, parse_json
from .candidate import Candidate


def zip_of(bundle: Candidate) -> Path:
    if bundle.archive is None:
        raise ValueError("this check is for a zip, but the bundle is a folder")
    return bundle.archive


def zip_name(bundle: Candidate) -> None:
    archive, metadata = zip_of(bundle), bundle.metadata
    expected = f"{metadata.get('name')}_v{metadata.get('version')}.zip"
    if archive.name != expected:
        raise BadInput(f"the zip is called {archive.name}: expected {expected}")


def zip_folder(bundle: Candidate) -> None:
    expected = bundle.metadata.get("name")
    if bundle.root.name != expected:
        raise BadInput(f"the zip's folder is {bundle.root.name}: expected the bundle's name {expected}")


def zip_times(bundle: Candidate) -> None:
    """A zip that is packed twice is the same zip."""
    with zipfile.ZipFile(zip_of(bundle)) as opened:
        for member in opened.infolist():
            if member.date_time != EPOCH:
                raise BadInput(f"{member.filename} has a time of its own: expected 1980-01-01, use pulmozoo pack")


def zip_checksum(bundle: Candidate) -> None:
    """Where a ``model_info.json`` lies beside the zip, it knows this very file."""
    archive = zip_of(bundle)
    info = archive.with_name("model_info.json")
    if info.is_file():
        entry = parse_json(info.read_bytes(), info.name).get(archive.stem, {})
        came = hashlib.sha1(archive.read_bytes(), usedforsecurity=False).hexdigest()
        if entry.get("checksum") != came:
            raise BadInput(f"the zip has sha1 {came}, but {info.name} has {entry.get('checksum')}: pack it again")
