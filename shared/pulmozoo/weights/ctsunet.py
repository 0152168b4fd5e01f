"""Names of the published lobe checkpoint (``best.pth`` of DIAGNijmegen/bodyct-pulmonary-lobe-segmentation)."""

import re

from ..networks.ctsunet import CTSUNet

PARTS = {
    "unet1": "scan_unet",
    "unet2": "patch_unet",
    "ds_modules": "down",
    "bg": "bridge",
    "us_modules": "up",
    "middle_psa": "non_local",
    "outs.0": "lobe_head",
    "outs.1": "border_head",
    "G": "value",
    "r.0": "back",
    "geo_theta": "geometry_theta",
    "geo_phi": "geometry_phi",
    "bns": "unused_norms",
    "bn": "norm",
}
CONV_BLOCK = re.compile(r"conv_blocks\.(\d)\.(\d)")
PART = re.compile("|".join(rf"(?<![^.]){re.escape(part)}(?![^.])" for part in PARTS))


def our_name(published: str) -> str:
    """``unet1.bg.conv_blocks.1.0.weight`` is ``scan_unet.bridge.3.weight``: the second convolution of a block."""
    flat = CONV_BLOCK.sub(lambda found: str(3 * int(found[1]) + int(found[2])), published)
    return PART.sub(lambda found: PARTS[found[0]], flat)


def released_network() -> CTSUNet:
    """The network that the published checkpoint belongs to."""
    return CTSUNet(released_widths=True, slot_norm=True)
