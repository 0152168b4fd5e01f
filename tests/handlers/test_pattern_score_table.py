import csv

import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from pulmozoo.handlers.pattern_score_table import PatternScoreTable

NAMES = {"0": "background", "1": "healthy", "2": "ground glass"}
FIRST, SECOND = torch.tensor([[3, 1], [0, 0]]), torch.tensor([[0, 4], [1, 1]])


def run(path, confusions):
    table = PatternScoreTable(path, NAMES)

    def step(engine, index):
        image = MetaTensor(torch.zeros(1), meta={"filename_or_obj": f"/data/{index}.nii.gz"})
        engine.state.batch, result = [{"image": image}], [{"confusion": confusions[index]}]
        return result

    evaluator = Engine(step)
    table.attach(evaluator)
    evaluator.run(range(len(confusions)))
    return table


def test_pixels_of_all_scans_are_pooled(tmp_path):
    """3 of 8 and 1 of 2; the mean over scans would be (3/4 + 1/4) / 2."""
    table = run(tmp_path / "scores.csv", [FIRST, SECOND])
    assert table.mean()["balanced_accuracy"] == pytest.approx((3 / 8 + 1 / 2) / 2)
    rows = list(csv.DictReader((tmp_path / "scores.csv").open()))
    assert [row["scan"] for row in rows] == ["0.nii.gz", "1.nii.gz", "mean"]
    assert float(rows[0]["healthy_recall"]) == 0.75
    assert rows[0]["ground_glass_recall"] == ""  # none was annotated
    assert float(rows[2]["healthy_pixels"]) == 8
    assert (
        tmp_path / "scores_confusion.csv"
    ).read_text() == "truth,healthy,ground_glass\nhealthy,3,5\nground_glass,1,1\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores.csv", "scores_confusion.csv"]


def test_a_second_evaluation_begins_anew(tmp_path):
    table = run(tmp_path / "scores.csv", [FIRST])
    table.start(Engine(lambda engine, index: None))
    assert table.mean() == {}
