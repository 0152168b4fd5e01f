"""Volumes through a 2D network: slices are folded into the batch."""

from collections.abc import Callable

from torch import Tensor


def slice_by_slice(body: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    """Apply ``body``, ``(B, in, H, W) -> (B, out, H, W)``, to slices or to volumes ``(B, in, D, H, W)``.

    The answer has as many axes as the image. Other numbers of axes raise ValueError.
    """
    if image.ndim == 4:
        return body(image)
    if image.ndim != 5:
        raise ValueError(f"image must have shape (B, C, H, W) or (B, C, D, H, W), got {tuple(image.shape)}")
    batch, _, depth = image.shape[:3]
    answer = body(image.transpose(1, 2).flatten(0, 1))
    return answer.unflatten(0, (batch, depth)).transpose(1, 2)
