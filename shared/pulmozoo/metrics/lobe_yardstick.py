"""What can be said of lobes on a real CT without labels: lungs, fissures, topology, and how stable they are.

The lungs and the fissure-like sheets are found without a network. The shape prior, which looks at no image, is
measured by the same rule in the same lungs, and so is every place in them (chance): what a network must beat.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from scipy import ndimage

from ..bundle.errors import BadInput, innermost_reason
from ..bundle.run import write_csv
from ..datasets.scans import find_scans
from ..files import write_json
from ..handlers.overlay import truth_and_prediction
from ..phantom.lobe_shape import shape_prior
from ..transforms.grid import resample, resample_labels, working_shape
from ..transforms.lung_files import file_of, on_ct, read_labels
from ..transforms.lungs import lungs_from_ct
from ..transforms.reading import read_ct
from ..transforms.upright import on_grid
from .changed_scans import AS_IS
from .fissure_sheets import VOXEL_MM, below_pleura, fissure_sheets
from .lobe_topology import NAMES, NEIGHBOURS, boundary, topology_numbers

NEAR_MM = 3.0
THICKEST_MM = 3.0  # of a slice in which fissures can be measured, see docs/yardstick.md
FISSURES = {"left_oblique": ((1, 2),), "right_oblique": ((3, 4), (4, 5)), "horizontal": ((3, 5),), "all": NEIGHBOURS}

Numbers = dict[str, Any]

logger = logging.getLogger(__name__)


def mask_dice(one: np.ndarray, other: np.ndarray) -> float:
    """Overlap of two bool masks of one shape, 0 to 1; 1 where both are empty."""
    size = np.count_nonzero(one) + np.count_nonzero(other)
    return 2 * np.count_nonzero(one & other) / size if size else 1.0


def lobes_agree(one: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """Dice of two lobe maps of one shape: ``mean_dice`` over the lobes and ``least_dice``."""
    scores = [mask_dice(one == lobe, other == lobe) for lobe in NAMES]
    return {"mean_dice": float(np.mean(scores)), "least_dice": min(scores)}


def share_near(sheets: np.ndarray, places: np.ndarray, voxel_mm: float) -> float | None:
    """Percent of the places that lie within 3 mm of a sheet, both bool ``(X, Y, Z)``; None where there is no place."""
    if not places.any():
        return None
    if not sheets.any():
        return 0.0
    distance = ndimage.distance_transform_edt(~sheets, sampling=voxel_mm)
    return float(100 * (distance[places] <= NEAR_MM).mean())


def sheet_numbers(ct_hu: np.ndarray, lungs: np.ndarray, maps: Mapping[str, np.ndarray]) -> Numbers:
    """Percent of the border between lobes that lies within 3 mm of a fissure-like sheet.

    ``<map>_<fissure>_at_sheets_percent`` of each lobe map, by fissure and for ``all``, and ``chance_at_sheets_percent``
    of all voxels that count: those more than 5 mm below the pleura, which is a sheet as well. None where a fissure has
    no such voxel.

    Args:
        ct_hu: ``(X, Y, Z)`` with cubic voxels of ``VOXEL_MM``.
        lungs: left 1, right 2, the same shape.
        maps: lobes of the same shape.
    """
    deep = below_pleura(lungs, VOXEL_MM)
    sheets = fissure_sheets(ct_hu, deep, VOXEL_MM)
    numbers: Numbers = {
        "sheets_percent_of_lung": 100 * float(sheets.sum() / max(deep.sum(), 1)),
        "chance_at_sheets_percent": share_near(sheets, deep, VOXEL_MM),
    }
    for name, lobes in maps.items():
        for fissure, pairs in FISSURES.items():
            places = boundary(lobes, pairs) & deep
            numbers[f"{name}_{fissure}_at_sheets_percent"] = share_near(sheets, places, VOXEL_MM)
    return numbers


def classical_lungs(ct_hu: MetaTensor) -> np.ndarray:
    """Left 1 and right 2, uint8 ``(X, Y, Z)``; BadInput if no lung is found."""
    lungs = lungs_from_ct(ct_hu.as_tensor()[0].numpy(), ct_hu.affine)
    if not lungs.any():
        raise BadInput("no lung was found by classical means: expected a chest CT; leave this scan out")
    return lungs


def prior_in(lungs: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """The shape prior, uint8 lobes ``(X, Y, Z)``, along the anatomical axes that are closest to the scan's.

    Args:
        lungs: left 1 and right 2, ``(X, Y, Z)``.
        affine: ``(4, 4)`` from voxel index to RAS+ mm.
    """
    turn = nib.orientations.inv_ornt_aff(nib.orientations.io_orientation(affine), lungs.shape)
    return shape_prior(torch.from_numpy(lungs), torch.from_numpy(np.linalg.inv(turn))).numpy()


def scan_numbers(ct_hu: MetaTensor, lobes: MetaTensor, lungs: np.ndarray, prior: np.ndarray) -> Numbers:
    """All that one CT says of its lobes; BadInput for other labels.

    Where slices are too thick for fissures to be measured, nothing is said of sheets.

    Args:
        ct_hu, lobes: ``(1, X, Y, Z)`` on one grid.
        lungs, prior: of :func:`classical_lungs` and :func:`prior_in`, ``(X, Y, Z)``.
    """
    ct, found = ct_hu.as_tensor()[0].numpy(), lobes.as_tensor()[0].numpy()
    if found.max() > max(NAMES):
        raise BadInput(
            f"the lobes have a label {found.max()}: expected 1 to {max(NAMES)} as the lobe bundle writes them"
        )
    spacing_mm = ct_hu.pixdim.tolist()
    numbers: Numbers = {
        "lungs_dice": mask_dice(found > 0, lungs > 0),
        "left_lung_dice": mask_dice((found == 1) | (found == 2), lungs == 1),
        "right_lung_dice": mask_dice(found > 2, lungs == 2),
        **topology_numbers(found, spacing_mm),
        "slice_mm": max(spacing_mm),
        "fissures_measurable": max(spacing_mm) <= THICKEST_MM,
    }
    if numbers["fissures_measurable"]:
        box = ndimage.find_objects((lungs > 0).astype(np.uint8))[0]
        volumes = (ct.astype(np.float32), lungs, found, prior)
        ct, lungs, found, prior = (cubic(volume[box], spacing_mm) for volume in volumes)
        numbers |= sheet_numbers(ct, lungs, {"lobes": found, "prior": prior})
    return numbers


def cubic(volume: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """``(X, Y, Z)`` on voxels of ``VOXEL_MM``: floats linear, labels by the largest share."""
    shape = working_shape(volume.shape, spacing_mm, {"spacing_mm": VOXEL_MM})
    channel = torch.from_numpy(np.ascontiguousarray(volume))[None]
    if channel.is_floating_point():
        return resample(channel, shape, antialias=False)[0].numpy()
    return resample_labels(channel, shape, antialias=False)[0].numpy()


def stability_numbers(change: str, ct_hu: MetaTensor, lobes: MetaTensor, changed: Path) -> Numbers:
    """How well the lobes of a changed scan, brought back to the CT's grid by the nearest voxel, agree with its own."""
    other = on_grid(read_labels(changed), ct_hu.affine, ct_hu.shape[1:], mode="nearest")[0].numpy()
    agreed = lobes_agree(lobes.as_tensor()[0].numpy(), other)
    return {f"{change}_{name}": value for name, value in agreed.items()}


def write_yardstick(
    output_dir: Path, scans: Path, results: Mapping[str, Path], pairs: Sequence[str] = ()
) -> list[Numbers]:
    """Measure the lobes of every CT at or below ``scans``; write ``yardstick.csv``, ``yardstick.json`` and pictures.

    ``<scan>.png`` shows the CT above, the shape prior in the middle and the lobes below, where these two differ most.

    Args:
        output_dir: made if missing.
        scans: one CT or a folder of CTs.
        results: lobes of the scans by change, as :func:`.lung_files.file_of` finds them; under ``as_is`` of the scans
            as they are, which is all that must be there.
        pairs: ids of scans on one grid that show the same chest, two by two.

    Returns the rows: ``scan``, numbers, ``status`` (done, failed), ``reason``. Raises BadInput if none could be done.
    """
    found = {item["scan"]: Path(item["image"]) for item in find_scans(scans)}
    partners = paired(pairs, found)
    rows = []
    for scan, image in found.items():
        try:
            numbers = one_scan(scan, image, results, partners.get(scan), output_dir / f"{scan}.png")
            rows.append({"scan": scan, **numbers, "status": "done", "reason": ""})
        except (BadInput, ValueError, OSError) as error:
            logger.warning("%s is left out: %s", scan, innermost_reason(error))
            rows.append({"scan": scan, "status": "failed", "reason": innermost_reason(error)})
        logger.info("%d of %d scans are measured", len(rows), len(found))
    if all(row["status"] == "failed" for row in rows):
        raise BadInput(f"no scan in {scans} could be measured: expected chest CTs with lobes; {rows[0]['reason']}")
    write_json(output_dir / "yardstick.json", rows)
    write_csv(rows, output_dir / "yardstick.csv")
    return rows


def paired(pairs: Sequence[str], scans: Mapping[str, Path]) -> dict[str, str]:
    """Each scan's partner; BadInput unless the ids are two by two those of scans."""
    strange = [scan for scan in pairs if scan not in scans]
    if strange or len(pairs) % 2:
        raise BadInput(f'pairs must be ids of scans two by two, as "(a, b)", got {tuple(pairs)}; there are {[*scans]}')
    both = list(zip(pairs[::2], pairs[1::2], strict=True))
    return dict(both + [(other, one) for one, other in both])


def one_scan(scan: str, image: Path, results: Mapping[str, Path], partner: str | None, picture: Path) -> Numbers:
    """A scan's row without its name, and its picture."""
    ct_hu = read_ct(image)
    lobes = on_ct(file_of(results[AS_IS], scan), ct_hu)
    lungs = classical_lungs(ct_hu)
    prior = prior_in(lungs, ct_hu.affine.numpy())
    numbers = {"weights_sha256": weights_of(results[AS_IS] / scan), **scan_numbers(ct_hu, lobes, lungs, prior)}
    picture.parent.mkdir(parents=True, exist_ok=True)
    on_scan = MetaTensor(torch.from_numpy(prior)[None], affine=ct_hu.affine)
    truth_and_prediction(ct_hu, on_scan, lobes, scan, NAMES).save(picture)
    changed = {change: file_of(folder, scan) for change, folder in results.items() if change != AS_IS}
    if partner is not None:
        changed["pair"] = file_of(results[AS_IS], partner)
    for change, path in changed.items():
        numbers |= stability_numbers(change, ct_hu, lobes, path)
    return numbers


def weights_of(folder: Path) -> str:
    """Checksum of the weights that made the results in a folder; empty where lobes come from elsewhere."""
    path = folder / "results.json"
    if not path.is_file():
        return ""
    return str(json.loads(path.read_text(encoding="utf-8"))["weights"]["sha256"])
