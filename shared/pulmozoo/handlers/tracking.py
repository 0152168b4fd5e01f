"""Curves of a training in TensorBoard or MLflow, by MONAI's handlers."""

from pathlib import Path

from ignite import distributed as idist
from ignite.engine import Engine, Events
from monai.handlers import MLFlowHandler, TensorBoardStatsHandler
from monai.utils import optional_import
from torch.optim import Optimizer

from ..bundle.errors import BadInput
from .score_table import ScoreTable

PACKAGES = {"tensorboard": "torch.utils.tensorboard", "mlflow": "mlflow"}  # kind, which is what pip calls it: module


class Tracking:
    """Show ``loss``, ``learning_rate`` and, as ``val_<score>``, the validation's mean scores of each epoch.

    Attach it after :class:`.progress.TrainingProgress` and what validates. A training that is resumed goes on in the
    same curves.

    Args:
        kind: tensorboard or mlflow.
        folder: holds ``tensorboard``, or ``mlflow.db`` unless MLFLOW_TRACKING_URI names a server; an MLflow run has its
            name.
        bundle_root: the bundle, by whose name MLflow calls the experiment.
        optimizer: whose first learning rate is shown.
        scores: of the validation.
        interval: epochs from one validation to the next.

    Raises BadInput for another kind, or where its package is missing.
    """

    def __init__(
        self,
        kind: str,
        folder: str | Path,
        bundle_root: str | Path,
        optimizer: Optimizer,
        scores: ScoreTable,
        interval: int = 1,
    ) -> None:
        if kind not in PACKAGES:
            raise BadInput(
                f"there is nothing to draw curves called {kind!r}: choose one of {', '.join(PACKAGES)}, none"
            )
        if not optional_import(PACKAGES[kind])[1]:
            raise BadInput(f"curves by {kind} need a package that is missing: pip install {kind}")
        self.kind = kind
        self.folder = Path(folder).absolute()
        self.bundle_root = Path(bundle_root)
        self.optimizer = optimizer
        self.scores = scores
        self.interval = interval

    def attach(self, engine: Engine) -> None:
        if idist.get_rank() != 0:  # of several processes that train together one writes
            return
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.interval), self.add_scores)
        written = self.to_tensorboard() if self.kind == "tensorboard" else self.to_mlflow()
        written.attach(engine)
        engine.add_event_handler(Events.COMPLETED, written.close)

    def start(self, engine: Engine) -> None:
        """The rate that the epoch runs at; nothing stays of the epoch before."""
        engine.state.metrics = {"learning_rate": self.optimizer.param_groups[0]["lr"]}

    def add_scores(self, engine: Engine) -> None:
        known = {f"val_{name}": value for name, value in self.scores.mean().items() if value is not None}
        engine.state.metrics.update(known)

    def to_tensorboard(self) -> TensorBoardStatsHandler:
        return TensorBoardStatsHandler(log_dir=str(self.folder / "tensorboard"), iteration_log=False)

    def to_mlflow(self) -> MLFlowHandler:
        self.folder.mkdir(parents=True, exist_ok=True)
        return MLFlowHandler(
            tracking_uri=f"sqlite:///{self.folder / 'mlflow.db'}",
            iteration_log=False,
            experiment_name=self.bundle_root.name,
            run_name=self.folder.name,
        )
