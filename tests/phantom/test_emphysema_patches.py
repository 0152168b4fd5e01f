"""Patches of emphysema: each goes to the class that its labels say, and the table holds what was measured."""

import csv

import numpy as np
import pytest
import torch

from pulmozoo.bundle.errors import BadInput
from pulmozoo.phantom import emphysema_patches
from pulmozoo.phantom.emphysema_patches import PUBLISHED, patches_by_class, write_patches
from pulmozoo.phantom.realism import PATCH_PX

CASES = {  # in the order of the patches along x: share of centrilobular, of paraseptal, of vessels, of chest wall
    "normal": (0, 0, 0, 0),
    "centrilobular 1": (0.1, 0, 0, 0),
    "centrilobular 2": (0.4, 0, 0, 0),
    "centrilobular 3": (0.7, 0, 0, 0),
    "panlobular": (1, 0, 0, 0),
    "paraseptal": (0, 0.5, 0, 0.2),
    "a thick vessel": (0.4, 0, 0.1, 0),
    "between two grades": (0.915, 0, 0, 0),
    "mostly wall": (0, 0.4, 0, 0.5),
}


def chest_of_cases():
    """One patch a case side by side; HU are the case's number plus -900 in its left half, -980 in its right half."""
    shape = (PATCH_PX * len(CASES), PATCH_PX, 1)
    chest = {name: np.zeros(shape, dtype=np.uint8) for name in ("centrilobular", "paraseptal", "vessels")}
    chest |= {"lobes": np.ones(shape, dtype=np.uint8), "ct_hu": np.zeros(shape, dtype=np.int16)}
    for number, shares in enumerate(CASES.values()):
        part = slice(number * PATCH_PX, (number + 1) * PATCH_PX)
        for name, share in zip(("centrilobular", "paraseptal", "vessels"), shares, strict=False):
            chest[name][part, : round(share * PATCH_PX)] = 1
        chest["lobes"][part, PATCH_PX - round(shares[3] * PATCH_PX) :] = 0
        chest["ct_hu"][part] = number - 900
        chest["ct_hu"][part, PATCH_PX // 2 :] = number - 980
    return chest


def test_each_patch_goes_to_its_class():
    found = patches_by_class(chest_of_cases())
    assert list(found) == list(PUBLISHED)
    for number, name in enumerate(PUBLISHED):
        assert found[name].shape == (1, PATCH_PX, PATCH_PX)
        assert found[name].max() == number - 900


def test_table_holds_published_and_measured(tmp_path, monkeypatch):
    arrays = {name: torch.from_numpy(volume) for name, volume in chest_of_cases().items()}
    monkeypatch.setattr(emphysema_patches, "thorax", lambda *grid, diseases, scanner: arrays)
    with write_patches(tmp_path / "new" / "table.csv", count=2).open() as file:
        rows = {(row["class"], row["measure"]): row for row in csv.DictReader(file)}
    row = rows["centrilobular 1", "mean_hu"]
    assert (row["patches"], float(row["published"])) == ("2", -867)
    assert float(row["phantoms"]) == pytest.approx(1 - (15 * 900 + 16 * 980) / 31, abs=0.01)
    assert float(rows["centrilobular 1", "laa950_percent"]["phantoms"]) == pytest.approx(100 * 16 / 31, abs=0.01)


def test_bad_input_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"table\.txt does not end in \.csv"):
        write_patches(tmp_path / "table.txt")
    with pytest.raises(BadInput, match="count is 0: expected at least 1 phantom"):
        write_patches(tmp_path / "table.csv", count=0)
    assert not list(tmp_path.iterdir())
