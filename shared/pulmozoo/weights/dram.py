"""Names of the published emphysema checkpoint (``paper.ckpt`` of DIAGNijmegen/bodyct-dram-emph-subtype)."""

import re

from ..networks.dram import DRAM

PREFIX = "model."
ENCODER = re.compile(r"^layer(\d)\.(\d+)\.(conv|bn)(\d)")
STEM = {"conv1": "stem.0", "bn1": "stem.1"}
UP = re.compile(r"^us(\d)\.(?:conv_blocks\.(\d)\.)?(\d)")
HEADS = {"fcs.0": "cle_head", "fcs.1": "pse_head"}


def our_name(published: str) -> str:
    """``model.layer2.0.bn2.weight`` is ``layers.1.0.body.4.weight``; the prefix may be missing."""
    name = published.removeprefix(PREFIX)
    name = ENCODER.sub(_of_block, name)
    name = UP.sub(_of_up_block, name)
    for theirs, ours in (STEM | HEADS).items():
        if name.startswith(f"{theirs}."):
            name = ours + name.removeprefix(theirs)
    return name


def _of_block(found: re.Match[str]) -> str:
    """Place in the body of a residual block, which is convolution, norm, ReLU, convolution, ..."""
    place = 3 * (int(found[4]) - 1) + (found[3] == "bn")
    return f"layers.{int(found[1]) - 1}.{found[2]}.body.{place}"


def _of_up_block(found: re.Match[str]) -> str:
    """Place in a block on the way up: ``us1.conv_blocks.1.0`` is ``up1.3``, ``us3.1`` is ``up3.1``."""
    return f"up{found[1]}.{3 * int(found[2] or 0) + int(found[3])}"


def released_network() -> DRAM:
    """The network that the published checkpoint belongs to."""
    return DRAM()
