"""A film and its mirror image, answered together: a chest has two sides that a pneumothorax may be on."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from .autocast import AutocastInferer


class MirroredInferer(AutocastInferer):
    """As :class:`AutocastInferer`; the mean of the logits for films ``(N, C, H, W)`` and for their mirror images.

    Args:
        amp: bfloat16.
        mirrored: False for the films alone.
    """

    def __init__(self, *, amp: bool = False, mirrored: bool = True) -> None:
        super().__init__(amp=amp)
        self.mirrored = mirrored

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        answer = super().__call__(inputs, network, *args, **kwargs)
        if not self.mirrored:
            return answer
        return (answer + super().__call__(inputs.flip(-1), network, *args, **kwargs).flip(-1)) / 2
