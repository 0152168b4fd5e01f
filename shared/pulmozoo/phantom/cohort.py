"""Write many phantoms as NIfTI files with a MONAI datalist."""

import json
import logging
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import nibabel as nib
import torch
from torch import Tensor

from .anatomy import draw_chest
from .chest import ANATOMY, thorax
from .fields import Draws

FIELD_OF_VIEW = 2  # stream of random numbers, beside those of the chest itself
SEEDS_PER_COHORT = 1_000_000
TENTHS = {"training": range(8), "validation": range(8, 9), "test": range(9, 10)}
LOG_EVERY_PERCENT = 5

logger = logging.getLogger(__name__)


def write_cohort(
    output_dir: str | Path,
    count: int,
    seed: int = 0,
    spacing_mm: tuple[float, float, float] | None = None,
    workers: int = 1,
) -> Path:
    """Write ``images/<id>.nii.gz``, ``labels/<id>.nii.gz`` (lobes) and ``datalist.json``; files already there are kept.

    Each subject has its own field of view. Of every ten subjects eight train, one validates, one tests.

    Args:
        output_dir: made if missing.
        count: subjects.
        seed: which cohort; the same seed gives the same subjects, and a larger count only adds to them.
        spacing_mm: voxel size along x, y, z of all subjects; without it each draws its own.
        workers: processes, each with one thread; 1 means this process, with the threads it has.

    Returns the path of the datalist.
    """
    if count < 1 or workers < 1:
        raise ValueError(f"count and workers must be at least 1, got count {count} and workers {workers}")
    folder = Path(output_dir)
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    write = partial(write_subject, folder, seed, spacing_mm)
    if workers == 1:
        _log_progress(map(write, range(count)), count)
    else:
        # Not forked: a fork of a process in which torch already runs threads may hang.
        with ProcessPoolExecutor(
            workers, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            _log_progress(pool.map(write, range(count)), count)
    path = folder / "datalist.json"
    _replace_text(path, json.dumps(datalist(count), indent=1) + "\n")
    return path


def datalist(count: int) -> dict[str, list[dict[str, str]]]:
    """The cohort in MONAI's form, split by subject."""
    return {
        split: [_files(index) for index in range(count) if index % 10 in tenths] for split, tenths in TENTHS.items()
    }


def _files(index: int) -> dict[str, str]:
    name = f"phantom_{index:05d}.nii.gz"
    return {"image": f"images/{name}", "label": f"labels/{name}"}


def write_subject(folder: Path, seed: int, spacing_mm: tuple[float, float, float] | None, index: int) -> bool:
    """Write one subject; returns whether there was something to write."""
    image, label = (folder / file for file in _files(index).values())
    if image.exists() and label.exists():
        return False
    subject_seed = seed * SEEDS_PER_COHORT + index
    shape, spacing = draw_grid(subject_seed, spacing_mm)
    phantom = thorax(subject_seed, shape, spacing)
    _save(phantom["lobes"], phantom["affine"], label)
    _save(phantom["ct_hu"], phantom["affine"], image)
    return True


def draw_grid(
    seed: int, spacing_mm: tuple[float, float, float] | None
) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    """Shape and spacing of one subject's scan: the lungs are covered in most, cut at top and bottom in some."""
    draws = Draws(seed, FIELD_OF_VIEW)
    in_plane = draws.uniform(280, 450)
    height = draw_chest(Draws(seed, ANATOMY)).left.height
    along = height * draws.uniform(0.7, 1) if draws.chance(0.12) else height + draws.uniform(25, 110)
    if spacing_mm is None:
        pixel = draws.uniform(1.0, 2.5)
        spacing_mm = (pixel, pixel, draws.uniform(1.0, 4.0))
    x, y, z = (max(round(size / step), 1) for size, step in zip((in_plane, in_plane, along), spacing_mm, strict=True))
    return (x, y, z), spacing_mm


def _save(volume: Tensor, affine: Tensor, path: Path) -> None:
    """Write under another name first, so that a file of this name is always whole."""
    image = nib.Nifti1Image(volume.numpy(), affine.numpy())
    image.header.set_xyzt_units("mm")
    unfinished = path.with_name(f"unfinished_{path.name}")
    nib.save(image, unfinished)
    unfinished.replace(path)


def _replace_text(path: Path, text: str) -> None:
    unfinished = path.with_name(f"unfinished_{path.name}")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def _log_progress(written: Iterable[bool] | Iterator[bool], count: int) -> None:
    new = 0
    step = max(count * LOG_EVERY_PERCENT // 100, 1)
    for done, is_new in enumerate(written, start=1):
        new += is_new
        if done % step == 0 or done == count:
            logger.info("%d of %d phantoms are there, %d of them new", done, count, new)
