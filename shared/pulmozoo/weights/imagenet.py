"""ImageNet weights for the ResNet-34 encoder: torchvision's file, brought by the user's machine."""

import logging
from pathlib import Path
from typing import NamedTuple

from ignite.engine import Engine, Events

from ..bundle.errors import BadInput
from ..bundle.weights_file import load_strictly, read_weights, sha256
from ..networks.pneumothorax import ENCODER_WIDTHS, ResNet34
from .published_file import fetch

logger = logging.getLogger(__name__)

CLASSIFIER = "fc."
COUNTER = "num_batches_tracked"  # of batch norms; files older than PyTorch 0.4.1 have none


class PublishedEncoder(NamedTuple):
    """A file that is downloaded, never shipped by us: its address, and the kind and hex digest that tell it."""

    url: str
    identity: tuple[str, str]


# Code under BSD-3-Clause; trained on ImageNet, whose images are for research.
RESNET34 = PublishedEncoder(
    url="https://download.pytorch.org/models/resnet34-333f7ec4.pth",
    identity=("sha256", "333f7ec4c6338da2cbed37f1fc0445f9624f1355633fa1d7eab79a91084c6cef"),
)


def load_imagenet(encoder: ResNet34, path: Path) -> None:
    """Fill the encoder from a file with torchvision's names; its classifier is left out, anything else must fit.

    Raises BadInput when the file is missing, damaged or of another network, or when the encoder is narrower or wider
    than ResNet-34.
    """
    stem = encoder.conv1.out_channels
    if stem != ENCODER_WIDTHS[0]:
        raise BadInput(
            f"ImageNet weights fit an encoder of width 1, got one with {stem} channels instead of {ENCODER_WIDTHS[0]} "
            "in its stem: choose a preset of width 1, or train without --pretrained"
        )
    state = {name: tensor for name, tensor in read_weights(path).items() if not name.startswith(CLASSIFIER)}
    counters = {name: count for name, count in encoder.state_dict().items() if name.endswith(COUNTER)}
    load_strictly(encoder, counters | state, path)


class ImageNetEncoder:
    """Fill the encoder when a training starts; attach it before what resumes a training.

    Args:
        encoder: what is filled; only at the first start of an engine.
        source: ``"download"`` for torchvision's file, fetched once and told by its digest, or the path of such a file.
    """

    def __init__(self, encoder: ResNet34, source: str) -> None:
        self.encoder = encoder
        self.source = source
        self.loaded = False

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        if self.loaded:
            return
        download = self.source == "download"
        path = fetch("imagenet", RESNET34, option="--pretrained") if download else Path(self.source)
        load_imagenet(self.encoder, path)
        self.loaded = True
        logger.info("encoder from %s, sha256 %s", path, sha256(path))
