"""A cohort with emphysema: who has what, what is on disk, and the table of it."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest
import torch

from pulmozoo.bundle.errors import BadInput
from pulmozoo.metrics.emphysema_scores import CLE, PSE
from pulmozoo.phantom import cohort as cohort_module
from pulmozoo.phantom.cohort import write_cohort
from pulmozoo.phantom.diseases import COHORTS, disease_names
from pulmozoo.phantom.emphysema import draw_emphysema, write_emphysema_table
from pulmozoo.phantom.fields import Draws
from pulmozoo.phantom.scan_grid import ScanGrid

SPACING_MM = (12.0, 12.0, 15.0)


def test_scores_are_spread_as_in_copdgene():
    drawn = [draw_emphysema(Draws(seed)) for seed in range(1500)]
    assert {tuple(disease.name for disease in both) for both in drawn} == {("paraseptal", "centrilobular")}
    pse = np.array([PSE.score(both[0].percent / 100) for both in drawn])
    cle = np.array([CLE.score(both[1].percent / 100) for both in drawn])
    assert ((pse == 0) & (cle == 0)).mean() == pytest.approx(0.7 * 0.1 * 0.34 + 0.3, abs=0.04)
    assert ((pse > 0) & (cle > 0)).mean() == pytest.approx(0.7 * 0.9 * 0.66, abs=0.04)
    assert np.bincount(cle)[1:].tolist() == pytest.approx([1050 * s for s in (0.21, 0.22, 0.2, 0.15, 0.12)], rel=0.25)
    assert np.bincount(pse)[1:].tolist() == pytest.approx([1050 * s for s in (0.34, 0.32)], rel=0.2)


def striped_chest(seed, shape, spacing_mm, diseases, scanner):
    """In place of a chest: lung everywhere, and of each disease its percent of the columns along x, at either end."""
    whole = torch.ones(shape, dtype=torch.uint8)
    labels = {}
    for side, disease in zip((1, -1), diseases, strict=True):
        label = torch.zeros_like(whole)
        label[: round(disease.percent / 100 * shape[0])] = 1
        labels[disease.name] = label if side == 1 else label.flip(0)
    ct_hu = torch.full(shape, -900, dtype=torch.int16)
    affine = ScanGrid(shape, spacing_mm, scanner).affine()
    return {"ct_hu": ct_hu, "lobes": whole, "airways": 0 * whole, "vessels": 0 * whole, "affine": affine, **labels}


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(cohort_module, "thorax", striped_chest)
    monkeypatch.setattr(cohort_module, "draw_grid", lambda seed, spacing_mm: ((200, 2, 2), spacing_mm))


def test_each_subject_has_every_label_and_a_row(quick, tmp_path):
    path = write_cohort(tmp_path, 12, 3, SPACING_MM, disease="emphysema")
    items = [item for split in json.loads(path.read_text()).values() for item in split]
    assert {tuple(item) for item in items} == {("image", "label", "airways", "vessels", "paraseptal", "centrilobular")}
    with (tmp_path / "emphysema.csv").open() as file:
        rows = {row["subject"]: row for row in csv.DictReader(file)}
    assert len(rows) == 12
    scores = set()
    for item in items:
        row = rows[item["image"].removeprefix("images/").removesuffix(".nii.gz")]
        for key, scale, column, short in (
            ("centrilobular", CLE, "CT_Visual_Emph_Severity_P1", "cle"),
            ("paraseptal", PSE, "CT_Visual_Emph_Paraseptal_P1", "pse"),
        ):
            share = np.asarray(nib.load(tmp_path / item[key]).dataobj).mean()
            assert float(row[f"{short}_percent"]) == pytest.approx(100 * share, abs=1e-3)
            assert int(row[column]) == scale.score(share)
            scores.add((short, int(row[column])))
    assert len(scores) > 4


def test_table_by_hand(tmp_path):  # 10 voxels in each of four lobes, no middle lobe; 4 + 1 + 0 + 3 of them are ill
    for folder, label in (
        ("labels", np.repeat([0, 1, 2, 3, 4], 10)),
        ("centrilobular", np.r_[np.zeros(10), np.ones(4), np.zeros(6), np.ones(1), np.zeros(26), np.ones(3)]),
        ("paraseptal", np.zeros(50)),
    ):
        (tmp_path / folder).mkdir()
        volume = label.astype(np.uint8).reshape(50, 1, 1)
        nib.save(nib.Nifti1Image(volume, np.eye(4)), tmp_path / folder / "one.nii.gz")
    path = write_emphysema_table(tmp_path, ["one"])
    with path.open() as file:
        (row,) = csv.DictReader(file)
    assert row["CT_Visual_Emph_Severity_P1"] == "4"  # 8 of 40 are 20 %
    assert row["CT_Visual_Emph_Paraseptal_P1"] == "0"
    expected = {
        "cle_percent": "20.0",
        "left_lung_cle_percent": "25.0",
        "right_lung_cle_percent": "15.0",
        "left_upper_lobe_cle_percent": "40.0",
        "left_lower_lobe_cle_percent": "10.0",
        "right_lower_lobe_cle_percent": "30.0",
        "right_middle_lobe_cle_percent": "",
        "left_upper_lobe_pse_percent": "0.0",
    }
    assert {name: row[name] for name in expected} == expected
    assert not list(tmp_path.glob("unfinished*"))


@pytest.mark.parametrize("disease", COHORTS)
def test_every_cohort_draws_the_same_names(disease):
    assert all(
        [each.name for each in COHORTS[disease].draw(Draws(seed))] == disease_names(disease) for seed in range(9)
    )


def test_an_unknown_disease_is_named_before_anything_is_written(tmp_path):
    with pytest.raises(BadInput, match="there is no disease 'emphysem' of a cohort: choose emphysema or"):
        write_cohort(tmp_path / "new", 1, disease="emphysem")
    assert not (tmp_path / "new").exists()
