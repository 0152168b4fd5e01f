"""One page of phantoms and real scans, a row each: lung and soft-tissue windows in three planes, and labels."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from PIL import Image, ImageDraw

from ..bundle.errors import BadInput, innermost_reason
from ..datasets.scans import find_scans
from ..files import whole
from ..handlers.overlay import PLANES, canonical_pair, coloured, enlarged, font, fullest_slice, sheet, view, windowed
from ..transforms.lungs import lungs_from_ct
from ..transforms.reading import read_ct, to_hu
from .chest import thorax
from .cohort import DISEASES
from .diseases import disease_cohort, disease_names
from .fields import Draws

GRID = (264, 212, 216), (1.4, 1.4, 1.5)
LUNG_HU, SOFT_HU = (-1350.0, 150.0), (-160.0, 240.0)
COLUMNS = (
    ("axial", LUNG_HU, False),
    ("axial", SOFT_HU, False),
    ("coronal", LUNG_HU, False),
    ("coronal", SOFT_HU, False),
    ("sagittal", LUNG_HU, False),
    ("axial", LUNG_HU, True),
    ("coronal", LUNG_HU, True),
)
PANEL_PX = (320, 264)
MM_PER_PX = 1.25

AIRWAY, VESSEL, LEFT_LUNG = 6, 7, 8  # beside lobes 1 to 5; the right lung has the number after the left one
LEGEND = {
    1: "left upper lobe",
    2: "left lower lobe",
    3: "right upper lobe",
    4: "right lower lobe",
    5: "right middle lobe",
    AIRWAY: "airways",
    VESSEL: "vessels",
    LEFT_LUNG: "left lung (real, classical)",
    LEFT_LUNG + 1: "right lung (real, classical)",
}

PATTERNS = ("healthy", "ground glass", "micronodules", "consolidation", "reticulation", "honeycombing")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Subject:
    """What a row shows: a CT and its labels, both ``(1, X, Y, Z)`` on one grid."""

    name: str
    ct_hu: MetaTensor
    labels: MetaTensor


def write_gallery(
    picture: str | Path,
    seed: int = 0,
    count: int = 4,
    scans: str | Path | None = None,
    disease: str | None = None,
) -> Path:
    """Draw ``count`` phantoms, and below them the scans of a folder where one is given; returns the picture's path.

    Phantoms show lobes, airways and vessels, or their disease; scans the lungs that are found classically. A file that
    is no chest CT is left out with a line that says why.

    Args:
        picture: the PNG; missing folders are made.
        seed: of the first phantom.
        count: phantoms, at least 1.
        scans: one CT or a folder of CTs, as for ``pulmozoo run``.
        disease: what the phantoms have, as for ``pulmozoo phantom``: the extents that its cohort draws, some of them 0.
    """
    target = Path(picture)
    if target.suffix.lower() != ".png":
        raise BadInput(f"{target} does not end in .png: expected the name of the picture; add .png")
    if count < 1:
        raise BadInput(f"count is {count}: expected at least 1 phantom")
    found = [] if scans is None else find_scans(scans)
    rows = []
    for number in range(seed, seed + count):
        rows.append(gallery_row(phantom_subject(number) if disease is None else ill_subject(number, disease)))
        logger.info("phantom %d of %d is drawn", len(rows), count)
    for item in found:
        try:
            rows.append(gallery_row(scan_subject(item["scan"], item["image"])))
        except BadInput as error:
            logger.warning("%s is left out: %s", item["scan"], innermost_reason(error))
            continue
        logger.info("%s is drawn", item["scan"])
    with whole(target) as unfinished:
        sheet(rows, "", LEGEND if disease is None else legend_of(disease)).save(unfinished, format="PNG")
    return target


def phantom_subject(seed: int) -> Subject:
    """A phantom on :data:`GRID` with its lobes, airways and vessels."""
    phantom = thorax(seed, *GRID)
    labels, affine = phantom["lobes"].clone(), phantom["affine"]
    labels[phantom["vessels"] > 0] = VESSEL
    labels[phantom["airways"] > 0] = AIRWAY
    ct_hu = to_hu(MetaTensor(phantom["ct_hu"][None], affine=affine))
    return Subject(f"phantom, seed {seed}", ct_hu, MetaTensor(labels[None], affine=affine))


def ill_subject(seed: int, disease: str) -> Subject:
    """A phantom on :data:`GRID` with its disease: the classes of the first label, then those of the next."""
    painted = disease_cohort(disease).draw(Draws(seed, DISEASES))
    phantom = thorax(seed, *GRID, diseases=painted)
    labels = torch.zeros_like(phantom["lobes"])
    for number, name in enumerate(each.name for each in painted):
        here = phantom[name] > 0
        labels[here] = phantom[name][here] + number
    affine = phantom["affine"]
    ct_hu = to_hu(MetaTensor(phantom["ct_hu"][None], affine=affine))
    return Subject(f"{disease}, seed {seed}", ct_hu, MetaTensor(labels[None], affine=affine))


def legend_of(disease: str) -> dict[int, str]:
    """What the colours of :func:`ill_subject` and of real lungs say."""
    names = PATTERNS if disease == "ild" else disease_names(disease)
    return dict(enumerate(names, start=1)) | {key: LEGEND[key] for key in (LEFT_LUNG, LEFT_LUNG + 1)}


def scan_subject(name: str, path: str | Path) -> Subject:
    """A CT file with the lungs found in it; raises BadInput for what is no CT."""
    ct_hu = read_ct(path)
    lungs = torch.from_numpy(lungs_from_ct(ct_hu.as_tensor()[0], ct_hu.affine))
    lungs[lungs > 0] += LEFT_LUNG - 1
    return Subject(name, ct_hu, MetaTensor(lungs[None], affine=ct_hu.affine))


def gallery_row(subject: Subject) -> list[Image.Image]:
    """The panels of one subject, all of one size and one scale; each slice is the one that shows most labels."""
    image, marks, spacing_mm = canonical_pair(subject.ct_hu, subject.labels)
    panels = []
    for plane, window_hu, with_labels in COLUMNS:
        axes = PLANES[plane]
        through = 3 - sum(axes)
        index = fullest_slice(marks, through)
        width, height = (max(1, round(image.shape[axis] * spacing_mm[axis] / MM_PER_PX)) for axis in axes)
        picture = windowed(view(image, through, index), (width, height), window_hu)
        if with_labels:
            picture = coloured(picture, enlarged(view(marks, through, index), (width, height)))
        panels.append(_centred(picture))
    ImageDraw.Draw(panels[0]).text(
        (4, 4), subject.name, fill=(255, 255, 255), font=font(), stroke_width=2, stroke_fill=(0, 0, 0)
    )
    return panels


def _centred(picture: np.ndarray) -> Image.Image:
    """A slice in the middle of a panel, cut at its edges."""
    panel, slice_ = Image.new("RGB", PANEL_PX), Image.fromarray(picture)
    panel.paste(slice_, ((panel.width - slice_.width) // 2, (panel.height - slice_.height) // 2))
    return panel
