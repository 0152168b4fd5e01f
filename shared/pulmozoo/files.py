"""Files that are there whole or not at all: written under another name beside their place, then renamed."""

import csv
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write a file or a folder that takes the place of ``path`` when all went well; else nothing of it stays.

    The other name ends as that of ``path`` does, for writers that go by the ending. The folder of ``path`` is made.
    """
    unfinished = path.with_name(f"unfinished_{path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    discard(unfinished)  # of a run that was killed
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        discard(unfinished)


def discard(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace a text file as a whole."""
    with whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="\n")


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]], columns: Iterable[str]) -> None:
    """Replace a csv file as a whole; what a row does not have stays empty."""
    with whole(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(columns), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file as a whole."""
    write_text(path, json.dumps(content, indent=4) + "\n")
