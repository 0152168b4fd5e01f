"""Train in two stages: first what stands on a pretrained encoder, then everything with a fresh optimiser."""

import logging

from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import nn
from torch.optim import Optimizer

from ..losses.pneumothorax import PneumothoraxLoss

logger = logging.getLogger(__name__)


def frozen_parameters(encoder: nn.Module) -> list[nn.Parameter]:
    """What stage 1 leaves as it is: weights and biases of the convolutions, not the batch norms'."""
    convolutions = [module for module in encoder.modules() if isinstance(module, nn.Conv2d)]
    return [parameter for convolution in convolutions for parameter in convolution.parameters()]


class FrozenEncoder:
    """Keep the encoder's convolutions for the first ``epochs``; then train all as if the optimiser were new.

    Source: the published program of Viel and Orhan (TheoViel/pneumothorax_segmentation). All depends on the epoch
    alone, so that a resumed training goes on in its stage. Gradients are taken away before the optimiser's step instead
    of switched off: ``DistributedDataParallel`` fixes at its start which parameters have one.

    Args:
        encoder: its convolutions are kept in stage 1; all else of the network learns, its batch norms too.
        optimizer: its state is cleared when stage 2 begins.
        loss: is told the stage.
        epochs: length of stage 1; 0 for stage 2 alone.
    """

    def __init__(self, encoder: nn.Module, optimizer: Optimizer, loss: PneumothoraxLoss, epochs: int = 3) -> None:
        self.frozen = frozen_parameters(encoder)
        self.optimizer = optimizer
        self.loss = loss
        self.epochs = epochs

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self.freeze)

    def start(self, engine: Engine) -> None:
        self.loss.stage = 1 if engine.state.epoch <= self.epochs else 2
        if engine.state.epoch == self.epochs + 1:
            self.optimizer.state.clear()
            logger.info("epoch %d: the whole network learns from now on", engine.state.epoch)

    def freeze(self, engine: Engine) -> None:
        if self.loss.stage == 1:
            for parameter in self.frozen:
                parameter.grad = None
