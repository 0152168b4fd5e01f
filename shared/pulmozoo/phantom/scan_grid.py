"""Where a scan's voxels lie in the chest, and the finer grid on which the chest is painted for it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .fields import Grid
from .scanner import Scanner, Triple

PAINTED_MM = 1.5  # painted slices lie about this far apart, so that a thick slice is an average over its slab
GAPPED_MM = 5.0  # as far apart as this, slices thinner than PAINTED_MM are painted by themselves
SOFT_SHARE = 0.15  # sd of the rounding of the slice profile's edges, as a share of the thickness
SLAB_VOXELS = 1_000_000  # resampled at once, where positions take six times the memory of the values


@dataclass(frozen=True)
class ScanGrid:
    """Voxels of one scan along x (left), y (posterior), z (superior) of the scanner: ``shape`` and ``spacing_mm``."""

    shape: tuple[int, int, int]
    spacing_mm: Triple
    scanner: Scanner

    @property
    def gap_mm(self) -> float:
        """What is not painted between two slices: something where thin slices lie far apart, else 0."""
        thin, step = self.scanner.slice_mm, self.spacing_mm[2]
        return step - thin if thin <= PAINTED_MM and step >= GAPPED_MM and not self.is_turned else 0.0

    @property
    def steps(self) -> int:
        """Painted slices from one slice to the next."""
        if self.gap_mm:
            return 1
        sx, sy, sz = self.spacing_mm
        return max(math.ceil(sz / max(PAINTED_MM, min(sx, sy)) - 0.25), 1)

    @property
    def fine_mm(self) -> Triple:
        """Size of a painted voxel."""
        sx, sy, sz = self.spacing_mm
        return sx, sy, (sz - self.gap_mm) / self.steps

    @property
    def margin(self) -> int:
        """Painted slices beyond the middle of the first and of the last slice."""
        if self.gap_mm:
            return 0
        return max(math.ceil((0.5 + 2 * SOFT_SHARE) * self.scanner.slice_mm / self.fine_mm[2] - 0.5), 0)

    @property
    def is_turned(self) -> bool:
        return any(self.scanner.turn_degrees)

    def axes(self, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
        """Voxel centres in mm along the scanner's x, y and z, from the grid's middle."""
        x, y, z = (_spread(n, step, device) for n, step in zip(self.shape, self.spacing_mm, strict=True))
        return x, y, z

    def painted(self, device: torch.device | str = "cpu") -> Grid:
        """Upright grid on which to paint: that of the scan, but finer along z; a box around it where it is turned.

        Where thin slices lie far apart nothing is painted between them.
        """
        x, y, _ = self.axes(device)
        count, step = (self.shape[2] - 1) * self.steps + 1 + 2 * self.margin, self.fine_mm[2] + self.gap_mm
        axes = [x, y, _spread(count, step, device)]
        if self.is_turned:
            reach = self._turn().abs() @ torch.stack([axis.max() for axis in axes]).double().cpu()
            # As many voxels more at both ends: with the same middle a small turn moves labels by little.
            more = [
                math.ceil((r - float(axis[-1])) / step)
                for r, axis, step in zip(reach.tolist(), axes, self.fine_mm, strict=True)
            ]
            axes = [
                _spread(len(axis) + 2 * n, step, device) for axis, n, step in zip(axes, more, self.fine_mm, strict=True)
            ]
        x, y, z = (axis + middle for axis, middle in zip(axes, self.scanner.centre_mm, strict=True))
        return Grid(x, y, z, self.fine_mm, gap_mm=self.gap_mm)

    def image(self, painted: Tensor) -> Tensor:
        """Slices ``shape`` of a painted volume: each the average over its thickness."""
        fine = painted
        if self.is_turned:
            count = (self.shape[2] - 1) * self.steps + 1 + 2 * self.margin
            fine = self._turned(painted, _spread(count, self.fine_mm[2], painted.device), "bilinear")
        length = (self.shape[2] - 1) * self.steps + 1
        weights = slice_profile(self.scanner.slice_mm, self.fine_mm[2], self.margin)
        image = torch.zeros(self.shape, device=painted.device)
        for first, weight in enumerate(weights):
            image.add_(fine[..., first : first + length : self.steps], alpha=weight)
        return image

    def labels(self, painted: Tensor) -> Tensor:
        """Labels ``shape`` at the middle of each slice; 0 outside the reconstructed circle."""
        if self.is_turned:
            z = _spread(self.shape[2], self.spacing_mm[2], painted.device)
            labels = self._turned(painted.float(), z, "nearest").to(painted.dtype)
        else:
            last = self.margin + (self.shape[2] - 1) * self.steps
            labels = painted[..., self.margin : last + 1 : self.steps].contiguous()
        if self.scanner.field_mm is not None:
            labels *= self.inside(painted.device)
        return labels

    def inside(self, device: torch.device | str = "cpu") -> Tensor:
        """Whether a column of voxels lies in the reconstructed circle, ``(X, Y, 1)``."""
        x, y, _ = self.axes(device)
        radius = math.inf if self.scanner.field_mm is None else self.scanner.field_mm / 2
        return (x[:, None, None].square() + y[None, :, None].square()) <= radius**2

    def seen(self, points: Tensor) -> Tensor:
        """Points ``(N, 3)`` of the chest in mm along the scanner's axes, from the grid's middle."""
        return ((points.double() - torch.tensor(self.scanner.centre_mm, dtype=torch.float64)) @ self._turn()).float()

    def affine(self) -> Tensor:
        """Voxel index to RAS+ mm from the chest's centre, ``(4, 4)`` float64."""
        to_ras = torch.diag(torch.tensor([-1.0, -1, 1], dtype=torch.float64))
        steps = torch.tensor(self.spacing_mm, dtype=torch.float64)
        affine = torch.eye(4, dtype=torch.float64)
        affine[:3, :3] = to_ras @ self._turn() * steps
        middle = (torch.tensor(self.shape, dtype=torch.float64) - 1) / 2
        affine[:3, 3] = to_ras @ torch.tensor(self.scanner.centre_mm, dtype=torch.float64) - affine[:3, :3] @ middle
        return affine

    def _turn(self) -> Tensor:
        """Rotation from the scanner's axes to the chest's, ``(3, 3)``: about x first, then y, then z."""
        turn = torch.eye(3, dtype=torch.float64)
        for axis, degrees in enumerate(self.scanner.turn_degrees):
            cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
            first, second = ((1, 2), (2, 0), (0, 1))[axis]
            about = torch.eye(3, dtype=torch.float64)
            about[first, first] = about[second, second] = cosine
            about[first, second], about[second, first] = -sine, sine
            turn = about @ turn
        return turn

    def _turned(self, painted: Tensor, z: Tensor, mode: str) -> Tensor:
        """Values of a painted volume at the scan's x and y and the given ``z`` in mm, ``(X, Y, len(z))``."""
        x, y, _ = self.axes(painted.device)
        turn = self._turn().float().to(painted.device)
        half = [max(n - 1, 1) / 2 * step for n, step in zip(painted.shape, self.fine_mm, strict=True)]
        values = torch.empty((len(x), len(y), len(z)), device=painted.device)
        for part in _pieces(len(z), len(x) * len(y)):
            at = torch.stack(torch.meshgrid(x, y, z[part], indexing="ij"), dim=-1) @ turn.T
            at = (at / at.new_tensor(half)).flip(-1)  # grid_sample counts the last axis first
            sampled = F.grid_sample(painted[None, None], at[None], mode=mode, padding_mode="border", align_corners=True)
            values[..., part] = sampled[0, 0]
        return values


def slice_profile(slice_mm: float, step_mm: float, margin: int) -> list[float]:
    """Weights of the painted slices from ``-margin`` to ``margin``: a box of the slice's thickness with soft edges."""
    soft = SOFT_SHARE * slice_mm
    edges = (torch.arange(-margin, margin + 2, dtype=torch.float64) - 0.5) * step_mm
    below = [_ramp((edges + side * slice_mm / 2) / soft) for side in (1, -1)]
    weights = (below[0] - below[1]).diff()
    return (weights / weights.sum()).tolist()


def _ramp(t: Tensor) -> Tensor:
    """Integral of the normal distribution function."""
    return t * torch.special.ndtr(t) + (-t.square() / 2).exp() / math.sqrt(2 * math.pi)


def _spread(count: int, step: float, device: torch.device | str) -> Tensor:
    """``count`` positions ``step`` apart around 0."""
    return (torch.arange(count, dtype=torch.float64, device=device) - (count - 1) / 2).mul(step).float()


def _pieces(length: int, area: int) -> Iterator[slice]:
    thick = max(SLAB_VOXELS // area, 1)
    return (slice(start, start + thick) for start in range(0, length, thick))
