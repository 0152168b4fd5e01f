from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from PIL import Image

from pulmozoo.handlers.lesion_writer import largest_slices_png, slices_to_show


def test_slices_with_the_largest_areas_apart_from_each_other():
    areas = np.array([0, 9, 8, 0, 5, 0, 0, 7, 0, 1])
    assert slices_to_show(areas, areas > 0, slice_mm=5.0) == [7, 4, 1]  # 2 is too near to 1
    assert slices_to_show(areas, areas > 0, slice_mm=2.0) == [9, 1]


def test_without_a_lesion_the_middle_of_the_lungs():
    lung = np.zeros(20, dtype=bool)
    lung[4:15] = True
    assert slices_to_show(np.zeros(20), lung, slice_mm=5.0) == [9]


def test_the_picture_shows_the_lesion_where_it_is(tmp_path: Path) -> None:
    """Axes L, P, S; the lesion lies at the patient's left, so on the right of the picture's lower row."""
    ct = torch.full((1, 40, 40, 10), -850, dtype=torch.int16)
    labels = torch.zeros_like(ct, dtype=torch.uint8)
    labels[0, 30:36, 10:14, 5] = 1
    affine = torch.diag(torch.tensor([-5.0, -5.0, 5.0, 1.0], dtype=torch.float64))
    volumes = [MetaTensor(volume, affine=affine) for volume in (ct, labels, torch.ones_like(labels))]
    largest_slices_png(*volumes, tmp_path / "overlay.png", {1: "paraseptal emphysema"})
    picture = np.asarray(Image.open(tmp_path / "overlay.png").convert("RGB")).astype(int)
    orange = (picture[..., 0] == 230) & (picture[..., 1] == 159) & (picture[..., 2] == 0)
    legend_top = picture.shape[0] - 24
    rows, columns = np.nonzero(orange[:legend_top])
    assert rows.min() > legend_top / 2
    assert 8 + 400 * 30 / 40 - 4 <= columns.min() <= columns.max() <= 8 + 400 * 36 / 40 + 4
