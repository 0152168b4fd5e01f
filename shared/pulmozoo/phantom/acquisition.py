"""What the scanner makes of a painted chest: slices, kernel, noise and artefacts, in int16 HU."""

from collections.abc import Iterator

import torch
from torch import Tensor

from .artefacts import Marks, add_streak_sources, blur_heart, photon_streaks
from .attenuation import measure_attenuation
from .fields import Draws
from .filters import gaussian_weights, repeat_edges, slide, unit_power
from .kernel import Kernel, kernel_of
from .scan_grid import ScanGrid
from .scanner import AIR_HU

HIGHEST_HU = 3071
BOX_SD = 0.29  # of a box, as a share of its width
SLAB_VOXELS = 1_000_000  # filtered at once


def acquire(hu: Tensor, scan: ScanGrid, marks: Marks, draws: Draws) -> Tensor:
    """Turn HU painted on ``scan.painted()`` into a scan of ``scan.shape`` (int16)."""
    scanner, device = scan.scanner, hu.device
    image = scan.image(hu)
    blur_heart(image, scan, marks, draws)
    add_streak_sources(image, scan, marks, draws)
    attenuation = measure_attenuation(image, scan.spacing_mm)
    kernel = kernel_of(scanner, scan.spacing_mm[:2])
    width, width_mm = scan.shape[0], scan.shape[0] * scan.spacing_mm[0]
    ct_hu = torch.empty(scan.shape, dtype=torch.int16, device=device)
    for part, noise in _noise_slabs(scan, kernel, draws):
        here = attenuation.part(part)
        slab = _filtered(image[..., part], noise.to(device), kernel, scanner.noise_hu * here.noise_scale())
        if scanner.streak_hu:
            slab += photon_streaks(here.starvation(), width, scanner.streak_hu, width_mm, draws)
        ct_hu[..., part] = slab.round_().clamp_(AIR_HU, HIGHEST_HU).to(torch.int16)
    if scanner.field_mm is not None:
        ct_hu.masked_fill_(~scan.inside(device), scanner.padding_hu)
    return ct_hu


def _filtered(image: Tensor, white: Tensor, kernel: Kernel, noise_hu: Tensor) -> Tensor:
    """Image ``(X, Y, Z)`` and noise of a given sd through the kernel; white noise reaches beyond the image."""
    noise = kernel.without_low(white)
    loudness = noise_hu / kernel.noise_gain
    for axis, reach in enumerate(kernel.reach):
        image, loudness = repeat_edges(image, reach, axis), repeat_edges(loudness, reach, axis)
    return kernel.apply(torch.addcmul(image, noise, loudness))


def _noise_slabs(scan: ScanGrid, kernel: Kernel, draws: Draws) -> Iterator[tuple[slice, Tensor]]:
    """White noise of unit variance for a few slices after another, correlated along z where slices overlap."""
    x, y = (count + 2 * reach for count, reach in zip(scan.shape[:2], kernel.noise_reach, strict=True))
    thickness = scan.scanner.slice_mm / scan.spacing_mm[2]
    weights = unit_power(gaussian_weights(BOX_SD * thickness)) if thickness > 1 else [1.0]
    before = draws.noise((x, y, len(weights) - 1))
    thick = max(SLAB_VOXELS // (x * y), 1)
    for start in range(0, scan.shape[2], thick):
        part = slice(start, min(start + thick, scan.shape[2]))
        white = torch.cat([before, draws.noise((x, y, part.stop - start))], dim=2)
        before = white[..., white.shape[2] - len(weights) + 1 :]
        yield part, slide(white, weights, axis=2)
