import csv
import json
from collections import Counter
from pathlib import Path

import pytest
import torch

from pulmozoo.bundle.errors import BadInput
from pulmozoo.datasets.emphysema_list import balanced_sampler, emphysema_entries, score_weights

SYNTHETIC = {
    "image": "images/p.nii.gz",
    "label": "labels/p.nii.gz",
    "centrilobular": "centrilobular/p.nii.gz",
    "paraseptal": "paraseptal/p.nii.gz",
}


def write_list(folder: Path, **splits: list[dict]) -> Path:
    (folder / "datalist.json").write_text(json.dumps({"name": "cohort", **splits}))
    return folder


def test_a_synthetic_subject(tmp_path):
    """Its label is lobes; its scores are in the table beside the datalist."""
    write_list(tmp_path, training=[SYNTHETIC])
    with (tmp_path / "emphysema.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerows([["subject", "CT_Visual_Emph_Severity_P1", "CT_Visual_Emph_Paraseptal_P1"], ["p", 4, 1]])
    assert emphysema_entries(tmp_path, "training") == [
        {
            "image": f"{tmp_path}/images/p.nii.gz",
            "lobes": f"{tmp_path}/labels/p.nii.gz",
            "centrilobular": f"{tmp_path}/centrilobular/p.nii.gz",
            "paraseptal": f"{tmp_path}/paraseptal/p.nii.gz",
            "cle_score": 4,
            "pse_score": 1,
        }
    ]


def test_a_scored_subject_and_a_painted_one(tmp_path):
    scored = {"image": "/ct/a.nii.gz", "lung_mask": "/masks/a.nii.gz", "cle_score": 2, "pse_score": 0}
    painted = {"image": "b.nii.gz", "label": "b_label.nii.gz"}
    write_list(tmp_path, training=[scored], test=[painted])
    assert emphysema_entries(tmp_path, "training") == [scored]
    expected = {"image": f"{tmp_path}/b.nii.gz", "label": f"{tmp_path}/b_label.nii.gz"}
    assert emphysema_entries(tmp_path, "test") == [expected]
    assert emphysema_entries(tmp_path, "all") == [scored, expected]


def test_without_a_folder_there_are_no_entries():
    assert emphysema_entries("", "training") == []


def test_no_datalist_and_no_such_split(tmp_path):
    with pytest.raises(BadInput, match=r"datalist.json does not exist: expected a MONAI datalist"):
        emphysema_entries(tmp_path, "training")
    write_list(tmp_path, training=[SYNTHETIC])
    with pytest.raises(BadInput, match=r"no split 'tset': choose one of training, all"):
        emphysema_entries(tmp_path, "tset")


def test_rare_scores_are_drawn_as_often_as_frequent_ones():
    entries = [{"cle_score": 0}] * 16 + [{"cle_score": 5}] * 4
    torch.manual_seed(0)
    drawn = Counter(entries[index]["cle_score"] for _ in range(100) for index in balanced_sampler(entries))
    assert sum(drawn.values()) == 100 * len(entries)
    assert 0.45 < drawn[5] / drawn.total() < 0.55


def test_without_scores_each_scan_is_drawn_once():
    assert sorted(balanced_sampler([{"image": name} for name in "abc"])) == [0, 1, 2]


def test_weights_of_scores_by_hand():
    """Inverse frequencies 1/8, 1/4 and 1/1 (the score that is missing) sum to 11/8, so shares are 1/11, 2/11, 8/11."""
    entries = [{"pse_score": 0}] * 8 + [{"pse_score": 1}] * 4
    assert score_weights(entries, "pse_score", 3) == pytest.approx([0.2, 0.2, 8 / 11])


def test_without_entries_every_score_has_the_weight_1():
    assert score_weights([], "pse_score", 3) == [1.0, 1.0, 1.0]
