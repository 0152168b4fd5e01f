"""One forward pass, in bfloat16 where asked."""

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor


class AutocastInferer(Inferer):
    """``network(inputs, *args)`` under autocast to bfloat16, on CPU and GPU alike (MONAI's own ``amp`` is CUDA's)."""

    def __init__(self, *, amp: bool = False) -> None:
        super().__init__()
        self.amp = amp

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with torch.autocast(inputs.device.type, dtype=torch.bfloat16, enabled=self.amp):
            return network(inputs, *args, **kwargs)
