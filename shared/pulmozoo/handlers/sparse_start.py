"""Begin a training of density maps from a low density everywhere, as most of a healthy scan has."""

from collections.abc import Sequence
from math import log

from ignite.engine import Engine, Events
from torch import nn


class SparseStart:
    """Set the biases of the last convolutions at the start so that a sigmoid of what they give is about ``density``.

    Attach it before what resumes, whose weights then replace these.

    Source: Lin et al., "Focal loss for dense object detection", ICCV 2017, https://arxiv.org/abs/1708.02002, section
    3.3.

    Args:
        heads: the convolutions.
        density: share of the voxels that is positive, 0 to 1.
    """

    def __init__(self, heads: Sequence[nn.Conv3d], density: float) -> None:
        self.heads = heads
        self.density = density

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        for head in self.heads:
            nn.init.constant_(head.bias, log(self.density / (1 - self.density)))  # type: ignore[arg-type]
