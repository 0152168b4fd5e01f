"""Densitometry of the lungs: how much is low attenuation, where the density curve lies, and whether to believe it.

Sources: Gevenois et al., Am J Respir Crit Care Med 1995;152:653-657 (-950 HU); Parr et al., Respir Res 2006;7:21
(15th percentile); noise by the mask of Immerkaer, "Fast noise variance estimation", Computer Vision and Image
Understanding 1996;64:300-302. Ours: the median in place of its mean, because vessels are no noise, and the limit.
"""

from math import isfinite

import torch
from torch import Tensor
from torch.nn import functional as F

AIR_HU = -1024  # darkest value of a scan that was read here
LAA_HU = {"laa950": -950, "laa910": -910}
PERCENTILE = 15
QUANTITIES = ("volume_ml", "mean_hu", *(f"{name}_percent" for name in LAA_HU), f"perc{PERCENTILE}_hu")

# A0001 of Lung-PET-CT-Dx, 5 mm slices, has 3 HU with its smooth kernel B and 28 HU with the sharp L; slices of 0.75 mm
# of kernel B would have 3 * sqrt(5 / 0.75) = 8.
NOISE_LIMIT_HU = 15.0
LARGEST_PIXEL_MM = 1.5  # in larger pixels the vessels themselves alternate from pixel to pixel
NOISE_SLICES = 32
NORMAL_MEDIAN = 0.6745  # median of the absolute value of a standard normal variable
MASK_NORM = 6.0  # root of the sum of squares of the mask's nine weights


def density_histograms(ct_hu: Tensor, labels: Tensor, count: int) -> Tensor:
    """Voxels by label and HU: ``(count, bins)``, the first bin is -1024 HU, label 0 counts nothing.

    Args:
        ct_hu: integers from -1024, any shape.
        labels: integers of the same shape, below ``count``.
    """
    inside = (labels.flatten() > 0).nonzero()[:, 0]  # twice as fast as a mask
    hu = ct_hu.flatten()[inside].int() - AIR_HU
    bins = int(hu.max()) + 1 if len(hu) else 1
    slots = labels.flatten()[inside].int() * bins + hu
    return torch.bincount(slots, minlength=count * bins).reshape(count, bins)


def density_numbers(histogram: Tensor, voxel_ml: float) -> dict[str, float | None]:
    """Volume, mean, percent below -950 and -910 HU, and the smallest HU with 15 % of the voxels at or below it.

    Args:
        histogram: ``(bins,)`` of :func:`density_histograms`; without a voxel all but the volume is None.
        voxel_ml: volume of a voxel.
    """
    counts = histogram.double()
    voxels = counts.sum().item()
    numbers: dict[str, float | None] = {"volume_ml": round(voxels * voxel_ml, 2)}
    if not voxels:
        return {**dict.fromkeys(QUANTITIES), **numbers}
    hu = torch.arange(len(counts)) + AIR_HU
    numbers["mean_hu"] = round((counts @ hu.double()).item() / voxels, 2)
    for name, limit in LAA_HU.items():
        numbers[f"{name}_percent"] = round(100 * counts[: limit - AIR_HU].sum().item() / voxels, 3)
    numbers["perc15_hu"] = int(hu[int((counts.cumsum(0) * 100 < PERCENTILE * voxels).sum())])
    return numbers


def densitometry(ct_hu: Tensor, mask: Tensor, voxel_ml: float) -> dict[str, float | None]:
    """:func:`density_numbers` of a mask: ``volume_ml``, ``mean_hu``, ``laa950_percent``, ``laa910_percent``,
    ``perc15_hu``; both tensors of one shape."""
    return density_numbers(density_histograms(ct_hu, (mask > 0).to(torch.uint8), 2)[1], voxel_ml)


def in_slice_noise(ct_hu: Tensor, lungs: Tensor) -> float | None:
    """Standard deviation in HU of what alternates from pixel to pixel inside the lungs; None without such pixels.

    A sharp kernel and a low dose both raise it. Both tensors are ``(D, H, W)``, slices first; some 32 slices are read.
    """
    used = (lungs > 0).flatten(1).any(dim=1).nonzero()[:, 0]
    used = used[:: max(1, len(used) // NOISE_SLICES)]
    slices = second_difference(second_difference(ct_hu[used].float(), 1), 2)
    inside = F.max_pool2d((lungs[used] == 0).float()[:, None], kernel_size=3, stride=1)[:, 0] == 0
    noise = slices[inside].abs().median().item() / (NORMAL_MEDIAN * MASK_NORM)
    return noise if isfinite(noise) else None


def second_difference(x: Tensor, axis: int) -> Tensor:
    """Two voxels shorter along the axis: each voxel's two neighbours less twice itself."""
    size = x.shape[axis] - 2
    return x.narrow(axis, 0, size) - 2 * x.narrow(axis, 1, size) + x.narrow(axis, 2, size)


def kernel_warning(noise_hu: float | None, pixel_mm: float) -> str | None:
    """A sentence where the noise of :func:`in_slice_noise` makes low attenuation percents unreliable, else None."""
    if noise_hu is None or noise_hu <= NOISE_LIMIT_HU or pixel_mm > LARGEST_PIXEL_MM:
        return None
    return (
        f"sharp kernel or low dose: {noise_hu:.0f} HU of noise from pixel to pixel in the lungs, more than "
        f"{NOISE_LIMIT_HU:.0f}, so LAA-950, LAA-910 and Perc15 are unreliable; use a smooth reconstruction"
    )
