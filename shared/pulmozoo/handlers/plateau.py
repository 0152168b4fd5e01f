"""Lower the learning rate when the validation no longer gets better."""

from ignite.engine import Engine, Events
from torch.optim.lr_scheduler import ReduceLROnPlateau

from .score_table import ScoreTable


class PlateauDecay:
    """Step a scheduler with a score of the validation after each epoch that had one.

    Attach it after what validates and before what saves.

    Args:
        scheduler: keeps its own state.
        scores: of the validation.
        interval: epochs from one validation to the next.
        score: name of the score that is to fall.
    """

    def __init__(
        self, scheduler: ReduceLROnPlateau, scores: ScoreTable, interval: int = 1, score: str = "loss"
    ) -> None:
        self.scheduler = scheduler
        self.scores = scores
        self.interval = interval
        self.score = score

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.interval), self)

    def __call__(self, engine: Engine) -> None:
        value = self.scores.mean().get(self.score)
        if value is not None:
            self.scheduler.step(value)
