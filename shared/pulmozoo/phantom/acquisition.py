"""What the scanner adds to a painted chest: blur, quantum noise and the grain of lung tissue too fine to be drawn."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .fields import Draws

Triple = tuple[float, float, float]

HU_RANGE = (-1024, 3071)
GRAIN_MM = 1.2  # sd of the Gaussian that correlates lung grain: gone after about 3 mm (emphysema_texture.md)


@dataclass(frozen=True)
class Scanner:
    """Blur in mm, noise in HU and its correlation in voxels."""

    blur_mm: float
    noise_hu: float
    noise_voxels: float


def draw_scanner(draws: Draws) -> Scanner:
    noise = draws.uniform(5, 30) if draws.chance(0.75) else draws.uniform(30, 60)
    return Scanner(draws.uniform(0.4, 1.0), noise, draws.uniform(0.3, 0.9))


def gaussian_blur(volume: Tensor, sd_voxels: Triple) -> Tensor:
    """Separable Gaussian of a ``(X, Y, Z)`` volume, edges repeated."""
    for axis, sd in enumerate(sd_voxels):
        kernel = _kernel(sd)
        reach = len(kernel) // 2
        first, last = volume.narrow(axis, 0, 1), volume.narrow(axis, -1, 1)
        volume = _slide(torch.cat([first] * reach + [volume] + [last] * reach, dim=axis), kernel, axis)
    return volume


def correlated_noise(draws: Draws, shape: tuple[int, ...], sd_voxels: Triple) -> Tensor:
    """Unit-variance Gaussian noise with Gaussian correlation, alike up to the edges."""
    kernels = [_kernel(sd) for sd in sd_voxels]
    noise = draws.noise([count + len(kernel) - 1 for count, kernel in zip(shape, kernels, strict=True)])
    for axis, kernel in enumerate(kernels):
        gain = sum(weight**2 for weight in kernel) ** 0.5
        noise = _slide(noise, [weight / gain for weight in kernel], axis)
    return noise


def _kernel(sd: float) -> list[float]:
    """Gaussian weights integrated over each voxel, so that a blur finer than a voxel is still right."""
    reach = max(int(3 * sd + 0.5), 1)
    edges = (torch.arange(-reach, reach + 2, dtype=torch.float64) - 0.5) / max(sd, 1e-3)
    weights = torch.special.ndtr(edges).diff()
    return (weights / weights.sum()).tolist()


def _slide(volume: Tensor, kernel: list[float], axis: int) -> Tensor:
    """Correlate along one axis, which loses ``len(kernel) - 1`` voxels."""
    length = volume.shape[axis] - len(kernel) + 1
    blurred = volume.narrow(axis, 0, length) * kernel[0]
    for shift, weight in enumerate(kernel[1:], start=1):
        blurred.add_(volume.narrow(axis, shift, length), alpha=weight)
    return blurred


def acquire(hu: Tensor, aerated: Tensor, grain_hu: float, scanner: Scanner, spacing_mm: Triple, draws: Draws) -> Tensor:
    """Turn painted HU ``(X, Y, Z)`` into a scan (int16); ``aerated`` marks lung tissue, which has grain."""
    sx, sy, sz = spacing_mm
    grain_voxels = (GRAIN_MM / sx, GRAIN_MM / sy, GRAIN_MM / sz)
    # Voxels larger than the grain average it out.
    averaged = min(1.0, ((3 * GRAIN_MM) ** 3 / (sx * sy * sz)) ** 0.5)
    grain = correlated_noise(draws, hu.shape, grain_voxels).to(hu.device)
    image = hu + aerated * grain * (grain_hu * averaged)
    image = gaussian_blur(image, (scanner.blur_mm / sx, scanner.blur_mm / sy, scanner.blur_mm / sz))
    n = scanner.noise_voxels
    image += correlated_noise(draws, hu.shape, (n, n, 0.5 * n)).to(hu.device) * scanner.noise_hu
    return image.round_().clamp_(*HU_RANGE).to(torch.int16)
