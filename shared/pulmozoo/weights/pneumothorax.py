"""Names in checkpoints of the published pneumothorax program (TheoViel/pneumothorax_segmentation).

Its authors offer no checkpoint; this is for weights that someone trained with it.
"""

import re

from ..networks.pneumothorax import PneumothoraxUNet

CONVS = {f"block.{conv}.block.{layer}": 3 * conv + layer for conv in (0, 1) for layer in (0, 1)}
PARTS = {
    **{f"center.{published}": f"centre.{ours}" for published, ours in CONVS.items()},
    **{published: f"convs.{ours}" for published, ours in CONVS.items()},
    **{f"center.aspp{number}.atrous_conv": f"centre.branches.{number - 1}.0" for number in range(1, 5)},
    **{f"center.aspp{number}.bn": f"centre.branches.{number - 1}.1" for number in range(1, 5)},
    "center.global_avg_pool.1": "centre.whole.0",
    "center.global_avg_pool.2": "centre.whole.1",
    "center.conv1": "centre.join.0",
    "center.bn1": "centre.join.1",
    **{f"decoder.layer{number}": f"decoder.{number - 1}" for number in range(1, 5)},
    "attention1": "attend_joined",
    "attention2": "attend_out",
    "cSE.1": "squeeze",
    "cSE.3": "excite",
    "sSE.0": "place",
    "decoder.global_layer": "last",
    "decoder.final_conv": "mask_head",
    "logit": "class_head",
}
PART = re.compile("|".join(rf"(?<![^.]){re.escape(part)}(?![^.])" for part in PARTS))


def our_part(found: re.Match[str]) -> str:
    return PARTS[found[0]]


def our_name(published: str) -> str:
    """``decoder.layer1.block.1.block.0.weight`` is ``decoder.0.convs.3.weight``; the encoder's names stay."""
    return PART.sub(our_part, published)


def paper_network() -> PneumothoraxUNet:
    """The network of the ``paper`` preset: the paper's baseline, without its four options."""
    return PneumothoraxUNet()
