import json

import torch
from ignite.engine import Engine

from pulmozoo.handlers.film_search import FilmSearch


def film(peak: float, *, has_mask: bool) -> dict[str, torch.Tensor]:
    """An 8 x 8 film whose upper half is ``peak``, and whose lower half is 0.45; the mask, if any, is the upper half."""
    probabilities = torch.full((2, 8, 8), 0.45)
    probabilities[:, :4] = peak
    label = torch.zeros(1, 8, 8)
    label[:, :4] = float(has_mask)
    return {"pred": probabilities, "label": label}


def test_the_search_writes_the_threshold_that_fits_all_films(tmp_path):
    films = [film(0.65, has_mask=True), film(0.58, has_mask=False)]
    engine = Engine(lambda engine, batch: [batch])
    FilmSearch(tmp_path / "new" / "postprocessing.json").attach(engine)
    engine.run(films, max_epochs=1)
    engine.run(films, max_epochs=2)  # a second run starts anew
    found = json.loads((tmp_path / "new" / "postprocessing.json").read_text())
    assert found == {"threshold": 0.6, "min_area_px": 0, "dice": 1.0}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["postprocessing.json"]
