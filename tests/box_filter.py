"""A topology test that needs no reference weights: every convolution takes the mean of what it sees."""

from math import prod

import torch
from torch import Tensor, nn

DECONVOLUTIONS = (nn.ConvTranspose2d, nn.ConvTranspose3d)
CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, *DECONVOLUTIONS)


def box_filtered(network: nn.Module) -> nn.Module:
    """The network in eval mode with weights 1 / fan-in (transposed: 1 / input channels), biases 0, norms as new."""
    for module in network.modules():
        if isinstance(module, CONVOLUTIONS):
            fan_in = len(module.weight) if isinstance(module, DECONVOLUTIONS) else module.weight[0].numel()
            nn.init.constant_(module.weight, 1 / fan_in)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network.eval()


def sawtooth(*shape: int) -> Tensor:
    """``((i * 7919) mod 101) / 101`` over the flat index."""
    return (torch.arange(prod(shape)) * 7919 % 101).float().reshape(shape) / 101


def gigamacs(network: nn.Module, *shape: int) -> float:
    """Multiply-adds of the convolutions in 1e9 for an input of some shape; the network is on the meta device."""
    total = 0

    def add(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        nonlocal total
        positions = inputs[0] if isinstance(module, DECONVOLUTIONS) else output
        total += module.weight.numel() * prod(positions.shape[2:]) * len(output)

    hooks = [m.register_forward_hook(add) for m in network.modules() if isinstance(m, CONVOLUTIONS)]
    network(torch.zeros(shape, device="meta"))
    for hook in hooks:
        hook.remove()
    return total / 1e9


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def without_gradient(network: nn.Module, answer: Tensor) -> list[str]:
    """Names of parameters that an answer does not reach."""
    answer.square().sum().backward()
    return [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
