"""Write many synthetic chest films as PNG or DICOM files with masks and a MONAI datalist."""

import json
import logging
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..bundle.errors import BadInput
from ..datasets.dicom_writer import needs_pydicom
from ..files import whole, write_json
from .fields import Draws
from .film_dicom_file import write_film
from .pneumothorax import draw_kind
from .radiograph import FilmSubject, check_size, draw_film_subject, expose

FILMS_PER_PATIENT = 4
SEEDS_PER_COHORT = 1_000_000
COHORT = 12  # stream of random numbers
PORTABLE_SHARE = 0.4
TENTHS = {"training": range(8), "validation": range(8, 9), "test": range(9, 10)}
SUFFIXES = (".png", ".dcm")
LOG_EVERY_PERCENT = 5

logger = logging.getLogger(__name__)


def write_films(
    output_dir: str | Path,
    count: int,
    seed: int = 0,
    size: int = 512,
    workers: int = 1,
    output_ext: str = ".png",
) -> Path:
    """Write ``images/<id>.png``, ``labels/<id>.png`` (255 in the air), ``facts/<id>.json`` and ``datalist.json``.

    Films already there are kept. Four films in a row are of one patient, two of them with a pneumothorax. Of every ten
    patients eight train, one validates, one tests. The entries of the datalist also hold what ``facts`` does,
    ``has_pneumothorax``, ``patient``, ``view``, ``kind``, ``side`` and ``pixel_mm``, and the ``fold`` of their
    patient, the last digit of its number.

    Args:
        output_dir: made if missing.
        count: films.
        seed: which cohort; the same seed gives the same films, and a larger count only adds to them.
        size: rows and columns.
        workers: processes, each with one thread; 1 means this process, with the threads it has.
        output_ext: of the images, .png (8 bit) or .dcm (12 bit, half of them MONOCHROME1; needs the dicom extra).

    Returns the path of the datalist; raises BadInput for an argument that cannot be used.
    """
    _check(count, seed, size, workers, output_ext)
    folder = Path(output_dir)
    for part in ("images", "labels", "facts"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    write = partial(write_patient, folder, seed, size, output_ext, count)
    patients = range((count + FILMS_PER_PATIENT - 1) // FILMS_PER_PATIENT)
    if workers == 1:
        _log_progress(map(write, patients), count)
    else:
        # Not forked: a fork of a process in which torch already runs threads may hang.
        with ProcessPoolExecutor(
            workers, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            _log_progress(pool.map(write, patients), count)
    path = folder / "datalist.json"
    write_json(path, read_datalist(folder, count))
    return path


def _check(count: int, seed: int, size: int, workers: int, output_ext: str) -> None:
    for name, value in (("count", count), ("workers", workers)):
        if not isinstance(value, int) or value < 1:
            raise BadInput(f"{name} must be a whole number of at least 1, got {value!r}")
    if not isinstance(seed, int) or seed < 0:
        raise BadInput(f"seed must be a whole number of at least 0, got {seed!r}")
    check_size(size)
    if output_ext not in SUFFIXES:
        raise BadInput(f"output_ext must be one of {', '.join(SUFFIXES)}, got {output_ext!r}")
    if output_ext == ".dcm":
        needs_pydicom()


def read_datalist(folder: Path, count: int) -> dict[str, list[dict[str, Any]]]:
    """The films on disk in MONAI's form, split by patient."""
    splits: dict[str, list[dict[str, Any]]] = {split: [] for split in TENTHS}
    for index in range(count):
        patient = index // FILMS_PER_PATIENT
        facts = json.loads(_facts_path(folder, index).read_text(encoding="utf-8"))
        splits[split_of(patient)].append({**facts, "fold": patient % 10})
    return splits


def split_of(patient: int) -> str:
    """Which part of the datalist a patient is in."""
    return next(name for name, tenths in TENTHS.items() if patient % 10 in tenths)


def write_patient(folder: Path, seed: int, size: int, output_ext: str, count: int, patient: int) -> tuple[int, int]:
    """Write the missing films of one patient; returns how many of them there are and how many were written."""
    first = patient * FILMS_PER_PATIENT
    films = range(first, min(first + FILMS_PER_PATIENT, count))
    missing = [index for index in films if not _facts_path(folder, index).exists()]
    if missing:
        drawn = draw_film_subject(seed * SEEDS_PER_COHORT + patient, size)
        for index in missing:
            _write_film(folder, seed, size, output_ext, drawn, index)
    return len(films), len(missing)


def _write_film(folder: Path, seed: int, size: int, output_ext: str, patient: FilmSubject, index: int) -> None:
    """One film; its facts come last, so that where they are, the film is whole."""
    film_seed = seed * SEEDS_PER_COHORT + index
    draws = Draws(film_seed, COHORT)
    view = "AP" if draws.chance(PORTABLE_SHARE) else "PA"
    kind = draw_kind(draws, view) if index % 2 == 0 else None
    photometric = "MONOCHROME1" if output_ext == ".dcm" and draws.chance(0.5) else "MONOCHROME2"
    result = expose(patient, film_seed, kind, size, view, photometric=photometric)
    image, label = (f"{part}/film_{index:05d}{suffix}" for part, suffix in (("images", output_ext), ("labels", ".png")))
    facts = {
        "image": image,
        "label": label,
        "has_pneumothorax": int(result["has_pneumothorax"]),
        "patient": f"phantom_{seed:03d}_{index // FILMS_PER_PATIENT:05d}",
        "view": view,
        "kind": result["kind"],
        "side": result["side"],
        "pixel_mm": round(result["pixel_mm"], 4),
    }
    _save_png(folder / label, (result["mask"].numpy() * 255).astype(np.uint8))
    film = result["film"].numpy()
    if output_ext == ".png":
        _save_png(folder / image, np.round(film * 255).astype(np.uint8))
    else:
        with whole(folder / image) as unfinished:
            write_film(unfinished, film, facts["patient"], view, float(facts["pixel_mm"]), photometric)
    write_json(_facts_path(folder, index), facts)


def _facts_path(folder: Path, index: int) -> Path:
    return folder / "facts" / f"film_{index:05d}.json"


def _save_png(path: Path, grey: np.ndarray) -> None:
    with whole(path) as unfinished:
        Image.fromarray(grey).save(unfinished)


def _log_progress(written: Iterable[tuple[int, int]], count: int) -> None:
    done = new = logged = 0
    for there, added in written:
        done, new = done + there, new + added
        if done == count or done - logged >= count * LOG_EVERY_PERCENT / 100:
            logger.info("%d of %d films are there, %d of them new", done, count, new)
            logged = done
