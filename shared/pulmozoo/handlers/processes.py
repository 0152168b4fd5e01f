"""What a training needs to run as several processes, as torchrun starts them; one GPU for each where there are GPUs."""

import torch
from ignite import distributed as idist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def join() -> None:
    """Become one of the processes: NCCL with GPUs, else gloo."""
    idist.initialize("nccl" if torch.cuda.is_available() else "gloo")


def leave() -> None:
    """Wait for the other processes, then be none of them."""
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def own_device() -> str:
    """``cuda:<number>`` of this process, or ``cpu``."""
    return f"cuda:{idist.get_local_rank()}" if torch.cuda.is_available() else "cpu"


def shared(network: nn.Module) -> DistributedDataParallel:
    """The network with gradients that are averaged over the processes; its parameters stay those of ``network``."""
    on_gpu = next(network.parameters()).is_cuda
    # CTSU-Net has epochs in which its second stage rests, the pneumothorax network those with a frozen encoder.
    return DistributedDataParallel(
        network, device_ids=[idist.get_local_rank()] if on_gpu else None, find_unused_parameters=True
    )
