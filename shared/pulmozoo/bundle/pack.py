"""Pack a bundle into one zip that runs without this package, and unpack such a zip safely.

The code that the configs name goes along as the package ``<bundle>_code``: a name of its own, since of two bundles in
one process with the same package name the second would silently run the first one's code.
"""

import ast
import hashlib
import io
import json
import os
import re
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from pydoc import locate
from typing import Any

from ..files import whole, write_json
from .errors import BadInput

PACKAGE = Path(__file__).resolve().parents[1]
REPOSITORY = PACKAGE.parents[1]

WEIGHTS = "models/model.pt"
LARGE_FILES = {"large_files.json", "large_files.yaml", "large_files.yml"}  # say where to get what the zip holds
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can hold
MAX_UNPACKED_BYTES = 2 * 2**30

_NAME = re.compile(r"(?!.*_v)[a-z][a-z0-9_]*")  # MONAI splits "<name>_v<version>" at the first "_v"
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_TOKEN = re.compile(
    rb"\b(hf_\w{30,}|gh[opsu]_\w{30,}|github_pat_\w{30,}|nvapi-[\w-]{30,})|-----BEGIN [A-Z ]*PRIVATE KEY"
)


def pack(source: Path, out_dir: Path) -> Path:
    """Write ``<name>_v<version>.zip`` and its entry in ``model_info.json``; the same bundle gives the same bytes.

    Args:
        source: the bundle's folder; hidden files, ``out``, ``__pycache__`` and ``large_files.*`` stay behind.
        out_dir: made if missing; outside the bundle.

    Returns the path of the zip. Raises BadInput when the bundle is not fit for release; nothing is written then.
    """
    source = source.resolve()
    if out_dir.resolve().is_relative_to(source):
        raise BadInput(f"{out_dir} lies in the bundle, so the next zip would hold this one: choose another folder")
    members = own_files(source)
    for needed in ("LICENSE", "configs/metadata.json", "configs/inference.json"):
        if needed not in members:
            raise BadInput(f"{source} has no {needed}: a bundle needs one")
    metadata = parse_json(members["configs/metadata.json"], "configs/metadata.json")
    name, version = str(metadata.get("name")), str(metadata.get("version"))
    if not _NAME.fullmatch(name) or not _VERSION.fullmatch(version):
        raise BadInput(
            f"{name!r} version {version!r} cannot be released: expected a name of small letters, digits and _ "
            "without '_v' in it, and a version like 0.1.0"
        )
    check_weights(members, metadata)
    members = vendor_code(members, f"{name}_code")
    check_private(members, [Path.home(), source, REPOSITORY])
    content = zip_bytes({f"{name}/{path}": data for path, data in members.items()})
    return write_release(content, f"{name}_v{version}", out_dir)


def own_files(source: Path) -> dict[str, bytes]:
    """The bundle's files that are released, by their path in it."""
    members = {}
    for folder, subfolders, files in os.walk(source):
        here = Path(folder)
        skipped = {"__pycache__", "out", *LARGE_FILES} if here == source else {"__pycache__"}
        wanted = [name for name in (*subfolders, *files) if not name.startswith(".") and name not in skipped]
        subfolders[:] = [name for name in subfolders if name in wanted]
        for path in map(here.joinpath, wanted):
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise BadInput(f"{path} is a link or no plain file: put the file itself there")
            if path.is_file():
                members[path.relative_to(source).as_posix()] = path.read_bytes()
    return members


def check_weights(members: Mapping[str, bytes], metadata: Mapping[str, Any]) -> None:
    """Raise BadInput unless the weights are there, alone, and the ones that the metadata describe."""
    if WEIGHTS not in members:
        raise BadInput(f"the bundle has no {WEIGHTS}: train or download the weights first")
    others = [path for path in members if path.startswith("models/") and path.endswith(".pt") and path != WEIGHTS]
    if others:
        raise BadInput(f"{others[0]} lies beside {WEIGHTS}: a zip holds one set of weights, move the other away")
    expected, came = metadata.get("weights", {}).get("sha256"), hashlib.sha256(members[WEIGHTS]).hexdigest()
    if came != expected:
        raise BadInput(
            f"the weights have sha256 {came}, but the metadata describe {expected}: "
            "put weights in place with `pulmozoo adopt`, which writes both"
        )


def vendor_code(members: Mapping[str, bytes], code: str) -> dict[str, bytes]:
    """Add what the configs name of this package as the package ``code``, with its licence, and name it there instead.

    A bundle that names nothing of this package, such as one that came out of a zip, stays as it is.
    """
    configs, targets = {}, set()
    for path, data in members.items():
        if path.startswith("configs/") and path.endswith((".yaml", ".yml")):
            raise BadInput(f"{path} is YAML: only JSON configs can be packed")
        if path.startswith("configs/") and path.endswith(".json"):
            config = parse_json(data, path)
            check_strings(config, path)
            named = {value for key, value in strings(config) if is_target(key) and value.startswith("pulmozoo.")}
            for target in sorted(named):
                if locate(target) is None:
                    raise BadInput(f"{path} names {target}, which does not exist")
            if named:
                configs[path] = (json.dumps(renamed(config, code), indent=4) + "\n").encode()
            targets |= named
    if not targets:
        return dict(members)
    if any(path.startswith(f"{code}/") for path in members):
        raise BadInput(f"the bundle has a folder {code} already, where its code is to go: remove it")
    vendored = {f"{code}/LICENSE": (REPOSITORY / "LICENSE").read_bytes()}
    for file in import_closure(PACKAGE, targets):
        vendored[f"{code}/{file.relative_to(PACKAGE).as_posix()}"] = file.read_bytes()
    return {**members, **configs, **vendored}


def parse_json(data: bytes, path: str) -> dict[str, Any]:
    """A JSON file's object; BadInput says what is wrong with it."""
    try:
        content = json.loads(data)
    except ValueError as error:
        raise BadInput(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise BadInput(f"{path} is no JSON object: expected {{...}}")
    return content


def strings(config: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every string in a config, with the key it stands under; empty in a list."""
    if isinstance(config, str):
        yield key, config
    elif isinstance(config, Mapping):
        for inner, value in config.items():
            yield from strings(value, inner)
    elif isinstance(config, Sequence):
        for value in config:
            yield from strings(value)


def is_target(key: str) -> bool:
    """Whether a key holds the name of a class or function; an overlay may write ``network_def#_target_``."""
    return re.split("#|::", key)[-1] == "_target_"


def renamed(config: Any, code: str, key: str = "") -> Any:
    """The config with the package ``code`` in place of this one, under ``_target_`` only."""
    if isinstance(config, dict):
        return {inner: renamed(value, code, inner) for inner, value in config.items()}
    if isinstance(config, list):
        return [renamed(value, code) for value in config]
    if isinstance(config, str) and is_target(key) and config.startswith("pulmozoo."):
        return f"{code}.{config.removeprefix('pulmozoo.')}"
    return config


def check_strings(config: Any, path: str) -> None:
    """Raise BadInput for what would not work elsewhere: an expression that needs this package, an absolute path."""
    for _, value in strings(config):
        if value.startswith("$") and re.search(r"\bpulmozoo\b", value):
            raise BadInput(f"{path} names pulmozoo in the expression {value!r}: name it under '_target_' instead")
        if PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute():
            raise BadInput(f"{path} has the absolute path {value!r}: expected none, it leads nowhere elsewhere")


def import_closure(package: Path, targets: Iterable[str]) -> set[Path]:
    """The files of a package that are imported, directly or not, for the sake of some of its dotted names.

    Raises BadInput for an import by the package's own name, which the renamed copy could not follow.
    """
    found: set[Path] = set()
    waiting = {file for target in targets for file in files_on_the_way(package, target.split(".")[1:])}
    while waiting:
        found |= waiting
        waiting = {file for importer in waiting for file in imported_files(package, importer)} - found
    return found


def imported_files(package: Path, importer: Path) -> Iterator[Path]:
    """The files of the package that one of them imports itself."""
    folder = importer.relative_to(package).parent.parts
    for node in ast.walk(ast.parse(importer.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            start = [*folder[: len(folder) - node.level + 1], *(node.module.split(".") if node.module else [])]
            for alias in node.names:
                yield from files_on_the_way(package, [*start, alias.name])
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            if any(module.split(".")[0] == package.name for module in modules):
                raise BadInput(f"{importer}:{node.lineno} imports {package.name} by its name: import it relatively")


def files_on_the_way(package: Path, names: Iterable[str]) -> Iterator[Path]:
    """The files that Python reads to get at ``package.name.name...``, as far as the names are modules."""
    yield package / "__init__.py"
    folder = package
    for name in names:
        folder /= name
        if not (folder / "__init__.py").is_file():
            break
        yield folder / "__init__.py"
    if folder.with_suffix(".py").is_file():
        yield folder.with_suffix(".py")


def check_private(members: Mapping[str, bytes], places: Iterable[Path]) -> None:
    """Raise BadInput when a file holds a token, or a path on this machine."""
    known = [re.escape(str(place).encode()) for place in places if place != place.parent]
    path = re.compile(rb"(?<![\w.-])(?:%s|/(?:home|Users)/[\w-]+)(?![\w-])" % b"|".join(known))
    for name, data in members.items():
        if _TOKEN.search(data):
            raise BadInput(f"{name} holds what looks like a secret token or key: take it out")
        if found := path.search(data):
            line = data.count(b"\n", 0, found.start()) + 1
            raise BadInput(f"{name}, line {line}, holds the path {found[0].decode()} of this machine: take it out")


def zip_bytes(members: Mapping[str, bytes]) -> bytes:
    """A zip that depends on the members only. Stored, not deflated: zlib's output differs between its versions."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(members):
            info = zipfile.ZipInfo(path, EPOCH)
            info.create_system = 3  # Unix, wherever this runs
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(info, members[path])
    return buffer.getvalue()


def write_release(content: bytes, release: str, out_dir: Path) -> Path:
    """Write the zip, whole or not at all, and its sha1 into ``model_info.json`` as MONAI's model zoo has it."""
    info = out_dir / "model_info.json"
    entries = parse_json(info.read_bytes(), str(info)) if info.exists() else {}
    entries[release] = {"checksum": hashlib.sha1(content, usedforsecurity=False).hexdigest(), "source": ""}
    out_dir.mkdir(parents=True, exist_ok=True)
    path = out_dir / f"{release}.zip"
    with whole(path) as unfinished:
        unfinished.write_bytes(content)
    write_json(info, dict(sorted(entries.items())))
    return path


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a bundle's zip; returns its folder, new in ``folder``.

    Raises BadInput for a zip that is damaged, reaches outside or does not hold exactly one folder; nothing stays then.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            target = folder / top_folder(opened.infolist(), archive)
            if target.exists():
                raise BadInput(f"{target} exists already: remove it or unpack elsewhere")
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".unpacking_", dir=folder) as unfinished:
                opened.extractall(unfinished)
                os.replace(Path(unfinished) / target.name, target)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise BadInput(f"{archive} is damaged or no zip ({error}): download or pack it again") from error
    return target


def top_folder(members: Sequence[zipfile.ZipInfo], archive: Path) -> str:
    """Name of the one folder that holds all members; BadInput unless all of them may be unpacked."""
    tops: set[str] = set()
    seen: set[str] = set()
    for member in members:
        path = PureWindowsPath(member.filename)  # splits at both kinds of slashes
        if path.anchor:
            raise BadInput(f"{archive} holds the absolute path {member.filename!r}: not unpacked")
        if ".." in path.parts:
            raise BadInput(f"{archive} holds {member.filename!r}, which leads out of the folder: not unpacked")
        if "\\" in member.filename:
            raise BadInput(f"{archive} holds {member.filename!r} with a backslash: not unpacked")
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise BadInput(f"{archive} holds {member.filename!r}, a link or special file: not unpacked")
        if member.flag_bits & 1:
            raise BadInput(f"{archive} is encrypted: not unpacked")
        if str(path).lower() in seen:
            raise BadInput(f"{archive} holds {member.filename!r} twice: not unpacked")
        if len(path.parts) < 2 and not member.is_dir():
            raise BadInput(f"{archive} holds the file {member.filename!r} outside a folder: not unpacked")
        seen.add(str(path).lower())
        tops.update(path.parts[:1])
    if len(tops) != 1:
        raise BadInput(f"{archive} holds {len(tops)} folders ({', '.join(sorted(tops))}): expected one, the bundle's")
    if sum(member.file_size for member in members) > MAX_UNPACKED_BYTES:
        raise BadInput(f"{archive} would unpack to more than {MAX_UNPACKED_BYTES} bytes: not unpacked")
    return tops.pop()
