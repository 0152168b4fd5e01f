import csv
import json

import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from pulmozoo.handlers import emphysema_score_table as module
from pulmozoo.handlers.emphysema_score_table import EmphysemaScoreTable

TRUE_CLE, FOUND_CLE = [0, 2, 2, 5], [0, 2, 3, 5]
TRUE_PSE, FOUND_PSE = [0, 0, 1, 2], [0, 0, 0, 0]


def evaluate(table: EmphysemaScoreTable, **scores: list[int]) -> None:
    """An evaluator that finds these scores, a scan an iteration."""

    def step(engine: Engine, index: int) -> list[dict]:
        image = MetaTensor(torch.zeros(1), meta={"filename_or_obj": f"/scans/{index}.nii.gz"})
        engine.state.batch = [{"image": image}]
        return [{"result": {**{key: of[index] for key, of in scores.items()}, "cle_grade": "mild"}}]

    evaluator = Engine(step)
    table.attach(evaluator)
    evaluator.run(range(len(TRUE_CLE)))


@pytest.fixture
def table(tmp_path) -> EmphysemaScoreTable:
    made = EmphysemaScoreTable(tmp_path / "scores.csv", agreement_path=tmp_path / "agreement.json")
    evaluate(made, cle_score=FOUND_CLE, cle_truth=TRUE_CLE, pse_score=FOUND_PSE, pse_truth=TRUE_PSE)
    return made


def test_agreement_by_hand(table):
    """CLE: weighted disagreement 1 of 4 scans by 1 step against 38 steps in the 16 pairs: 1 - (1/4) / (38/16).
    PSE: a table that always says 0 agrees as much as chance."""
    mean = table.mean()
    steps = sum(abs(found - true) for found in FOUND_CLE for true in TRUE_CLE) / 16
    assert (mean["cle_accuracy"], mean["pse_accuracy"]) == (0.75, 0.5)
    assert mean["cle_kappa"] == pytest.approx(1 - 0.25 / steps)
    assert mean["pse_kappa"] == pytest.approx(0)
    assert mean["kappa"] == pytest.approx(mean["cle_kappa"] / 2)
    assert mean["cle_score"] == 2.5
    assert mean["cle_grade"] is None


def test_files(table, tmp_path):
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["scan"] for row in rows] == ["0.nii.gz", "1.nii.gz", "2.nii.gz", "3.nii.gz", "mean"]
    assert rows[2]["cle_grade"] == "mild"
    agreement = json.loads((tmp_path / "agreement.json").read_text())
    assert agreement["cle"]["accuracy"] == 0.75
    assert agreement["pse"]["confusion"][0] == [2, 1, 1]
    pictures = ["agreement_cle.png", "agreement_pse.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["agreement.json", *pictures, "scores.csv"]


def test_the_confusion_that_is_drawn(tmp_path, monkeypatch):
    drawn = {}

    def draw_confusion(names, shares, path):
        drawn[path.stem] = names, shares

    monkeypatch.setattr(module, "draw_confusion", draw_confusion)
    table = EmphysemaScoreTable(tmp_path / "scores.csv", agreement_path=tmp_path / "agreement.json")
    evaluate(table, cle_score=FOUND_CLE, cle_truth=TRUE_CLE, pse_score=FOUND_PSE, pse_truth=TRUE_PSE)
    names, shares = drawn["agreement_cle"]
    assert names[2] == "mild"
    assert shares[2].tolist() == [0, 0, 0.5, 0.5, 0, 0]  # of two mild ones one was called moderate
    assert drawn["agreement_pse"][1].tolist() == [[1, 0, 0]] * 3


def test_one_score_is_all_there_is(tmp_path):
    table = EmphysemaScoreTable(tmp_path / "scores.csv")
    evaluate(table, cle_score=[1] * 4, cle_truth=[1] * 4, pse_score=FOUND_PSE, pse_truth=TRUE_PSE)
    assert table.mean()["cle_kappa"] is None
    assert table.mean()["kappa"] == pytest.approx(0)


def test_without_a_scan(tmp_path):
    table = EmphysemaScoreTable(tmp_path / "scores.csv")
    assert table.mean() == {"kappa": None}
