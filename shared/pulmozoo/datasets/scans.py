"""Find the scans below a path and name them; standard library only, so that discovery needs no reader."""

from collections.abc import Iterator
from pathlib import Path

from ..bundle.errors import BadInput
from .discovery import unique_ids, visible_folders

VOLUME_SUFFIXES = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd")
EXPECTED = "a CT file (.nii, .nii.gz, .mha, .mhd, .nrrd, .dcm), a DICOM folder or a folder of scans"


def find_scans(dataset_dir: str | Path, series: str | None = None) -> list[dict[str, str]]:
    """List the scans at or below a path as ``{"image": path, "scan": id}``, sorted by path.

    A volume file is a scan; a folder with DICOM files directly in it is a scan. The id is the path relative to
    ``dataset_dir`` without suffix, ``/`` as ``__`` (for ``dataset_dir`` itself, its name). Where two ids would be the
    same, the later one keeps its suffix. Hidden files and folders are not looked at.

    Args:
        dataset_dir: one scan, or a folder of scans at any depth.
        series: SeriesInstanceUID to read where a folder holds several; travels along under the key ``series``.

    Raises BadInput if the path does not exist or holds no scan.
    """
    root = Path(dataset_dir).expanduser()
    if not root.exists():
        raise BadInput(f"{root} does not exist: expected {EXPECTED}")
    paths = sorted(_scans_in(root)) if root.is_dir() else [path for path in [root] if _is_scan_file(path)]
    if not paths:
        raise BadInput(f"{root} holds no scan: expected {EXPECTED}")
    chosen = {} if series is None else {"series": series}
    return [
        {"image": str(path), "scan": scan_id, **chosen}
        for path, scan_id in zip(paths, unique_ids(paths, root, [_id_suffix(path) for path in paths]), strict=True)
    ]


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM: ``DICM`` at byte 128 (the name need not have a suffix), or named ``.dcm``."""
    if path.suffix.lower() == ".dcm":
        return True
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def dicom_files(folder: Path) -> list[Path]:
    """The DICOM files directly in a folder, sorted; hidden files and the index file DICOMDIR are left out."""
    files = (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return sorted(path for path in files if path.name != "DICOMDIR" and not _suffix(path) and is_dicom(path))


def _suffix(path: Path) -> str:
    """The suffix of a volume file as it stands in the name, else an empty string."""
    return next((path.name[-len(end) :] for end in VOLUME_SUFFIXES if path.name.lower().endswith(end)), "")


def _is_scan_file(path: Path) -> bool:
    return bool(_suffix(path)) or is_dicom(path)


def _id_suffix(path: Path) -> str:
    """What the id of a scan leaves out of its name."""
    return "" if path.is_dir() else _suffix(path) or (path.suffix if path.suffix.lower() == ".dcm" else "")


def _scans_in(root: Path) -> Iterator[Path]:
    """Folders that hold DICOM files directly, and volume files, at or below the root."""
    for folder, files in visible_folders(root):
        if dicom_files(folder):
            yield folder
        yield from (path for path in files if _suffix(path))
