"""Slice recovery: the 2D skips that a 3D encoder has for one slice.

Source: Bermejo-Peláez et al., "A SR-Net 3D-to-2D architecture for paraseptal emphysema segmentation", ISBI 2019. The
paper does not say which of eight slices is the central one; here it is number 4, and the same rule holds on each level:
strides of 2 take slice 4 of 8 to slice 2 of 4 and to slice 1 of 2.
"""

from collections.abc import Iterable

from torch import Tensor


def target_index(depth: int) -> int:
    """The slice, counted from 0, of a stack of ``depth`` slices that is segmented: 4 of 8, 0 of 1."""
    return depth // 2


def recover_slices(levels: Iterable[Tensor]) -> list[Tensor]:
    """From each level of any 3D encoder the target slice: ``(B, C, D, H, W)`` each to ``(B, C, 1, H, W)``."""
    return [level.narrow(2, target_index(level.shape[2]), 1) for level in levels]
