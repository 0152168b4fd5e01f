"""Left and right lung of a bare CT by classical image processing, and one transform that finds the best lungs at hand.

Source of the recipe (threshold, connected air, airways out, lungs parted, contour closed): Hu et al., "Automatic lung
segmentation for accurate quantitation of volumetric X-ray CT images", IEEE TMI 2001;20:490-498. Ours: the number of
sides on which a voxel sees the body instead of "air that touches the border is outside", so that lungs which leave
the field of view survive; the explosion-controlled airway by trying thresholds. All numbers were tuned by eye on the
phantoms of the tests and on the scans of data/. No machine learning: dense consolidation at the pleura is missed.
"""

from collections.abc import Hashable, Mapping
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Transform
from monai.utils import convert_to_tensor
from scipy import ndimage
from torch import Tensor

LEFT, RIGHT = 1, 2

AIR_HU = -320.0  # darker is air or lung
PADDING_HU = -1100.0  # darker is no measurement: the scanner's fill outside its circle
OPEN_AIR_HU = -960.0  # mean of air at the border: darker is room air, brighter is lung cut by the field of view
ENCLOSED_SIDES = 3.0  # of four in plane, mean over an air part of a slice that is whole
ENCLOSED_SIDES_CUT = 2.25  # the same if the field of view cuts it; room air with a table in it reaches 2.0
GAS_HU = -965.0  # median inside a component: darker is gas, brighter is lung, however emphysematous
SMALL_ML, SMALL_GAS_HU = 300.0, -930.0  # the same for a component below that volume, where bowel is the likelier
GAS_SHELL_MM = 3.0  # the wall blurs into this much of a component, so that it does not count
AIRWAY_HU = (-880.0, -910.0, -930.0, -950.0, -970.0)  # tried in turn until the airway does not leak into the lung

GRID_MM = 2.0  # the morphology runs on about this grid
BODY_OPENING_MM = 4.0  # thinner tissue is clothing, cables and the shell of the table
AIRWAY_ML = (3.0, 150.0)
AIRWAY_HEIGHT_MM = 30.0
AIRWAY_SECTION_MM2 = 900.0  # largest mean cross-section, both main bronchi together
AIRWAY_RING_HU = -500.0  # mean around it: a bulla lies in lung (-550 at the pleura), a trachea in the mediastinum
AIRWAY_WALL_MM = 3.0
CLOSING_MM = 6.0  # nodules at the pleura and vessels at the hilum up to twice this width join the lung
SMALLEST_ML = 2.0
SMALLEST_SHARE = 0.03  # of the largest component

_FACES = ndimage.generate_binary_structure(3, 1)
_IN_SLICE = np.zeros((3, 3, 3), dtype=bool)
_IN_SLICE[:, :, 1] = ndimage.generate_binary_structure(2, 1)

Spacing = tuple[float, float, float]


def lungs_from_ct(
    ct_hu: Tensor | np.ndarray, affine: Tensor | np.ndarray, closing_mm: float = CLOSING_MM
) -> np.ndarray:
    """Label left (1) and right (2) lung without trachea and main bronchi; 0 elsewhere, 0 everywhere if no lung shows.

    Vessels and small pleural nodules count as lung. Lungs cut by the field of view, a single lung and any axis order
    are fine; an oblique grid is treated along its closest anatomical axes.

    Args:
        ct_hu: ``(X, Y, Z)`` CT in Hounsfield units.
        affine: ``(4, 4)`` voxel index to RAS+ mm.
        closing_mm: dense tissue at the border up to twice this width joins the lung: consolidated lung, but with a
            large value parts of the mediastinum as well.

    Returns uint8 ``(X, Y, Z)``; raises ValueError for other shapes.
    """
    ct = ct_hu.detach().cpu().numpy() if isinstance(ct_hu, Tensor) else np.asarray(ct_hu)
    matrix = np.asarray(affine, dtype=np.float64)
    if ct.ndim != 3 or min(ct.shape) < 1:
        raise ValueError(f"CT must have shape (X, Y, Z), got {ct.shape}")
    if matrix.shape != (4, 4):
        raise ValueError(f"affine must have shape (4, 4), got {matrix.shape}")
    to_ras = nib.orientations.io_orientation(matrix)
    ras = nib.orientations.apply_orientation(ct, to_ras)
    ras_affine = matrix @ nib.orientations.inv_ornt_aff(to_ras, ct.shape)
    lungs = _lungs_ras(ras, ras_affine, closing_mm)
    from_ras = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), to_ras)
    return np.ascontiguousarray(nib.orientations.apply_orientation(lungs, from_ras))


def _lungs_ras(ct: np.ndarray, affine: np.ndarray, closing_mm: float) -> np.ndarray:
    """:func:`lungs_from_ct` on an array whose axes run to the right, to the front and up."""
    full_mm = np.linalg.norm(affine[:3, :3], axis=0)
    factors = tuple(max(1, round(GRID_MM / size)) for size in full_mm)
    coarse = _block_mean(ct, factors)
    dx, dy, dz = (float(size * factor) for size, factor in zip(full_mm, factors, strict=True))
    spacing = (dx, dy, dz)
    padding = _padding(coarse, float(ct.min()))
    body = _body(coarse, spacing)
    inside = _air_inside_body(coarse, body, padding)
    airway = _airway(coarse, inside, spacing)
    lung_air = _lung_components(coarse, inside & ~_dilate(airway, AIRWAY_WALL_MM, spacing), spacing)
    if not lung_air.any():
        return np.zeros(ct.shape, dtype=np.uint8)
    x_mm = float(affine[0, 3]) + (np.arange(coarse.shape[0]) * factors[0] + (factors[0] - 1) / 2) * float(affine[0, 0])
    sides = _left_and_right(lung_air, body, x_mm, spacing)
    lungs = _closed(sides, barred=airway | padding, spacing=spacing, radius_mm=closing_mm)
    return _refined(ct, lungs, solid=~(coarse < AIR_HU), barred=airway | padding, factors=factors)


def _block_mean(ct: np.ndarray, factors: tuple[int, ...]) -> np.ndarray:
    """Float32 mean over blocks of ``factors`` voxels; a last block that is not full repeats the last voxel."""
    starts = [np.arange(0, size, factor) for size, factor in zip(ct.shape, factors, strict=True)]
    total = np.zeros([len(s) for s in starts], dtype=np.float32)
    for offset in np.ndindex(*factors):
        index = [np.minimum(s + o, size - 1) for s, o, size in zip(starts, offset, ct.shape, strict=True)]
        total += ct[np.ix_(*index)]
    return total / np.float32(np.prod(factors))


def _on_border_in_plane(shape: tuple[int, ...]) -> np.ndarray:
    """True on the outermost voxels of each axial slice."""
    border = np.ones(shape, dtype=bool)
    border[1:-1, 1:-1] = False
    return border


def _touching_border_in_slice(mask: np.ndarray) -> np.ndarray:
    """The parts of the mask that, within their axial slice, reach the border of the field of view."""
    parts, count = ndimage.label(mask, _IN_SLICE)
    touches = np.zeros(count + 1, dtype=bool)
    touches[parts[_on_border_in_plane(mask.shape) & mask]] = True
    touches[0] = False
    return touches[parts]


def _padding(coarse: np.ndarray, lowest_hu: float) -> np.ndarray:
    """What the scanner did not measure, and one voxel more: on its rim fill and tissue mix to an air that would
    connect the lung with the room."""
    fill = _touching_border_in_slice(coarse <= max(lowest_hu + 0.5, PADDING_HU))
    return ndimage.binary_dilation(fill, np.ones((3, 3, 1), dtype=bool))


def _dilate(mask: np.ndarray, radius_mm: float, spacing: Spacing) -> np.ndarray:
    """All within ``radius_mm`` of the mask."""
    if not mask.any():
        return mask
    box = _box(mask, margin=[int(np.ceil(radius_mm / s)) + 1 for s in spacing])
    grown = np.zeros_like(mask)
    grown[box] = ndimage.distance_transform_edt(~mask[box], sampling=spacing) <= radius_mm
    return grown


def _erode(mask: np.ndarray, radius_mm: float, spacing: Spacing) -> np.ndarray:
    """All further than ``radius_mm`` from the complement; beyond the array counts as mask."""
    if mask.all():
        return mask
    return ndimage.distance_transform_edt(mask, sampling=spacing) > radius_mm


def _box(mask: np.ndarray, margin: list[int]) -> tuple[slice, ...]:
    """Bounding box of a mask that is not empty, with a margin in voxels, cut at the array."""
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    return tuple(
        slice(max(s.start - m, 0), min(s.stop + m, n)) for s, m, n in zip(box, margin, mask.shape, strict=True)
    )


def _body(coarse: np.ndarray, spacing: Spacing) -> np.ndarray:
    """Tissue thicker than clothes and table shell."""
    core = _erode(coarse > AIR_HU, BODY_OPENING_MM, spacing)
    return _dilate(core, BODY_OPENING_MM, spacing)


def _air_inside_body(coarse: np.ndarray, body: np.ndarray, padding: np.ndarray) -> np.ndarray:
    """Air that has body around it on enough of its four sides in plane, on the average of its part of a slice.

    The air beside, above and below the patient sees less. A part that reaches the border of the field of view is cut
    lung only if it is also brighter than room air.
    """
    air = (coarse < AIR_HU) & ~padding
    seen = np.zeros(coarse.shape, dtype=np.uint8)
    for axis in (0, 1):
        seen += np.logical_or.accumulate(body, axis=axis)
        seen += np.flip(np.logical_or.accumulate(np.flip(body, axis), axis=axis), axis)
    parts, count = ndimage.label(air, _IN_SLICE)
    flat = parts.ravel()
    size = np.maximum(np.bincount(flat, minlength=count + 1), 1)
    sides = np.bincount(flat, weights=seen.ravel(), minlength=count + 1) / size
    mean_hu = np.bincount(flat, weights=coarse.ravel(), minlength=count + 1) / size
    cut = np.zeros(count + 1, dtype=bool)
    border = _on_border_in_plane(coarse.shape) | ndimage.binary_dilation(padding, _IN_SLICE)
    cut[parts[border]] = True
    keep = np.where(cut, (sides >= ENCLOSED_SIDES_CUT) & (mean_hu > OPEN_AIR_HU), sides >= ENCLOSED_SIDES)
    keep[0] = False
    return keep[parts]


def _airway(coarse: np.ndarray, inside: np.ndarray, spacing: Spacing) -> np.ndarray:
    """Lumen of trachea and main bronchi, or nothing if no component at any threshold looks like it.

    Of several the one with most tissue around it: with a sharp kernel, dark lung beside the spine is tall and thin too.
    """
    middle = np.flatnonzero(inside.any(axis=(0, 1))).mean() if inside.any() else 0.0
    for threshold in AIRWAY_HU:
        parts, _ = ndimage.label(inside & (coarse < threshold), _FACES)
        boxes = ndimage.find_objects(parts)
        high = [n for n in _sized_parts(parts, AIRWAY_ML, spacing) if boxes[n - 1][2].stop > middle]
        tubes = [n for n in high if _is_tube(parts, n, boxes[n - 1], spacing)]
        rings = {n: _ring_hu(coarse, parts, n, boxes[n - 1], spacing) for n in tubes}
        if rings and max(rings.values()) > AIRWAY_RING_HU:
            return parts == max(rings, key=lambda n: rings[n])
    return np.zeros_like(inside)


def _sized_parts(parts: np.ndarray, limits_ml: tuple[float, float], spacing: Spacing) -> list[int]:
    """Numbers of the components whose volume lies within the limits."""
    volume_ml = np.bincount(parts.ravel()) * np.prod(spacing) / 1000
    volume_ml[0] = 0
    return [int(n) for n in np.flatnonzero((volume_ml >= limits_ml[0]) & (volume_ml <= limits_ml[1]))]


def _is_tube(parts: np.ndarray, number: int, box: tuple[slice, ...], spacing: Spacing) -> bool:
    """True if a component is tall and thin."""
    height = (box[2].stop - box[2].start) * spacing[2]
    volume = np.count_nonzero(parts[box] == number) * float(np.prod(spacing))
    return bool(height >= AIRWAY_HEIGHT_MM and volume / height <= AIRWAY_SECTION_MM2)


def _ring_hu(coarse: np.ndarray, parts: np.ndarray, number: int, box: tuple[slice, ...], spacing: Spacing) -> float:
    """Mean of what surrounds a component, without the first voxel, which is a mixture of wall and air."""
    window = tuple(slice(max(s.start - 4, 0), s.stop + 4) for s in box)
    away = ndimage.distance_transform_edt(parts[window] != number, sampling=spacing)
    return float(coarse[window][(away > GRID_MM) & (away <= 3 * GRID_MM)].mean())


def _lung_components(coarse: np.ndarray, air: np.ndarray, spacing: Spacing) -> np.ndarray:
    """The components that are lung: not tiny, not gas, and not below the middle of the largest one."""
    parts, count = ndimage.label(air, _FACES)
    volume_ml = np.bincount(parts.ravel(), minlength=count + 1) * float(np.prod(spacing)) / 1000
    volume_ml[0] = 0
    boxes = ndimage.find_objects(parts)
    large = [int(n) for n in np.flatnonzero(volume_ml >= SMALLEST_ML)]
    lungs = [n for n in large if not _is_gas(coarse[boxes[n - 1]], parts[boxes[n - 1]] == n, spacing)]
    if not lungs:
        return np.zeros_like(air)
    largest = max(lungs, key=lambda n: volume_ml[n])
    middle = (boxes[largest - 1][2].start + boxes[largest - 1][2].stop) / 2
    kept = [n for n in lungs if volume_ml[n] >= SMALLEST_SHARE * volume_ml[largest] and boxes[n - 1][2].stop > middle]
    return np.isin(parts, kept)


def _is_gas(coarse: np.ndarray, part: np.ndarray, spacing: Spacing) -> bool:
    """True if a component is too dark for lung."""
    volume_ml = np.count_nonzero(part) * float(np.prod(spacing)) / 1000
    core = _erode(part, GAS_SHELL_MM, spacing)
    median_hu = np.median(coarse[core if core.any() else part])
    return bool(median_hu < (SMALL_GAS_HU if volume_ml < SMALL_ML else GAS_HU))


def _left_and_right(air: np.ndarray, body: np.ndarray, x_mm: np.ndarray, spacing: Spacing) -> np.ndarray:
    """Label the lung air 1 (left) and 2 (right), parting lungs that touch."""
    box = _box(air, margin=[0, 0, 0])
    cropped = air[box]
    seeds = _two_seeds(cropped, spacing)
    sides = np.zeros(air.shape, dtype=np.uint8)
    if seeds is None:
        sides[air] = _side_of_single_lung(air, body, x_mm)
        return sides
    nearest = ndimage.distance_transform_edt(seeds == 0, return_distances=False, return_indices=True)
    sides[box] = np.where(cropped, seeds[tuple(nearest)], 0)
    return sides


def _two_seeds(air: np.ndarray, spacing: Spacing) -> np.ndarray | None:
    """Cores of the left (1) and the right (2) lung after the least erosion that parts them; None if there is one lung.

    Each core is all components on its side of the middle between the two largest that lie side by side.
    """
    depth = ndimage.distance_transform_edt(np.pad(air, 1, mode="edge"), sampling=spacing)[1:-1, 1:-1, 1:-1]
    width = air.shape[0]
    for radius_mm in (0.0, 2.0, 4.0, 6.0, 9.0, 12.0):
        parts, count = ndimage.label(depth > radius_mm, _FACES)
        if count < 2:
            continue
        size = np.bincount(parts.ravel())[1:]
        x = np.array(ndimage.center_of_mass(parts > 0, parts, range(1, count + 1)))[:, 0]
        first = int(size.argmax())
        beside = [n for n in np.flatnonzero(size >= 0.1 * size[first]) if abs(x[n] - x[first]) > 0.3 * width]
        if beside:
            second = max(beside, key=lambda n: size[n])
            middle = (x[first] + x[second]) / 2
            side = np.concatenate([[0], np.where(x < middle, LEFT, RIGHT)]).astype(np.uint8)
            return side[parts]
    return None


def _side_of_single_lung(air: np.ndarray, body: np.ndarray, x_mm: np.ndarray) -> int:
    """Side of the only lung in view: against the middle of the body if all of it shows; else the side on which the
    body goes on is the middle; else against the scanner's axis (x = 0)."""
    levels = body[:, :, air.any(axis=(0, 1))]
    cut_left, cut_right = levels[0].any(axis=0).mean(), levels[-1].any(axis=0).mean()
    center = float(np.average(np.arange(len(x_mm)), weights=air.sum(axis=(1, 2))))
    if max(cut_left, cut_right) < 0.2:
        columns = np.flatnonzero(levels.any(axis=(1, 2)))
        return RIGHT if center > columns.mean() else LEFT
    if abs(cut_left - cut_right) > 0.5:
        return RIGHT if cut_left > cut_right else LEFT
    return RIGHT if np.interp(center, np.arange(len(x_mm)), x_mm) > 0 else LEFT


def _closed(sides: np.ndarray, barred: np.ndarray, spacing: Spacing, radius_mm: float) -> np.ndarray:
    """Each lung closed with a ball and without holes; it takes nothing of the other lung and nothing barred."""
    margin = [int(np.ceil(radius_mm / s)) + 1 for s in spacing]
    lungs = sides.copy()
    for side in (LEFT, RIGHT):
        if not (sides == side).any():
            continue
        box = _box(sides == side, margin=[0, 0, 0])
        around = [(m, m) for m in margin]
        lung = np.pad(sides[box] == side, around)
        closed = _erode(_dilate(lung, radius_mm, spacing), radius_mm, spacing) | lung
        outside, _ = ndimage.label(~closed, _FACES)
        filled = (outside != outside[0, 0, 0])[tuple(slice(m, -m) for m in margin)]
        lungs[box][filled & (lungs[box] == 0) & ~barred[box]] = side
    return lungs


def _refined(
    ct: np.ndarray, lungs: np.ndarray, solid: np.ndarray, barred: np.ndarray, factors: tuple[int, ...]
) -> np.ndarray:
    """Coarse lungs on the grid of the CT: the skin of one coarse voxel in and out follows the threshold."""
    if max(factors) == 1:
        return lungs
    core = ndimage.binary_erosion(lungs > 0, _FACES, border_value=1) | ((lungs > 0) & solid)
    skin = ndimage.grey_dilation(lungs, footprint=_FACES)
    skin[barred & (lungs == 0)] = 0
    fine = _enlarged(skin, factors, ct.shape)
    fine[~_enlarged(core, factors, ct.shape) & (ct >= AIR_HU)] = 0
    return fine


def _enlarged(coarse: np.ndarray, factors: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Each coarse voxel repeated over its block, cut to the shape."""
    for axis, factor in enumerate(factors):
        coarse = np.repeat(coarse, factor, axis=axis)
    return coarse[tuple(slice(n) for n in shape)]


class Lungsd(Transform):
    """Add left (1) and right (2) lung of a CT to the sample, from the best source at hand.

    In this order: the caller's mask, taken as it is; the lobe label (1, 2 left; 3, 4, 5 right); else
    :func:`lungs_from_ct`. All are ``(1, X, Y, Z)`` on the grid of the CT; the CT is a MetaTensor with its affine.
    The output is a uint8 MetaTensor with the affine of the CT.

    Args:
        ct_key: CT in Hounsfield units.
        output_key: where the lungs go.
        mask_key: lungs the caller may have.
        lobes_key: lobes the caller may have.
        closing_mm: see :func:`lungs_from_ct`.
    """

    def __init__(
        self,
        ct_key: str = "ct_hu",
        output_key: str = "lungs",
        mask_key: str = "lung_mask",
        lobes_key: str = "lobes",
        closing_mm: float = CLOSING_MM,
    ) -> None:
        self.ct_key, self.output_key, self.mask_key, self.lobes_key = ct_key, output_key, mask_key, lobes_key
        self.closing_mm = closing_mm

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        ct = data[self.ct_key]
        if not isinstance(ct, MetaTensor) or ct.ndim != 4 or ct.shape[0] != 1:
            raise ValueError(f"{self.ct_key} must be a MetaTensor (1, X, Y, Z), got {type(ct).__name__} {ct.shape}")
        for key in (self.mask_key, self.lobes_key):
            if key in data and data[key].shape != ct.shape:
                raise ValueError(f"{key} must have the shape of {self.ct_key} {ct.shape}, got {data[key].shape}")
        lungs = MetaTensor(self._lungs(data, ct), affine=ct.affine)
        return {**data, self.output_key: lungs}

    def _lungs(self, data: Mapping[Hashable, Any], ct: MetaTensor) -> Tensor:
        """Plain uint8 ``(1, X, Y, Z)`` from the first source there is."""
        if self.mask_key in data:
            return convert_to_tensor(data[self.mask_key]).to(torch.uint8)
        if self.lobes_key in data:
            return lungs_from_lobes(convert_to_tensor(data[self.lobes_key]))
        return torch.from_numpy(lungs_from_ct(ct.as_tensor()[0], ct.affine, self.closing_mm))[None].to(ct.device)


def lungs_from_lobes(lobes: Tensor) -> Tensor:
    """Lobes 1, 2 to left lung (1), 3, 4, 5 to right lung (2); uint8 of the same shape."""
    lobes = lobes.round()
    return ((lobes > 0).to(torch.uint8) + (lobes > 2).to(torch.uint8)).to(torch.uint8)
