from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from PIL import Image

from pulmozoo.handlers import worst_cases
from pulmozoo.handlers.worst_cases import WorstCases

SHAPE = (1, 20, 22, 24)
NAMES = {"0": "background", "1": "left upper lobe"}
SCORES = {"a.nii.gz": 0.8, "b.nii.gz": 0.3, "c.nii.gz": None, "d.nii.gz": 0.5, "e.nii.gz": 0.9, "f.nii.gz": 0.4}


def evaluate(folder: Path, count: int) -> None:
    """Scans in pairs, each with its score; the label's affine is a little off, as rounding leaves it."""
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    truth = torch.zeros(SHAPE)
    truth[:, 5:15, 5:15, 5:15] = 1

    def step(engine: Engine, names: list[str]) -> list[dict[str, object]]:
        cts = [MetaTensor(torch.rand(SHAPE), affine=affine, meta={"filename_or_obj": name}) for name in names]
        engine.state.batch = [{"ct_hu": ct, "label": MetaTensor(truth, affine=affine * 1.02)} for ct in cts]
        return [{"pred": MetaTensor(truth.roll(3, 1)), "result": {"mean_iou": SCORES[name]}} for name in names]

    engine = Engine(step)
    WorstCases(folder, "mean_iou", NAMES, count).attach(engine)
    names = list(SCORES)
    engine.run([names[:2], names[2:4], names[4:]], max_epochs=1)


@pytest.fixture
def titles(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is drawn, in order."""
    drawn = []

    def draw(ct: MetaTensor, truth: MetaTensor, prediction: MetaTensor, title: str, names: object) -> Image.Image:
        drawn.append(title)
        assert torch.equal(truth.affine, ct.affine)
        assert names == {0: "background", 1: "left upper lobe"}
        return Image.new("RGB", (len(drawn), 1))

    monkeypatch.setattr(worst_cases, "truth_and_prediction", draw)
    return drawn


@pytest.mark.parametrize(
    ("count", "kept"), [(0, ""), (1, "b"), (3, "bfd"), (9, "bfdae")], ids=["none", "one", "some", "all"]
)
def test_the_lowest_scores_come_first(tmp_path, titles, count, kept):
    evaluate(tmp_path / "worst", count)
    pictures = [Image.open(tmp_path / "worst" / f"worst_{rank}.png") for rank in range(1, len(kept) + 1)]
    assert "".join(titles[picture.width - 1][0] for picture in pictures) == kept
    assert len(list(tmp_path.rglob("*.png"))) == len(kept)
    assert all("; truth in the middle, prediction below" in title for title in titles)
    assert titles[1:2] in ([], ["b.nii.gz: mean_iou 0.300; truth in the middle, prediction below"])


def test_a_scan_that_went_well_is_not_drawn(tmp_path, titles):
    evaluate(tmp_path, 2)
    assert [title[0] for title in titles] == ["a", "b", "d", "f"]


def test_the_picture_is_that_of_the_scan(tmp_path):
    evaluate(tmp_path, 1)
    with Image.open(tmp_path / "worst_1.png") as picture:
        assert picture.format == "PNG"
        assert picture.height > 3 * 300
    assert [path.name for path in tmp_path.iterdir()] == ["worst_1.png"]
