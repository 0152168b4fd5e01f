"""Pictures of the scans on which an evaluation went worst."""

import logging
from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from ignite import distributed as idist
from ignite.engine import Engine, Events
from PIL import Image

from ..files import whole
from ..transforms.grid import with_meta
from .overlay import title_of, truth_and_prediction

logger = logging.getLogger(__name__)


class Case(NamedTuple):
    """A scan's score and its picture."""

    score: float
    picture: Image.Image


class WorstCases:
    """Draw the scans with the lowest score, the lowest first, as ``worst_1.png``, ``worst_2.png``, ....

    A picture has the truth in the middle and the prediction below; a scan without the score has none. Pictures are
    drawn on the way, so that no more volumes are held than those of one scan, and written at the end.

    Args:
        folder: made if missing.
        score: a key of ``output["result"]``, the higher the better.
        label_names: what the legend says, by label.
        count: how many pictures, 0 for none.
    """

    def __init__(self, folder: str | Path, score: str, label_names: Mapping[str, str], count: int) -> None:
        self.folder = Path(folder)
        self.score = score
        self.label_names = {int(label): name for label, name in label_names.items()}
        self.count = count
        self.cases: list[Case] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.start)
        if idist.get_rank() == 0:  # of several processes that train together one writes
            engine.add_event_handler(Events.ITERATION_COMPLETED, self.add)
            engine.add_event_handler(Events.COMPLETED, self.write)

    def start(self, engine: Engine) -> None:
        self.cases = []

    def add(self, engine: Engine) -> None:
        state: Any = engine.state
        for batch, output in zip(state.batch, state.output, strict=True):
            score = output["result"].get(self.score)
            if score is None or (len(self.cases) == self.count and all(score >= case.score for case in self.cases)):
                continue
            self.cases.append(Case(score, self.draw({**batch, **output}, score)))
            self.cases = sorted(self.cases, key=attrgetter("score"))[: self.count]

    def draw(self, data: Mapping[str, Any], score: float) -> Image.Image:
        ct = data["ct_hu"]
        truth, prediction = (with_meta(data[key].as_tensor().cpu(), ct, ct.affine) for key in ("label", "pred"))
        title = f"{title_of(ct)}: {self.score} {score:.3f}; truth in the middle, prediction below"
        return truth_and_prediction(ct, truth, prediction, title, self.label_names)

    def write(self, engine: Engine) -> None:
        for rank, case in enumerate(self.cases, start=1):
            with whole(self.folder / f"worst_{rank}.png") as unfinished:
                case.picture.save(unfinished)
        logger.info("%d pictures of the worst scans in %s", len(self.cases), self.folder)
