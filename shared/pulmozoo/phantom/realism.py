"""Phantom against real chest CTs: the same measures on both, on the same grid, with lungs found classically.

Noise power follows ICRU Report 87 (2012): ensemble mean of the squared Fourier transform of detrended patches.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from scipy import ndimage
from scipy.stats import wasserstein_distance

from ..bundle.errors import BadInput, innermost_reason
from ..datasets.scans import find_scans
from ..files import write_rows, write_text
from ..transforms.lungs import RIGHT, lungs_from_ct
from ..transforms.reading import read_ct, to_hu
from .chest import thorax

HISTOGRAM_HU = np.arange(-1030.0, 211.0, 10.0)  # edges; what is brighter falls into the last bin
EMPHYSEMA_HU = -950.0
VESSEL_HU = -500.0
RIM_MM, CENTRAL_MM = 5.0, 20.0  # below the lung's surface: not counted, and where the central zone begins
ZONES = ("basal", "middle", "apical")

NOISE_PER_MM = (0.1, 0.2, 0.35)  # below the Nyquist frequency of pixels up to 1.4 mm
NOISE_PATCH_MM = 20.0
NOISE_PATCHES = 48
SOFT_TISSUE_HU = (-20.0, 250.0)  # from water to contrast-filled blood, without fat and bone
FILL_SHARE = 0.5  # of pixels like their neighbour: more is no measurement, as where a registration left a gap
SMOOTH_MM = 4.0  # noise is gone after this blur, edges are not

PATCH_PX = 31
LAGS_PX = (1, 2, 4, 8)
PATCH_GRID = (512, 400, 9), (0.65, 0.65, 1.0)
# Mean over 370 patches that experts labelled normal, inspiratory CT of smokers, pixels of about 0.65 mm.
NORMAL_LUNG = {
    "mean_hu": -851.0,
    "sd_hu": 117.0,
    "p5_hu": -931.0,
    "p50_hu": -894.0,
    "p95_hu": -638.0,
    "laa950_percent": 2.1,
    "autocorrelation_1": 0.80,
    "autocorrelation_2": 0.48,
    "autocorrelation_4": 0.14,
    "autocorrelation_8": 0.04,
}

SCAN_COLUMNS = {
    "measure": "measure",
    "real": "real",
    "inside": "inside",
    "phantom_p5": "phantoms: 5 %",
    "phantom_p50": "50 %",
    "phantom_p95": "95 %",
    "phantom_min": "least",
    "phantom_max": "greatest",
}
PATCH_COLUMNS = {
    "measure": "measure",
    "published": "published",
    "phantom_mean": "phantoms",
    "difference": "difference",
    "phantom_min": "least",
    "phantom_max": "greatest",
}

logger = logging.getLogger(__name__)

Numbers = dict[str, float]


@dataclass(frozen=True)
class Chest:
    """A CT turned so that its axes run to the right, to the front and up: ``(X, Y, Z)`` HU, lungs, mm."""

    ct_hu: np.ndarray
    lungs: np.ndarray
    spacing_mm: tuple[float, float, float]


@dataclass(frozen=True)
class Measured:
    """What was measured of one CT, its lung histogram and the grid on which a phantom can be compared with it."""

    name: str
    numbers: Numbers
    histogram: np.ndarray
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    side: int  # 1 or 2 if the CT shows one lung only, else 0


def lung_numbers(values_hu: np.ndarray) -> Numbers:
    """Mean, sd, percentiles and LAA-950 (strictly below) of the lung's voxels ``(N,)``."""
    p5, p50, p95 = np.percentile(values_hu, (5, 50, 95))
    return {
        "lung_mean_hu": float(values_hu.mean()),
        "lung_sd_hu": float(values_hu.std()),
        "lung_p5_hu": float(p5),
        "lung_p50_hu": float(p50),
        "lung_p95_hu": float(p95),
        "laa950_percent": float((values_hu < EMPHYSEMA_HU).mean() * 100),
    }


def lung_histogram(values_hu: np.ndarray) -> np.ndarray:
    """Share of voxels ``(N,)`` in each bin of :data:`HISTOGRAM_HU`; what lies beyond counts in the outermost bins."""
    middle_of_ends = HISTOGRAM_HU[[0, -1]] + (5, -5)
    counts, _ = np.histogram(values_hu.clip(*middle_of_ends), HISTOGRAM_HU)
    return counts / counts.sum()


def histogram_distance(one: np.ndarray, other: np.ndarray) -> float:
    """HU by which one histogram must be moved, on the average, to become the other (Wasserstein)."""
    centres = (HISTOGRAM_HU[:-1] + HISTOGRAM_HU[1:]) / 2
    return float(wasserstein_distance(centres, centres, one, other))


def vessel_numbers(ct_hu: np.ndarray, lungs: np.ndarray, spacing_mm: Sequence[float]) -> Numbers:
    """Percent of lung voxels above -500 HU in thirds of the lungs' height, and near to and far from their surface.

    The outermost 5 mm, where the chest wall blurs in, count nowhere; central is deeper than 20 mm. NaN where a zone has
    no voxel.

    Args:
        ct_hu: ``(X, Y, Z)``, z up.
        lungs: the same shape, not 0 inside.
        spacing_mm: voxel size.
    """
    box = ndimage.find_objects((lungs > 0).astype(np.uint8))[0]
    ct, lung = ct_hu[box], np.pad(lungs[box] > 0, 1)
    depth = ndimage.distance_transform_edt(lung, sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
    bright, inner = ct > VESSEL_HU, depth > RIM_MM
    numbers = {}
    thirds = np.array_split(np.arange(ct.shape[2]), 3)
    for zone, levels in zip(ZONES, thirds, strict=True):
        numbers[f"vessels_{zone}_percent"] = _percent(bright[..., levels][inner[..., levels]])
    numbers["vessels_central_percent"] = _percent(bright[depth > CENTRAL_MM])
    numbers["vessels_peripheral_percent"] = _percent(bright[inner & (depth <= CENTRAL_MM)])
    return numbers


def _percent(hits: np.ndarray) -> float:
    return float(hits.mean() * 100) if hits.size else float("nan")


def soft_tissue_patches(ct_hu: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """The flattest axial squares of 20 mm within soft tissue (liver, heart, aorta, muscle): ``(N, n, m)`` HU, N <= 48.

    Flat is judged after a blur that takes the noise away, so that quiet squares are not preferred.
    """
    sx, sy, _ = spacing_mm
    n, m = round(NOISE_PATCH_MM / sx), round(NOISE_PATCH_MM / sy)
    smooth = ndimage.gaussian_filter(ct_hu.astype(np.float32), (SMOOTH_MM / sx, SMOOTH_MM / sy, 0))
    sharp_tiles, smooth_tiles = tiles(ct_hu, n, m), tiles(smooth, n, m)
    means, spans = smooth_tiles.mean(axis=(1, 2)), np.ptp(smooth_tiles, axis=(1, 2))
    low, high = SOFT_TISSUE_HU
    is_fill = (np.diff(sharp_tiles, axis=1) == 0).mean(axis=(1, 2)) > FILL_SHARE
    soft = np.flatnonzero((means > low) & (means < high) & ~is_fill)
    return sharp_tiles[soft[np.argsort(spans[soft], kind="stable")[:NOISE_PATCHES]]].astype(np.float64)


def tiles(volume: np.ndarray, n: int, m: int) -> np.ndarray:
    """Axial tiles that do not overlap: ``(X, Y, Z) -> (N, n, m)``, what is left over is dropped."""
    rows, columns = volume.shape[0] // n, volume.shape[1] // m
    whole = volume[: rows * n, : columns * m].reshape(rows, n, columns, m, -1)
    return whole.transpose(0, 2, 4, 1, 3).reshape(-1, n, m)


def noise_numbers(patches: np.ndarray, pixel_mm: Sequence[float]) -> Numbers:
    """Noise sd (HU) and noise power (HU² mm²) at three frequencies, from patches ``(N, n, m)`` of even tissue.

    A quadratic surface is taken from each patch; power is averaged over a ring of directions and over patches. NaN
    where there is no patch or the pixels are too coarse.
    """
    names = [f"noise_power_{frequency:g}_per_mm" for frequency in NOISE_PER_MM]
    if not len(patches):
        return dict.fromkeys(["noise_sd_hu", *names], float("nan"))
    noise = _detrended(patches)
    _, n, m = noise.shape
    dx, dy = pixel_mm
    power = (np.abs(np.fft.fft2(noise)) ** 2).mean(axis=0) * dx * dy / (n * m)
    frequency = np.hypot(np.fft.fftfreq(n, dx)[:, None], np.fft.fftfreq(m, dy))
    half_ring = 0.5 / NOISE_PATCH_MM
    numbers = {"noise_sd_hu": float(noise.std())}
    for name, wanted in zip(names, NOISE_PER_MM, strict=True):
        ring = np.abs(frequency - wanted) <= half_ring
        seen = wanted < 0.5 / max(dx, dy)
        numbers[name] = float(power[ring].mean()) if seen else float("nan")
    return numbers


def _detrended(patches: np.ndarray) -> np.ndarray:
    """Patches ``(N, n, m)`` without their best-fitting quadratic surface."""
    count, n, m = patches.shape
    x, y = np.meshgrid(np.linspace(-1, 1, n), np.linspace(-1, 1, m), indexing="ij")
    surface = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1).reshape(n * m, 6)
    flat = patches.reshape(count, n * m).T
    weights, *_ = np.linalg.lstsq(surface, flat, rcond=None)
    return (flat - surface @ weights).T.reshape(count, n, m)


def lung_patches(ct_hu: np.ndarray, lungs: np.ndarray) -> np.ndarray:
    """Axial patches ``(N, 31, 31)`` side by side that lie wholly in the lungs, of ``(X, Y, Z)`` with 0.65 mm pixels."""
    inside = tiles(lungs > 0, PATCH_PX, PATCH_PX).all(axis=(1, 2))
    return tiles(ct_hu, PATCH_PX, PATCH_PX)[inside].astype(np.float64)


def patch_numbers(patches: np.ndarray) -> Numbers:
    """The columns of :data:`NORMAL_LUNG`, each the mean over patches ``(N, 31, 31)``; autocorrelation is that along
    rows and columns, about the patch's mean and over its variance."""
    p5, p50, p95 = np.percentile(patches, (5, 50, 95), axis=(1, 2)).mean(axis=1)
    numbers = {
        "mean_hu": float(patches.mean()),
        "sd_hu": float(patches.std(axis=(1, 2)).mean()),
        "p5_hu": float(p5),
        "p50_hu": float(p50),
        "p95_hu": float(p95),
        "laa950_percent": float((patches < EMPHYSEMA_HU).mean() * 100),
    }
    centred = patches - patches.mean(axis=(1, 2), keepdims=True)
    variance = (centred**2).mean(axis=(1, 2))
    for lag in LAGS_PX:
        down = (centred[:, lag:] * centred[:, :-lag]).mean(axis=(1, 2))
        across = (centred[:, :, lag:] * centred[:, :, :-lag]).mean(axis=(1, 2))
        numbers[f"autocorrelation_{lag}"] = float(((down + across) / 2 / variance).mean())
    return numbers


def measure(name: str, ct_hu: MetaTensor) -> Measured:
    """All measures of one CT ``(1, X, Y, Z)``; raises BadInput if no lung is found in it."""
    chest = _upright(ct_hu)
    values = chest.ct_hu[chest.lungs > 0].astype(np.float64)
    if not len(values):
        raise BadInput(f"no lung was found in {name}: expected a chest CT; leave it out")
    sx, sy, sz = chest.spacing_mm
    numbers = {
        **lung_numbers(values),
        "lung_volume_l": len(values) * sx * sy * sz / 1e6,
        **noise_numbers(soft_tissue_patches(chest.ct_hu, chest.spacing_mm), (sx, sy)),
        **vessel_numbers(chest.ct_hu, chest.lungs, chest.spacing_mm),
    }
    sides = np.unique(chest.lungs[chest.lungs > 0])
    x, y, z = chest.ct_hu.shape
    side = int(sides[0]) if len(sides) == 1 else 0
    return Measured(name, numbers, lung_histogram(values), (x, y, z), chest.spacing_mm, side)


def _upright(ct_hu: MetaTensor) -> Chest:
    volume, affine = ct_hu.as_tensor()[0].cpu().numpy(), ct_hu.affine.cpu().numpy()
    lungs = lungs_from_ct(volume, affine)
    to_ras = nib.orientations.io_orientation(affine)
    ct, marks = (nib.orientations.apply_orientation(array, to_ras) for array in (volume, lungs))
    ras_affine = affine @ nib.orientations.inv_ornt_aff(to_ras, volume.shape)
    sx, sy, sz = (float(size) for size in np.linalg.norm(ras_affine[:3, :3], axis=0))
    return Chest(ct, marks, (sx, sy, sz))


def phantom_like(scan: Measured, seed: int) -> MetaTensor:
    """A phantom's CT ``(1, X, Y, Z)`` on a scan's grid; its half where the scan shows one lung."""
    x, y, z = scan.shape
    phantom = thorax(seed, (2 * x if scan.side else x, y, z), scan.spacing_mm)
    ct_hu, affine = phantom["ct_hu"], phantom["affine"]
    if scan.side:  # the phantom's first axis runs to the patient's left
        start = 0 if scan.side == RIGHT else x
        ct_hu, shift = ct_hu[start : start + x], torch.eye(4, dtype=affine.dtype)
        shift[0, 3] = start
        affine = affine @ shift
    return to_hu(MetaTensor(ct_hu[None], affine=affine))


def compare(scans: Sequence[Measured], phantoms: Sequence[Measured]) -> list[dict[str, str | float]]:
    """Rows of the table "phantom against real": a measure of a scan beside the range over phantoms on its grid.

    ``inside`` is "yes" from the 5th to the 95th percentile, "edge" from the least to the greatest, else "no", and
    empty where the measure has no value. The distance of histograms is the median one to the (other) phantoms.
    """
    rows: list[dict[str, str | float]] = []
    of_phantoms = [_with_distance(one, phantoms) for one in phantoms]
    for scan in scans:
        for measure_name, real in _with_distance(scan, phantoms).items():
            values = np.array([numbers[measure_name] for numbers in of_phantoms])
            low, p5, p50, p95, high = np.nanpercentile(values, (0, 5, 50, 95, 100))
            rows.append(
                {
                    "scan": scan.name,
                    "measure": measure_name,
                    "real": real,
                    "phantom_min": low,
                    "phantom_p5": p5,
                    "phantom_p50": p50,
                    "phantom_p95": p95,
                    "phantom_max": high,
                    "inside": _verdict(real, low, p5, p95, high),
                }
            )
    return rows


def _with_distance(one: Measured, phantoms: Sequence[Measured]) -> Numbers:
    distances = [histogram_distance(one.histogram, other.histogram) for other in phantoms if other is not one]
    return {**one.numbers, "histogram_distance_hu": float(np.median(distances))}


def _verdict(real: float, low: float, p5: float, p95: float, high: float) -> str:
    if np.isnan(real):
        return ""
    if p5 <= real <= p95:
        return "yes"
    return "edge" if low <= real <= high else "no"


def normal_lung(count: int, seed: int) -> list[Numbers]:
    """:func:`patch_numbers` of thin slices through the middle of ``count`` phantoms, those without a whole patch left
    out."""
    chests = []
    for number in range(seed, seed + count):
        phantom = thorax(number, *PATCH_GRID)
        patches = lung_patches(phantom["ct_hu"].numpy(), phantom["lobes"].numpy())
        if len(patches):
            chests.append(patch_numbers(patches))
        logger.info("patches of phantom %d of %d are measured", number - seed + 1, count)
    return chests


def compare_patches(chests: Sequence[Numbers]) -> list[dict[str, str | float]]:
    """Rows of the table "normal lung": the published mean beside mean and range over chests."""
    rows: list[dict[str, str | float]] = []
    for name, published in NORMAL_LUNG.items():
        values = np.array([numbers[name] for numbers in chests])
        low, high = values.min(), values.max()
        rows.append(
            {
                "measure": name,
                "published": published,
                "phantom_mean": float(values.mean()),
                "difference": float(values.mean()) - published,
                "phantom_min": float(low),
                "phantom_max": float(high),
            }
        )
    return rows


def write_realism(output_dir: str | Path, scans: str | Path, count: int = 20, seed: int = 0) -> Path:
    """Hold ``count`` phantoms against every scan in a folder, on the scan's own grid, and against published patches.

    Writes ``realism.csv``, ``patches.csv`` and both as tables in ``realism.md``, whose path is returned. A file that is
    no chest CT is left out with a line that says why.

    Args:
        output_dir: made if missing.
        scans: one CT or a folder of CTs, as for ``pulmozoo run``.
        count: phantoms a grid, at least 2; scans on one grid share them.
        seed: of the first phantom.

    Raises BadInput if no scan can be measured.
    """
    if count < 2:
        raise BadInput(f"count is {count}: expected at least 2 phantoms, so that they have a range")
    found = [(item["scan"], item["image"]) for item in find_scans(scans)]
    real = list(_measured_scans(found))
    if not real:
        raise BadInput(f"no scan in {scans} could be measured: expected chest CTs; the lines above say why")
    rows = []
    for alike in _by_grid(real):
        names = ", ".join(scan.name for scan in alike)
        phantoms = []
        for number in range(seed, seed + count):
            phantoms.append(measure(f"phantom {number}", phantom_like(alike[0], number)))
            logger.info("%s: phantom %d of %d is measured", names, len(phantoms), count)
        rows += compare(alike, phantoms)
    patch_rows = compare_patches(normal_lung(count, seed))
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / "realism.csv", rows, rows[0])
    write_rows(folder / "patches.csv", patch_rows, patch_rows[0])
    write_text(folder / "realism.md", markdown(rows, patch_rows, count))
    return folder / "realism.md"


def _measured_scans(found: Iterable[tuple[str, str]]) -> Iterable[Measured]:
    """The scans that are chest CTs."""
    for name, path in found:
        try:
            scan = measure(name, read_ct(path))
        except BadInput as error:
            logger.warning("%s is left out: %s", name, innermost_reason(error))
            continue
        logger.info("%s is measured", name)
        yield scan


def _by_grid(scans: Iterable[Measured]) -> list[list[Measured]]:
    """Scans in groups that one cohort of phantoms serves."""
    groups: dict[tuple[object, ...], list[Measured]] = {}
    for scan in scans:
        grid = (scan.shape, tuple(round(size, 4) for size in scan.spacing_mm), scan.side)
        groups.setdefault(grid, []).append(scan)
    return list(groups.values())


def markdown(
    rows: Sequence[Mapping[str, str | float]], patch_rows: Sequence[Mapping[str, str | float]], count: int
) -> str:
    """A table for each scan beside the phantoms on its grid, and one of the patches."""
    lines = [
        "# Phantom against real",
        "",
        f"Written by `pulmozoo phantom-realism` with {count} phantoms on each grid.",
        "",
    ]
    for name in dict.fromkeys(row["scan"] for row in rows):
        of_scan = [row for row in rows if row["scan"] == name]
        inside = sum(row["inside"] in ("yes", "edge") for row in of_scan)
        lines += [f"## {name}: {inside} of {sum(row['inside'] != '' for row in of_scan)} inside", ""]
        lines += _table(of_scan, SCAN_COLUMNS)
    lines += ["## Normal lung, patches of 31 x 31 pixels", "", *_table(patch_rows, PATCH_COLUMNS)]
    return "\n".join(lines)


def _table(rows: Sequence[Mapping[str, str | float]], columns: Mapping[str, str]) -> list[str]:
    """Lines of a table with the given titles, by key, and an empty one after it."""
    body = ["| " + " | ".join(_cell(row[key]) for key in columns) + " |" for row in rows]
    return ["| " + " | ".join(columns.values()) + " |", "|---" * len(columns) + "|", *body, ""]


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
