"""Cells around scattered points: the mesh of septa and the foam of cysts in fibrosis.

Everything is a function of the position in mm, so the same cells lie on every grid.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .fields import Draws, Grid, SmoothField

PERIOD = 16  # cells along each axis after which the pattern begins anew; the warp hides it
JITTER = 1.0  # of a cell's width is how far its point may lie from the middle of a regular lattice
CHUNK = 200_000  # positions looked at at once
NEIGHBOURS = torch.cartesian_prod(*[torch.arange(-1, 2)] * 3)


@dataclass(frozen=True)
class Cells:
    """Voronoi cells of a jittered lattice, bent by smooth fields.

    Args:
        width_mm: mean width of a cell.
        points: of each cell of one period, ``(P, P, P, 3)``, in cell widths from the cell's corner.
        warp: displacement along x, y and z in mm.
    """

    width_mm: float
    points: Tensor
    warp: tuple[SmoothField, SmoothField, SmoothField]

    def distances(self, grid: Grid, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Distance in mm of each chosen voxel to its cell's nearest wall and to its cell's point, ``(N,)`` each.

        ``chosen`` is boolean ``(X, Y, Z)``.
        """
        at = torch.stack(
            [(axis + grid.smooth(bent))[chosen] for axis, bent in zip(grid.coordinates(), self.warp, strict=True)],
            dim=1,
        )
        parts = [self._distances(part / self.width_mm) for part in at.split(CHUNK)]
        wall, centre = (torch.cat(values) * self.width_mm for values in zip(*parts, strict=True))
        return wall, centre

    def _distances(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """The same in cell widths, for positions ``(N, 3)``."""
        home = at.floor().long()
        points = self.points.to(at)
        near = at.new_full((len(at), 3), torch.inf)
        nearest, second = (at.new_full((len(at),), torch.inf) for _ in range(2))
        second_point = near.clone()
        for offset in NEIGHBOURS.to(at.device):
            cell = home + offset
            point = cell + points[tuple((cell % PERIOD).unbind(dim=1))]
            distance = (point - at).square().sum(dim=1)
            first, middle = distance < nearest, distance < second
            second = torch.where(first, nearest, torch.where(middle, distance, second))
            second_point = torch.where(first[:, None], near, torch.where(middle[:, None], point, second_point))
            near = torch.where(first[:, None], point, near)
            nearest = torch.where(first, distance, nearest)
        apart = (second_point - near).square().sum(dim=1).sqrt().clamp(min=1e-3)
        return (second - nearest) / (2 * apart), nearest.sqrt()


def draw_cells(draws: Draws, width_mm: float, warp_mm: float) -> Cells:
    """Cells of a mean width, bent by about ``warp_mm``."""
    shift = (1 - JITTER) / 2
    points = draws.points(PERIOD**3, [shift] * 3, [1 - shift] * 3).reshape(PERIOD, PERIOD, PERIOD, 3)
    x, y, z = (draws.smooth_field(max(2.5 * width_mm, 12.0), warp_mm) for _ in range(3))
    return Cells(width_mm, points, (x, y, z))
