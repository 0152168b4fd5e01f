"""SR-Net on a volume: each axial slice with lung from the stack around it; and on stacks that are cut already.

Source: Bermejo-Peláez et al., ISBI 2019 (see ``networks.srnet``). Stacks of neighbouring slices overlap, but what the
encoder finds in them is not shared: a stack is padded with zeros above and below, so that features near its ends are
those of no other stack, and strides of 2 begin anew in each.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.inferers import Inferer
from monai.utils import convert_to_tensor
from torch import Tensor, nn

from ..blocks.slice_recovery import target_index
from .slices import in_batches, padded_plane, slices_with

NO_LESION = -20.0  # logit of slices without lung
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def stack_indices(targets: Sequence[int], depth: int, slices: int, step: int = 1) -> Tensor:
    """Numbers of the slices in each target's stack: ``(len(targets), depth)``; beyond the ends the last is repeated."""
    offsets = (torch.arange(depth) - target_index(depth)) * step
    return (torch.tensor(targets)[:, None] + offsets).clamp(0, slices - 1)


def to_channels_last(network: Callable[..., Any]) -> None:
    """Lay a network's convolutions out as CPUs and GPUs are fastest with; several times so in bfloat16."""
    if isinstance(network, nn.Module):
        for weight in network.parameters():
            if weight.ndim in CHANNELS_LAST:
                weight.data = weight.data.contiguous(memory_format=CHANNELS_LAST[weight.ndim])


def laid_out(stacks: Tensor, amp: bool) -> Tensor:
    """Stacks ``(N, 1, depth, H, W)`` in channels-last order, in bfloat16 where the network computes in it.

    With one channel PyTorch takes either order for the other, and what is concatenated with such a tensor, and all that
    follows, gets the slower one and the wider type.
    """
    kind = torch.bfloat16 if amp else stacks.dtype
    last = torch.empty(stacks.shape, dtype=kind, device=stacks.device, memory_format=torch.channels_last_3d)
    return last.copy_(stacks)


class ContextSlicesInferer(Inferer):
    """Logits of volumes, ``(B, 1, D, H, W) -> (B, 1, D, H, W)`` in float32, from ``(B, 1, depth, H, W)`` stacks.

    The image is 0 outside the lung; slices that are 0 all over get the logit ``NO_LESION``. Any size will do.

    Args:
        depth: slices of a stack; 1 for networks without context.
        batch: stacks a forward pass.
        multiple: planes are filled up with zeros until their sizes are divisible by it, and the answer is cut back: 8
            for SR-Net and 2D-Net, 16 for the U-Nets.
        amp: bfloat16; on a CPU with bfloat16 instructions several times faster.
    """

    def __init__(self, depth: int = 8, batch: int = 4, multiple: int = 8, *, amp: bool = False) -> None:
        super().__init__()
        self.depth = depth
        self.batch = batch
        self.multiple = multiple
        self.amp = amp

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        to_channels_last(network)
        return torch.stack([self.one_volume(volume, network) for volume in convert_to_tensor(inputs)])

    def one_volume(self, volume: Tensor, network: Callable[..., Any]) -> Tensor:
        """``(1, D, H, W)`` to the same."""
        slices, height, width = volume.shape[1:]
        padded = padded_plane(volume, self.multiple)
        answer = torch.full_like(volume, NO_LESION, dtype=torch.float32)
        with torch.autocast(volume.device.type, dtype=torch.bfloat16, enabled=self.amp):
            for group in in_batches(slices_with(volume), self.batch):
                stacks = padded[:, stack_indices(group, self.depth, slices)].transpose(0, 1)
                logits = network(laid_out(stacks, self.amp))
                answer[:, group] = logits[:, 0, :, :height, :width].transpose(0, 1).float()
        return answer


class StacksInferer(Inferer):
    """Logits of stacks, ``(N, 1, depth, H, W) -> (N, 1, 1, H, W)`` in float32, a few at a time.

    Args:
        batch: stacks a forward pass.
        amp: bfloat16.
    """

    def __init__(self, batch: int = 4, *, amp: bool = False) -> None:
        super().__init__()
        self.batch = batch
        self.amp = amp

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        stacks = convert_to_tensor(inputs)
        with torch.autocast(stacks.device.type, dtype=torch.bfloat16, enabled=self.amp):
            return torch.cat([network(laid_out(group, self.amp)).float() for group in stacks.split(self.batch)])
