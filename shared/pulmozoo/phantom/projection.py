"""From bodies to a chest film: shadows in mm of water, X-rays through them, and the grey values a viewer shows.

The beam is parallel and runs along y. A shadow is the path through a body times its density relative to water, so
shadows of different bodies add up.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .fields import Draws

FRAME_MM = 480.0  # wide enough for every film that is cut from it
FRAME_CENTRE_Z = -15.0
SMALLEST_DISC = 0.7  # pixels; a finer tube becomes a fainter one of the same cross-section
CHUNK = 2_000_000  # pixel updates drawn at once
SCATTER_SOURCE = 0.35  # unattenuated beam beside the patient scatters no more than this share
LARGEST_WATER_MM = 400.0
EXTREMES = (0.02, 0.98)  # quantiles of a patient's density that the window is fitted to


@dataclass(frozen=True)
class Frame:
    """Square plane behind the patient: columns run to the patient's left, rows downward."""

    pixel_mm: float
    count: int

    def x(self) -> Tensor:
        return (torch.arange(self.count) - (self.count - 1) / 2) * self.pixel_mm

    def z(self) -> Tensor:
        """Heights in mm from the top row down, as a column ``(H, 1)``."""
        return (FRAME_CENTRE_Z - self.x())[:, None]

    def pixels(self, xyz: Tensor) -> Tensor:
        """Column and row ``(N, 2)`` of positions ``(N, 3)`` in mm."""
        middle = (self.count - 1) / 2
        return torch.stack([xyz[:, 0], FRAME_CENTRE_Z - xyz[:, 2]], dim=1) / self.pixel_mm + middle


@dataclass(frozen=True)
class Exposure:
    """How one film is taken and shown."""

    mu_per_mm: float  # effective attenuation of water
    scatter: float  # share of the blurred beam that is added to the primary
    scatter_mm: float
    blur_mm: float
    quanta: float  # in one pixel of the unattenuated beam, at 1 mm pixels
    detail: float  # gain of structures finer than detail_mm
    detail_mm: float
    black: float  # how far below the patient's lowest density black lies, in shares of the range
    white: float  # the same above the highest density
    curve: float  # steepness of the S-shaped look-up
    gamma: float


def draw_exposure(draws: Draws, view: str) -> Exposure:
    """PA: a stationary unit with a grid. AP: a portable one, softer beam, more scatter, flatter."""
    portable = view == "AP"
    return Exposure(
        mu_per_mm=draws.uniform(0.019, 0.023) if portable else draws.uniform(0.0165, 0.021),
        scatter=draws.uniform(0.4, 2.0) if portable else draws.uniform(0.15, 0.6),
        scatter_mm=draws.uniform(20, 45),
        blur_mm=draws.uniform(0.12, 0.35),
        quanta=draws.uniform(2e4, 2e5) if portable else draws.uniform(3e4, 6e5),
        detail=draws.uniform(1.1, 2.6),
        detail_mm=draws.uniform(8, 40),
        black=draws.uniform(-0.05, 0.5) if portable else draws.uniform(-0.05, 0.3),
        white=draws.uniform(-0.05, 0.35),
        curve=draws.uniform(0.5, 3),
        gamma=draws.uniform(0.8, 1.25),
    )


def tube_shadow(
    frame: Frame, start: Tensor, end: Tensor, radius: Tensor, density: Tensor | float = 1.0, reach_mm: float = 0.0
) -> Tensor:
    """Shadow ``(H, W)`` in mm of round tubes: ends ``(N, 3)`` and radii ``(N,)`` in mm, density relative to water.

    A tube is drawn as flat discs along its axis, which add up to its chord. Its volume is kept at any pixel size.
    """
    density = torch.as_tensor(density).expand(len(radius))
    canvas = torch.zeros(frame.count**2)
    discs = (radius / frame.pixel_mm).clamp(min=SMALLEST_DISC)
    octave = discs.log2().ceil().long()
    for group in octave.unique():
        chosen = octave == group
        step = max(0.25 * float(discs[chosen].min()), 0.5) * frame.pixel_mm
        centres, owner, length = _points_along(start[chosen], end[chosen], step)
        mass = (torch.pi * radius[chosen].square() * density[chosen])[owner] * length / frame.pixel_mm**2
        _stamp(canvas, frame, frame.pixels(centres), discs[chosen][owner], mass)
    return canvas.reshape(frame.count, frame.count)


def _points_along(start: Tensor, end: Tensor, step_mm: float) -> tuple[Tensor, Tensor, Tensor]:
    """Middles ``(M, 3)`` of equal pieces of each segment, the segment each belongs to, and the pieces' lengths."""
    along = end - start
    length = along.square().sum(1).sqrt()
    pieces = (length / step_mm).ceil().long().clamp(min=1)
    owner = torch.arange(len(pieces)).repeat_interleave(pieces)
    first = pieces.cumsum(0) - pieces
    share = (torch.arange(len(owner)) - first[owner] + 0.5) / pieces[owner]
    return start[owner] + share[:, None] * along[owner], owner, (length / pieces)[owner]


def _stamp(canvas: Tensor, frame: Frame, centres: Tensor, discs: Tensor, mass: Tensor) -> None:
    """Spread each mass over a soft-edged disc of its radius in pixels, in place."""
    reach = int(discs.max()) + 2
    side = torch.arange(-reach, reach + 1)
    cells = torch.cartesian_prod(side, side)
    for begin in range(0, len(centres), max(CHUNK // len(cells), 1)):
        piece = slice(begin, begin + max(CHUNK // len(cells), 1))
        at = centres[piece].round().long()[:, None] + cells
        distance = (at - centres[piece][:, None]).square().sum(2).sqrt()
        share = (discs[piece][:, None] + 0.5 - distance).clamp(0, 1)
        share = share / share.sum(1, keepdim=True) * mass[piece][:, None]
        inside = ((at >= 0) & (at < frame.count)).all(2) & (share != 0)
        canvas.index_add_(0, (at[..., 1] * frame.count + at[..., 0])[inside], share[inside])


def capsule_shadow(frame: Frame, start: tuple[float, float], end: tuple[float, float], radius: float) -> Tensor:
    """Chord ``(H, W)`` in mm of one thick round tube between two positions (x, z)."""
    (x0, z0), (x1, z1) = start, end
    dx, dz = x1 - x0, z1 - z0
    across, up = frame.x() - x0, frame.z() - z0
    along = ((across * dx + up * dz) / (dx * dx + dz * dz)).clamp(0, 1)
    squared = (across - along * dx).square() + (up - along * dz).square()
    return 2 * (radius**2 - squared).clamp(min=0).sqrt()


def ellipsoid_shadow(
    frame: Frame, centre: tuple[float, float], radii: tuple[float, float, float], turn: float = 0.0
) -> Tensor:
    """Chord ``(H, W)`` in mm of an ellipsoid at (x, z), radii along x, y and z, turned by ``turn`` radians."""
    across, up = frame.x() - centre[0], frame.z() - centre[1]
    cosine, sine = torch.tensor(turn).cos(), torch.tensor(turn).sin()
    u, v = (across * cosine + up * sine) / radii[0], (up * cosine - across * sine) / radii[2]
    return 2 * radii[1] * (1 - u.square() - v.square()).clamp(min=0).sqrt()


def blur_plane(plane: Tensor, sd_pixels: float) -> Tensor:
    """Gaussian of a plane ``(H, W)``, edges repeated; a wide one is computed on larger pixels."""
    factor = max(int(sd_pixels / 4), 1)
    image = plane[None, None]
    if factor > 1:
        image = F.avg_pool2d(image, factor, ceil_mode=True, count_include_pad=False)
    sd = sd_pixels / factor
    reach = max(int(3 * sd + 0.5), 1)
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / max(sd, 1e-3)).square())
    weights = weights / weights.sum()
    image = F.conv2d(F.pad(image, (reach, reach, 0, 0), mode="replicate"), weights[None, None, None])
    image = F.conv2d(F.pad(image, (0, 0, reach, reach), mode="replicate"), weights[None, None, :, None])
    if factor > 1:
        image = F.interpolate(image, scale_factor=factor, mode="bilinear")[..., : plane.shape[0], : plane.shape[1]]
    return image[0, 0]


def detect(water_mm: Tensor, exposure: Exposure, pixel_mm: float, draws: Draws) -> Tensor:
    """Share of the beam ``(H, W)`` that the detector counts behind ``water_mm`` of water: primary, scatter, noise."""
    primary = torch.exp(-exposure.mu_per_mm * water_mm.clamp(0, LARGEST_WATER_MM))
    scattered = blur_plane(primary.clamp(max=SCATTER_SOURCE), exposure.scatter_mm / pixel_mm)
    signal = blur_plane(primary, exposure.blur_mm / pixel_mm) + exposure.scatter * scattered
    quanta = exposure.quanta * pixel_mm**2
    noisy = signal + draws.noise(signal.shape) * (signal / quanta).sqrt()
    return noisy.clamp(min=1 / quanta)


def show(signal: Tensor, patient: Tensor, exposure: Exposure, pixel_mm: float) -> Tensor:
    """Grey values ``(H, W)`` from 0 to 1, dense tissue bright; the window is fitted to the mask ``patient``."""
    density = -signal.log()
    base = blur_plane(density, exposure.detail_mm / pixel_mm)
    density = base + exposure.detail * (density - base)
    low, high = density[patient].quantile(torch.tensor(EXTREMES))
    low, high = low - exposure.black * (high - low), high + exposure.white * (high - low)
    level = ((density - low) / (high - low)).clamp(0, 1).pow(exposure.gamma)
    middle = torch.tanh(torch.tensor(exposure.curve / 2))
    return 0.5 + 0.5 * torch.tanh(exposure.curve * (level - 0.5)) / middle
