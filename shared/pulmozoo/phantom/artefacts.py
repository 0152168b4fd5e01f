"""What goes wrong in a scan: a beating heart, streaks from the shoulders, from dense contrast agent and from metal."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .anatomy import Chest
from .fields import Draws, Points
from .scan_grid import ScanGrid
from .solids import Tube

HEART_REACH_MM = 75.0
TURN_MM = (18.0, 45.0)  # along z, from one phase of the heart to the same phase again
STREAK_MM = 80.0  # length of a streak along x
STAR_REACH_MM, STAR_FADE_MM = 70.0, 22.0
STAR_HU = 0.3  # sd of the streaks beside a dense body, as a share of its HU
SPOKES = 36
METAL_HU, METAL_MM = 3000.0, 2.5
CAVA_MM = 8.0


@dataclass(frozen=True)
class Marks:
    """Places ``(N, 3)`` in the chest, in mm, that artefacts start from: the heart, and the superior vena cava if it
    holds contrast agent."""

    heart: Tensor
    cava: Tensor | None


def find_marks(chest: Chest, enhanced: bool) -> Marks:
    """The marks of a chest, where the bent and turned chest has them; ``enhanced`` by contrast agent or not."""
    heart = torch.tensor(chest.mediastinum.heart[0].bounds()).mean(dim=0, keepdim=True)
    cava = next(vessel for vessel in chest.mediastinum.vessels if isinstance(vessel, Tube))
    return Marks(_bent(chest, heart), _bent(chest, torch.tensor(cava.path)) if enhanced else None)


def blur_heart(image: Tensor, scan: ScanGrid, marks: Marks, draws: Draws) -> None:
    """Blend the surroundings of the heart with themselves moved to both sides, more in some slices than in others."""
    reach_mm = scan.scanner.motion_mm
    if reach_mm == 0:
        return
    x, y, z = _offsets(scan, marks.heart[0], image.device)
    window = tuple(_near(axis, HEART_REACH_MM) for axis in (x, y, z))
    part = image[window]
    if 0 in part.shape:
        return
    x, y, z = (axis[near] for axis, near in zip((x, y, z), window, strict=True))
    radius = (x[:, None, None].square() + y[None, :, None].square() + z.square()).sqrt() / HEART_REACH_MM
    phase = draws.uniform(0, 1) + z / draws.uniform(*TURN_MM)
    share = (1 - radius.pow(4)).clamp(min=0) * (0.5 + 0.5 * (2 * math.pi * phase).sin())
    angle = draws.uniform(0, math.pi)
    moved = torch.zeros_like(part)
    for side in (1, -1):
        there = (side * reach_mm * math.cos(angle), side * reach_mm * math.sin(angle))
        moved += 0.5 * _shifted(_shifted(part, there[0] / scan.spacing_mm[0], 0), there[1] / scan.spacing_mm[1], 1)
    part += share * (moved - part)


def photon_streaks(starvation: Tensor, width: int, streak_hu: float, width_mm: float, draws: Draws) -> Tensor:
    """Streaks along x, ``(width, Y, Z)`` in HU, where ``starvation`` ``(1, Y, Z)`` is above 0."""
    _, rows, slices = starvation.shape
    knots = int(width_mm / STREAK_MM) + 2
    noise = draws.noise((knots, rows, slices)).to(starvation.device)
    along = torch.linspace(0, knots - 1, width, device=starvation.device).clamp(max=knots - 1.001)
    first, share = along.long(), along.frac()[:, None, None]
    # Halfway between two knots the mean of two would be quieter.
    streaks = (noise[first] * (1 - share) + noise[first + 1] * share) / (share.square() + (1 - share).square()).sqrt()
    return streaks * (streak_hu * starvation)


def add_streak_sources(image: Tensor, scan: ScanGrid, marks: Marks, draws: Draws) -> None:
    """Draw contrast agent in the vena cava and pieces of metal, each with its star of streaks, in place."""
    scanner = scan.scanner
    if scanner.cava_hu and marks.cava is not None:
        _add_star(image, scan, marks.cava, CAVA_MM, scanner.cava_hu, draws)
    for x, y, z in scanner.metal_mm:
        piece = torch.tensor([[x, y, z - METAL_MM], [x, y, z + METAL_MM]])
        _add_star(image, scan, piece, METAL_MM, METAL_HU, draws)


def _add_star(image: Tensor, scan: ScanGrid, path: Tensor, radius_mm: float, hu: float, draws: Draws) -> None:
    """Draw a dense tube along a path ``(N, 3)`` in mm that rises in z, and bright and dark rays around it."""
    path = scan.seen(path).to(image.device)
    x, y, z = scan.axes(image.device)
    half = scan.scanner.slice_mm / 2
    across = (z >= path[0, 2] - half) & (z <= path[-1, 2] + half)
    spokes = draws.noise((SPOKES + 1, int(across.sum()))).to(image.device)
    spokes[-1] = spokes[0]
    for number, index in enumerate(across.nonzero().flatten().tolist()):
        middle_x, middle_y = _at_height(path, float(z[index]))
        near_x, near_y = _near(x - middle_x, STAR_REACH_MM), _near(y - middle_y, STAR_REACH_MM)
        part = image[near_x, near_y, index]
        dx, dy = x[near_x, None] - middle_x, y[None, near_y] - middle_y
        radius = (dx.square() + dy.square()).sqrt()
        turn = (torch.atan2(dy, dx) / (2 * math.pi) + 0.5).clamp(0, 0.9999) * SPOKES
        first, share = turn.long(), turn.frac()
        rays = spokes[first, number] * (1 - share) + spokes[first + 1, number] * share
        part += rays * (STAR_HU * hu) * (radius / radius_mm).clamp(max=1) * (-radius / STAR_FADE_MM).exp()
        inside = ((radius_mm - radius) / min(scan.spacing_mm[:2]) + 0.5).clamp(0, 1)
        part += inside * (hu - part).clamp(min=0)


def _at_height(path: Tensor, z: float) -> tuple[float, float]:
    """Where a path ``(N, 3)`` that rises in z is at one height, its ends beyond them."""
    after = int(torch.searchsorted(path[:, 2].contiguous(), z).clamp(1, len(path) - 1))
    low, high = path[after - 1].tolist(), path[after].tolist()
    share = min(max((z - low[2]) / max(high[2] - low[2], 1e-6), 0), 1)
    return low[0] + share * (high[0] - low[0]), low[1] + share * (high[1] - low[1])


def _bent(chest: Chest, upright: Tensor) -> Tensor:
    """Where points ``(N, 3)`` of the upright chest lie in the bent one: ``straighten`` undone by fixed-point steps."""
    place = upright.clone()
    for _ in range(8):
        place += upright - torch.stack(chest.straighten(Points(place)), dim=1)
    return place


def _offsets(scan: ScanGrid, point: Tensor, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Distance in mm of the voxels from a point, along each axis of the scanner."""
    middle = scan.seen(point[None])[0].tolist()
    x, y, z = (axis - m for axis, m in zip(scan.axes(device), middle, strict=True))
    return x, y, z


def _near(offsets: Tensor, reach_mm: float) -> slice:
    """The voxels within reach of 0."""
    start, stop = torch.searchsorted(offsets, offsets.new_tensor([-reach_mm, reach_mm])).tolist()
    return slice(start, stop)


def _shifted(volume: Tensor, voxels: float, axis: int) -> Tensor:
    """Values ``voxels`` further along an axis, between voxels linear, edges repeated."""
    low = math.floor(voxels)
    index = torch.arange(volume.shape[axis], device=volume.device)
    first, second = (volume.index_select(axis, (index + low + k).clamp(0, len(index) - 1)) for k in (0, 1))
    return first + (voxels - low) * (second - first)
