"""The phantom's emphysema against published patches of each class: 31 x 31 pixels of thin axial slices, in HU.

A reader looks for a place that shows a class; here the share of the patch that carries a label decides.
"""

import logging
from pathlib import Path

import numpy as np

from ..bundle.errors import BadInput
from ..files import write_rows
from .centrilobular import Centrilobular
from .chest import thorax
from .paraseptal import Paraseptal
from .realism import NORMAL_LUNG, PATCH_PX, Numbers, patch_numbers, tiles
from .scanner import Scanner

GRID = (512, 400, 5), (0.65, 0.65, 30.0)
SCANNER = Scanner(blur_mm=0.42, noise_hu=14.0, slice_mm=1.0)
PERCENTS = ((4, 3), (8, 12), (3, 25), (8, 40), (2, 60), (5, 8))  # paraseptal and centrilobular, of one chest in turn
VESSELS = 0.05  # share of a patch beyond which a reader would take another one
SHARES = {  # of a patch within the lungs that is centrilobular: more than the first, at most the second
    "normal": (-1.0, 0.0),
    "centrilobular 1": (0.02, 0.2),
    "centrilobular 2": (0.2, 0.55),
    "centrilobular 3": (0.55, 0.9),
    "panlobular": (0.93, 1.0),
}
PARASEPTAL, WALL = 0.3, (0.05, 0.4)  # least share of the label, and the share outside the lungs
NAMES = tuple(NORMAL_LUNG)
# Means over 148 to 370 patches a class from inspiratory CT of smokers, pixels of about 0.65 mm, labelled by experts.
PUBLISHED: dict[str, Numbers] = {
    "normal": NORMAL_LUNG,
    "centrilobular 1": dict(zip(NAMES, (-867, 102, -946, -892, -674, 7.6, 0.82, 0.48, 0.09, -0.01), strict=True)),
    "centrilobular 2": dict(zip(NAMES, (-890, 115, -982, -922, -675, 29.8, 0.83, 0.52, 0.14, 0.01), strict=True)),
    "centrilobular 3": dict(zip(NAMES, (-938, 78, -997, -959, -802, 60.8, 0.81, 0.47, 0.13, 0.02), strict=True)),
    "panlobular": dict(zip(NAMES, (-968, 36, -999, -976, -914, 82.2, 0.73, 0.35, 0.08, 0.02), strict=True)),
    "paraseptal": dict(zip(NAMES, (-641, 389, -985, -834, 68, 28.3, 0.94, 0.85, 0.64, 0.30), strict=True)),
}

logger = logging.getLogger(__name__)

COLUMNS = ("class", "patches", "measure", "published", "phantoms")


def write_patches(table: str | Path, count: int = 12, seed: int = 0) -> Path:
    """Write a csv: for each class the measures of the published patches beside those of ``count`` phantoms.

    Args:
        table: the csv; missing folders are made.
        count: phantoms, of which each has five slices.
        seed: of the first one.
    """
    target = Path(table)
    if target.suffix.lower() != ".csv":
        raise BadInput(f"{target} does not end in .csv: expected the name of the table; add .csv")
    if count < 1:
        raise BadInput(f"count is {count}: expected at least 1 phantom")
    found: dict[str, list[np.ndarray]] = {name: [] for name in PUBLISHED}
    for number in range(count):
        pse, cle = PERCENTS[number % len(PERCENTS)]
        chest = thorax(seed + number, *GRID, diseases=[Paraseptal(pse), Centrilobular(cle)], scanner=SCANNER)
        arrays = {name: volume.numpy() for name, volume in chest.items()}
        for name, patches in patches_by_class(arrays).items():
            found[name].append(patches)
        logger.info("patches of phantom %d of %d are measured", number + 1, count)
    rows = []
    for name, parts in found.items():
        patches = np.concatenate(parts)
        measured = patch_numbers(patches) if len(patches) else {}
        for measure, published in PUBLISHED[name].items():
            values = (name, len(patches), measure, published, _rounded(measured.get(measure)))
            rows.append(dict(zip(COLUMNS, values, strict=True)))
    write_rows(target, rows, COLUMNS)
    return target


def patches_by_class(chest: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Patches ``(N, 31, 31)`` in HU of each class, side by side in a chest of :func:`.chest.thorax`."""
    patches = tiles(chest["ct_hu"], PATCH_PX, PATCH_PX).astype(np.float64)
    lung, vessels, cle, pse = (
        tiles(chest[name] > 0, PATCH_PX, PATCH_PX).mean(axis=(1, 2))
        for name in ("lobes", "vessels", Centrilobular.name, Paraseptal.name)
    )
    inside = (lung == 1) & (vessels <= VESSELS) & (pse == 0)
    found = {name: patches[inside & (cle > low) & (cle <= high)] for name, (low, high) in SHARES.items()}
    least, most = WALL
    found["paraseptal"] = patches[(pse > PARASEPTAL) & (lung > 1 - most) & (lung < 1 - least)]
    return found


def _rounded(value: float | None) -> str | float:
    return "" if value is None else round(value, 2)
