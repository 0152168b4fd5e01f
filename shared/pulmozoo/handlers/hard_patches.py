"""What CTSU-Net's forward pass needs in training, and how it changes over the epochs."""

from collections.abc import Mapping
from typing import Any

import torch
from ignite.engine import Events
from monai.engines import Trainer
from monai.utils import convert_to_tensor
from torch import Tensor


class HardPatches:
    """A handler that is its trainer's ``prepare_batch``, too: stage-2 patches from where stage 1 errs.

    Source: Xie et al., https://arxiv.org/abs/2004.07443, section III-D: the share of the scan that patches are drawn
    from falls from 1.0 to about 0.2. The law is not published; here it falls linearly with the epochs.

    Args:
        patches: patches a scan.
        patch: their input size, 4 mod 8.
        last_share: share in the last epoch.
        scan_epochs: epochs at the start in which only stage 1 learns (ours; 0 is the paper).
    """

    def __init__(self, patches: int = 2, patch: int = 116, last_share: float = 0.2, scan_epochs: int = 0) -> None:
        self.patches = patches
        self.patch = patch
        self.last_share = last_share
        self.scan_epochs = scan_epochs
        self.epoch = 1
        self.max_epochs = 1

    def attach(self, engine: Trainer) -> None:
        engine.prepare_batch = self
        engine.add_event_handler(Events.EPOCH_STARTED, self.follow)

    def follow(self, engine: Trainer) -> None:
        self.epoch, self.max_epochs = engine.state.epoch, engine.state.max_epochs or 1

    @property
    def share(self) -> float:
        done = (self.epoch - 1) / max(self.max_epochs - 1, 1)
        return 1 - (1 - self.last_share) * done

    def __call__(
        self, batch: Mapping[str, Tensor], device: torch.device, non_blocking: bool = False, **kwargs: Any
    ) -> tuple[Tensor, Tensor, tuple[Any, ...], dict[str, Any]]:
        image, label = (
            convert_to_tensor(batch[key]).to(device, non_blocking=non_blocking, **kwargs) for key in ("image", "label")
        )
        patches = 0 if self.epoch <= self.scan_epochs else self.patches
        return image, label, (label, patches, self.patch, self.share), {}
