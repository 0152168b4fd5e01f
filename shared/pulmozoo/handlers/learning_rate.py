"""How the learning rate falls over the epochs, as a factor for ``torch.optim.lr_scheduler.LambdaLR``."""

import math
from collections.abc import Sequence


def phased_cosine(
    epoch: int, phases: Sequence[int], max_epochs: int, lowest: float | Sequence[float], *, ahead: bool = False
) -> float:
    """Half a cosine from 1 to ``lowest`` in each phase of a training.

    A function of the epoch alone, so that a training that is resumed with more epochs follows the longer curve.

    Args:
        epoch: counted from 0.
        phases: first epoch of each phase, rising; a phase ends where the next begins. Empty phases are passed over.
        max_epochs: end of the last phase.
        lowest: factor at the end of each phase, 0 to 1; one for all or one for each.
        ahead: an epoch has the factor that the next one would have, as where the schedule is stepped at the start of
            each epoch: no epoch runs at 1, the last of each phase runs at ``lowest``.
    """
    start = max((first for first in phases if first <= epoch), default=0)
    stop = min((first for first in phases if first > epoch), default=max_epochs)
    done = min((epoch - start + ahead) / max(stop - start, 1), 1.0)
    end = lowest if isinstance(lowest, float | int) else lowest[sum(first <= epoch for first in phases) - 1]
    return end + (1 - end) * (1 + math.cos(math.pi * done)) / 2
