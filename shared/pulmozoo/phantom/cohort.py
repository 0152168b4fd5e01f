"""Write many phantoms as NIfTI or DICOM with their labels and a MONAI datalist."""

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch import Tensor

from ..bundle.errors import BadInput
from ..datasets.dicom_writer import needs_pydicom, write_series
from ..files import whole, write_json
from .anatomy import draw_chest
from .chest import SCANNER, thorax
from .diseases import disease_cohort, disease_names
from .exam import Exam
from .fields import Draws
from .scanner import Triple, draw_scanner
from .scene import ANATOMY

FIELD_OF_VIEW, STORAGE, DISEASES, EXAM = 2, 5, 6, 7  # streams of random numbers, beside those of the chest itself
SEEDS_PER_COHORT = 1_000_000
TENTHS = {"training": range(8), "validation": range(8, 9), "test": range(9, 10)}
LOG_EVERY_PERCENT = 5
LABELS = {"label": "lobes", "airways": "airways", "vessels": "vessels"}  # key in the datalist: key of the phantom
USUAL_AXES = "LPS"
# Axes in which scans are stored now and then; those of DICOM are right-handed, because its readers order slices so.
RARE_AXES = {".nii.gz": ("RAS", "LAS", "RPI", "LSA", "SRA", "PIL"), "dicom": ("RAS", "RPI", "LSA")}

logger = logging.getLogger(__name__)


def write_cohort(
    output_dir: str | Path,
    count: int,
    seed: int = 0,
    spacing_mm: Triple | None = None,
    workers: int = 1,
    output_ext: str = ".nii.gz",
    disease: str | None = None,
) -> Path:
    """Write ``images/<id>``, ``labels/<id>.nii.gz`` (lobes), airways and vessels likewise, and ``datalist.json``.

    Files already there are kept. Each subject has its own field of view, and unless ``spacing_mm`` is given its own
    spacing, orientation and padding. Of every ten subjects eight train, one validates, one tests.

    Args:
        output_dir: made if missing.
        count: subjects.
        seed: which cohort; the same seed gives the same subjects, and a larger count only adds to them.
        spacing_mm: voxel size along x, y, z of all subjects, whose axes then all are L, P, S.
        workers: processes, each with one thread; 1 means this process, with the threads it has.
        output_ext: of the images, ``.nii.gz`` or ``dicom`` (a folder for each); labels are NIfTI on the same grid.
        disease: of the subjects, a name in :data:`.diseases.COHORTS`: each of its labels has a folder and a key.

    Returns the path of the datalist; raises BadInput for an argument that cannot be used.
    """
    _check(count, seed, spacing_mm, workers, output_ext)
    names = disease_names(disease) if disease else []
    folder = Path(output_dir)
    for part in ("images", "labels", "airways", "vessels", *names):
        (folder / part).mkdir(parents=True, exist_ok=True)
    write = partial(write_subject, folder, seed, spacing_mm, output_ext, disease=disease)
    if workers == 1:
        _log_progress(map(write, range(count)), count)
    else:
        # Not forked: a fork of a process in which torch already runs threads may hang.
        with ProcessPoolExecutor(
            workers, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            _log_progress(pool.map(write, range(count)), count)
    if disease and (write_table := disease_cohort(disease).write_table):
        write_table(folder, [_name(index) for index in range(count)])
    path = folder / "datalist.json"
    label = disease_cohort(disease).label if disease else None
    write_json(path, datalist(count, output_ext, names, label))
    return path


def datalist(
    count: int, output_ext: str = ".nii.gz", names: Sequence[str] = (), label: str | None = None
) -> dict[str, list[dict[str, str]]]:
    """The cohort in MONAI's form, split by subject.

    Args:
        count: subjects.
        output_ext: of the images.
        names: of the subjects' diseases.
        label: folder of what is to be learnt, if that is not the lobes.
    """
    return {
        split: [_entry(index, output_ext, names, label) for index in range(count) if index % 10 in tenths]
        for split, tenths in TENTHS.items()
    }


def _entry(index: int, output_ext: str, names: Sequence[str], label: str | None) -> dict[str, str]:
    files = _files(index, output_ext, names)
    if label is None:
        return files
    return {**files, "label": f"{label}/{_name(index)}.nii.gz", "lobes": files["label"]}


def _name(index: int) -> str:
    return f"phantom_{index:05d}"


def _files(index: int, output_ext: str, names: Sequence[str]) -> dict[str, str]:
    name = _name(index)
    image = name if output_ext == "dicom" else f"{name}{output_ext}"
    return {
        "image": f"images/{image}",
        "label": f"labels/{name}.nii.gz",
        "airways": f"airways/{name}.nii.gz",
        "vessels": f"vessels/{name}.nii.gz",
        **{disease: f"{disease}/{name}.nii.gz" for disease in names},
    }


def write_subject(
    folder: Path, seed: int, spacing_mm: Triple | None, output_ext: str, index: int, disease: str | None = None
) -> bool:
    """Write one subject; returns whether there was something to write."""
    subject = seed * SEEDS_PER_COHORT + index
    diseases = disease_cohort(disease).draw(Draws(subject, DISEASES)) if disease else []
    names = [each.name for each in diseases]
    files = {key: folder / file for key, file in _files(index, output_ext, names).items()}
    if all(file.exists() for file in files.values()):
        return False
    exam = draw_exam(subject, spacing_mm, output_ext)
    if disease and spacing_mm is None and (scan := disease_cohort(disease).scan):
        exam = scan(exam, Draws(subject, EXAM))
    phantom = thorax(subject, exam.shape, exam.spacing_mm, diseases=diseases, scanner=exam.scanner)
    for key, name in (LABELS | {name: name for name in names}).items():
        _save(_stored(phantom[name], phantom["affine"], exam.axes), files[key])
    image = _stored(phantom["ct_hu"], phantom["affine"], exam.axes)
    if output_ext == "dicom":
        patient = f"phantom_{seed:03d}_{index:05d}"
        _save_dicom(image, files["image"], patient, exam.scanner.slice_mm)
    else:
        _save(image, files["image"])
    return True


def draw_exam(seed: int, spacing_mm: Triple | None, output_ext: str = ".nii.gz") -> Exam:
    """The scan of one subject; with a given spacing it is straight, uncut by a circle and in the usual axes."""
    shape, spacing = draw_grid(seed, spacing_mm)
    scanner = draw_scanner(Draws(seed, SCANNER), spacing)
    if spacing_mm is not None:
        return Exam(shape, spacing, scanner, USUAL_AXES)
    draws = Draws(seed, STORAGE)
    scanner = replace(
        scanner,
        centre_mm=(draws.normal(0, 10), draws.normal(0, 10), 0.0),
        turn_degrees=(draws.normal(0, 4), 0.0, draws.normal(0, 4)) if draws.chance(0.15) else (0.0, 0.0, 0.0),
        field_mm=shape[0] * spacing[0] if draws.chance(0.6) else None,
        padding_hu=(-1024, -2048, -3024)[draws.integer(0, 2)],
    )
    rare = RARE_AXES[output_ext]
    return Exam(shape, spacing, scanner, USUAL_AXES if draws.chance(0.5) else rare[draws.integer(0, len(rare) - 1)])


def draw_grid(seed: int, spacing_mm: Triple | None) -> tuple[tuple[int, int, int], Triple]:
    """Shape and spacing of one subject's scan: the lungs are covered in most, cut at top and bottom in some."""
    draws = Draws(seed, FIELD_OF_VIEW)
    in_plane = draws.uniform(280, 450)
    height = draw_chest(Draws(seed, ANATOMY)).left.height
    along = height * draws.uniform(0.7, 1) if draws.chance(0.12) else height + draws.uniform(25, 110)
    if spacing_mm is None:
        pixel = draws.uniform(1.0, 2.5)
        spacing_mm = (pixel, pixel, math.exp(draws.uniform(math.log(1), math.log(10))))
    x, y, z = (max(round(size / step), 1) for size, step in zip((in_plane, in_plane, along), spacing_mm, strict=True))
    return (x, y, z), spacing_mm


def _check(count: int, seed: int, spacing_mm: Triple | None, workers: int, output_ext: str) -> None:
    if not (_is_integer(count) and _is_integer(workers) and count >= 1 and workers >= 1):
        raise BadInput(f"count and workers must be at least 1, got count {count} and workers {workers}")
    if not (_is_integer(seed) and seed >= 0):
        raise BadInput(f"seed must be an integer of at least 0, got {seed!r}")
    if spacing_mm is not None and not _is_spacing(spacing_mm):
        raise BadInput(f'spacing_mm must be three positive numbers "(x, y, z)" in mm, got {spacing_mm}')
    if output_ext not in RARE_AXES:
        raise BadInput(f"output_ext must be {' or '.join(RARE_AXES)}, got {output_ext!r}")
    if output_ext == "dicom":
        needs_pydicom()


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_spacing(value: object) -> bool:
    if not isinstance(value, (tuple, list)) or len(value) != 3:
        return False
    return all(isinstance(step, (int, float)) and math.isfinite(step) and step > 0 for step in value)


def _stored(volume: Tensor, affine: Tensor, axes: str) -> nib.Nifti1Image:
    """A volume in the axes in which it is to be stored."""
    image = nib.Nifti1Image(volume.numpy(), affine.numpy())
    own, wanted = nib.orientations.io_orientation(image.affine), nib.orientations.axcodes2ornt(axes)
    image = image.as_reoriented(nib.orientations.ornt_transform(own, wanted))
    image.header.set_xyzt_units("mm")
    return image


def _save(image: nib.Nifti1Image, path: Path) -> None:
    with whole(path) as unfinished:
        nib.save(image, unfinished)


def _save_dicom(image: nib.Nifti1Image, path: Path, patient: str, slice_mm: float) -> None:
    with whole(path) as unfinished:
        write_series(unfinished, np.asarray(image.dataobj), image.affine, patient, slice_mm, "synthetic thorax")


def _log_progress(written: Iterable[bool] | Iterator[bool], count: int) -> None:
    new = 0
    step = max(count * LOG_EVERY_PERCENT // 100, 1)
    for done, is_new in enumerate(written, start=1):
        new += is_new
        if done % step == 0 or done == count:
            logger.info("%d of %d phantoms are there, %d of them new", done, count, new)
