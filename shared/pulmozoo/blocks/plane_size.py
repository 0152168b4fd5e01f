"""Which slice sizes a network with poolings takes."""

from collections.abc import Sequence


def check_plane_size(plane: Sequence[int], multiple: int) -> None:
    """Height and width must be divisible by ``multiple``; else ValueError names the next that are."""
    if any(size < multiple or size % multiple for size in plane):
        fitting = tuple(max(multiple, -(-size // multiple) * multiple) for size in plane)
        raise ValueError(f"height and width must be divisible by {multiple}, got {tuple(plane)}: pad to {fitting}")
