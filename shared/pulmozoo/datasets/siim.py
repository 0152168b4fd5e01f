"""SIIM-ACR Pneumothorax as on Kaggle: DICOM films in nested folders and ``train-rle.csv`` with their run lengths."""

from pathlib import Path

import numpy as np

from ..bundle.errors import BadInput
from .dicom_series import read_dicom
from .film_dicom import check_header
from .film_list import FilmCase, LeftOut, read_table, write_mask
from .films import find_films
from .run_length import read_all_runs

TABLE = "train-rle.csv"


def siim_cases(data_dir: Path, output_dir: Path) -> tuple[list[FilmCase], list[LeftOut]]:
    """The films with annotations, all of one film joined, and what was left out; writes ``masks/<id>.png``.

    The reference program keeps the first annotation of a film only. Raises BadInput if there is no table or no film.
    """
    tables = sorted(data_dir.rglob(TABLE))
    if len(tables) != 1:
        raise BadInput(f"{data_dir} holds {len(tables)} files {TABLE}: expected one; unpack the data set as on Kaggle")
    runs: dict[str, list[str]] = {}
    for row in read_table(tables[0], ("ImageId", "EncodedPixels")):
        runs.setdefault(row["ImageId"], []).append(row["EncodedPixels"])
    cases: dict[str, FilmCase] = {}
    left_out: list[LeftOut] = []
    for film in find_films(data_dir):
        path = Path(film["image"]).absolute()
        try:
            uid, patient, mask = _annotated(path, runs)
            if uid in cases:
                raise BadInput("another file holds the same film")
        except BadInput as error:
            left_out.append(LeftOut(str(path), str(error)))
            continue
        label = f"masks/{uid}.png"
        write_mask(mask, output_dir / label)
        cases[uid] = FilmCase(str(path), label, int(mask.any()), patient)
    seen = {*cases, *(Path(left.image).stem for left in left_out)}
    left_out += [LeftOut(uid, "there is no film for this row of the table") for uid in runs if uid not in seen]
    return list(cases.values()), left_out


def _annotated(path: Path, runs: dict[str, list[str]]) -> tuple[str, str, np.ndarray]:
    """Id, patient and mask ``(rows, columns)`` of a film; reads the header only."""
    header = read_dicom(path, stop_before_pixels=True)
    check_header(header)
    uid = str(header.get("SOPInstanceUID") or path.stem)
    if uid not in runs:
        raise BadInput("it has no row in the table")
    mask = read_all_runs(runs[uid], int(header.Rows), int(header.Columns), uid)
    return uid, str(header.get("PatientID") or uid), mask
