"""Films with masks in two folders: ``images`` and ``masks``, each mask a PNG at the same place as its film.

An all-black mask says that there is no pneumothorax; a film without mask is left out. Films in one folder below
``images`` are those of one patient.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from ..bundle.errors import BadInput
from ..transforms.film_reading import read_film
from .film_list import FilmCase, LeftOut, write_mask
from .films import find_films


def masked_cases(data_dir: Path, output_dir: Path) -> tuple[list[FilmCase], list[LeftOut]]:
    """The films with masks and what was left out; writes ``masks/<film>.png``, 0 and 255, whatever the masks were."""
    images, masks = data_dir / "images", data_dir / "masks"
    if not (images.is_dir() and masks.is_dir()):
        raise BadInput(f"{data_dir} lacks a folder images or masks: expected both, a mask at the place of each film")
    cases: list[FilmCase] = []
    left_out: list[LeftOut] = []
    for film in find_films(images):
        path = Path(film["image"]).absolute()
        place = path.relative_to(images.absolute())
        try:
            mask = _read_mask(masks / place.with_suffix(".png"), path)
        except BadInput as error:
            left_out.append(LeftOut(str(path), str(error)))
            continue
        label = f"masks/{film['scan']}.png"
        write_mask(mask, output_dir / label)
        patient = str(place.parent) if place.parent != Path() else film["scan"]
        cases.append(FilmCase(str(path), label, int(mask.any()), patient))
    return cases, left_out


def _read_mask(path: Path, film: Path) -> np.ndarray:
    """Mask ``(rows, columns)`` bool of a film, on its grid."""
    if not path.is_file():
        raise BadInput(f"it has no mask {path}")
    columns, rows = read_film(film).shape[1:]
    try:
        with Image.open(path, formats=("PNG",)) as image:
            mask = np.asarray(image.convert("L") if not image.mode.startswith("I") else image) > 0
    except (OSError, SyntaxError) as error:
        raise BadInput(f"its mask {path} cannot be read ({error})") from error
    if mask.shape != (rows, columns):
        raise BadInput(
            f"its mask has {mask.shape[1]} x {mask.shape[0]} pixels: expected {columns} x {rows} as the film"
        )
    return mask
