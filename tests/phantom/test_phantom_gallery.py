"""The gallery: a row a chest, of one scale, with the labels in colour."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from pulmozoo.bundle.errors import BadInput
from pulmozoo.cli import bundle_folder
from pulmozoo.handlers.overlay import PALETTE
from pulmozoo.phantom import gallery, thorax
from pulmozoo.phantom.gallery import (
    COLUMNS,
    MM_PER_PX,
    PANEL_PX,
    PATTERNS,
    Subject,
    gallery_row,
    ill_subject,
    legend_of,
    write_gallery,
)
from toy_chest import toy_chest


@pytest.fixture(autouse=True)
def _toy_phantoms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "thorax", toy_chest)
    monkeypatch.setattr(gallery, "GRID", ((62, 54, 46), (5.6, 5.2, 7.0)))


def box_subject() -> Subject:
    """A bright box 100 mm wide, 60 mm deep and 40 mm high, label 2, in the right upper front of a dark block."""
    shape, affine = (40, 30, 20), np.diag([5.0, 5.0, 10.0, 1.0])  # 200 x 150 x 200 mm, x to the right, y front, z up
    ct, labels = torch.full((1, *shape), -1000, dtype=torch.int16), torch.zeros(1, *shape, dtype=torch.uint8)
    box = (0, slice(18, 38), slice(16, 28), slice(14, 18))
    ct[box], labels[box] = 500, 2
    return Subject("box", MetaTensor(ct, affine=affine), MetaTensor(labels, affine=affine))


def test_panels_have_one_size_and_one_scale():
    row = gallery_row(box_subject())
    assert [panel.size for panel in row] == [PANEL_PX] * len(COLUMNS)
    extents = {"axial": (100, 60), "coronal": (100, 40), "sagittal": (60, 40)}
    for (plane, _, with_labels), panel in list(zip(COLUMNS, row, strict=True))[1:]:
        pixels = np.asarray(panel)
        bright = (pixels == PALETTE[1]).all(axis=-1) if with_labels else (pixels == 255).all(axis=-1)
        rows, columns = np.nonzero(bright)
        width, height = extents[plane]
        assert np.ptp(columns) * MM_PER_PX == pytest.approx(width, abs=10)
        assert np.ptp(rows) * MM_PER_PX == pytest.approx(height, abs=12)
        # Patient right and front are on the left, head and front are up.
        assert columns.mean() < PANEL_PX[0] / 2
        assert rows.mean() < PANEL_PX[1] / 2


def test_page_has_a_row_for_each_chest_and_each_scan(tmp_path, caplog):
    (tmp_path / "scans").mkdir()
    phantom = toy_chest(7, *gallery.GRID)
    nib.save(nib.Nifti1Image(phantom["ct_hu"].numpy(), phantom["affine"].numpy()), tmp_path / "scans" / "ct.nii.gz")
    nib.save(nib.Nifti1Image(np.ones((9, 9, 9), dtype=np.uint8), np.eye(4)), tmp_path / "scans" / "mask.nii.gz")
    with caplog.at_level("INFO"):
        page = write_gallery(tmp_path / "new" / "page.png", seed=7, count=1, scans=tmp_path / "scans")
    assert caplog.messages[:2] == ["phantom 1 of 1 is drawn", "ct is drawn"]
    assert caplog.messages[2].startswith("mask is left out: ")
    assert [file.name for file in page.parent.iterdir()] == ["page.png"]
    with Image.open(page) as image:
        pixels = np.asarray(image)
    assert pixels.shape[1] > len(COLUMNS) * PANEL_PX[0]
    assert 2 * PANEL_PX[1] < pixels.shape[0] < 3 * PANEL_PX[1]
    first, second = pixels[: PANEL_PX[1]], pixels[PANEL_PX[1] + 16 : 2 * PANEL_PX[1]]
    for part, labels in ((first, (1, 2, 3, 4)), (second, (8, 9))):
        assert all((part == PALETTE[label - 1]).all(axis=-1).sum() > 50 for label in labels)
    assert not (first == PALETTE[7]).all(axis=-1).any()


@pytest.mark.parametrize(("disease", "classes"), [("emphysema", 2), ("ild", 6)])
def test_ill_chests_show_their_disease_and_its_names(disease, classes, monkeypatch):
    monkeypatch.setattr(gallery, "thorax", thorax)
    monkeypatch.setattr(gallery, "GRID", ((44, 36, 40), (8.0, 7.5, 7.0)))
    subject = next(chest for chest in map(ill_subject, range(9), [disease] * 9) if chest.labels.max() == classes)
    assert subject.name.startswith(f"{disease}, seed ")
    assert set(subject.labels.unique().tolist()) <= set(range(classes + 1))
    names = legend_of(disease)
    assert sorted(names)[:classes] == list(range(1, classes + 1))
    assert names[1] == {"emphysema": "paraseptal", "ild": "healthy"}[disease]


def test_patterns_are_named_as_in_their_bundle():
    names = json.loads((bundle_folder("ild") / "configs" / "inference.json").read_text(encoding="utf-8"))["label_names"]
    assert list(names.values()) == ["background", *PATTERNS]


def test_bad_input_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"page\.jpg does not end in \.png"):
        write_gallery(tmp_path / "page.jpg")
    with pytest.raises(BadInput, match="count is 0: expected at least 1 phantom"):
        write_gallery(tmp_path / "page.png", count=0)
    with pytest.raises(BadInput, match="does not exist"):
        write_gallery(tmp_path / "page.png", scans=tmp_path / "nowhere")
    assert not list(tmp_path.iterdir())
