import numpy as np
import torch
from monai.data import MetaTensor
from PIL import Image

from pulmozoo.handlers.overlay import PALETTE, coloured
from pulmozoo.handlers.pattern_writer import pattern_overlay_png

COLOURS = [(10, 20, 250), (250, 10, 20)]
NAMES = {1: "healthy", 2: "ground glass"}


def overlay(tmp_path, labels):
    affine = torch.diag(torch.tensor([-2.0, -2.0, 8.0, 1.0], dtype=torch.float64))
    ct_hu = MetaTensor(torch.full(labels.shape, -1350, dtype=torch.int16), affine=affine)
    pattern_overlay_png(ct_hu, MetaTensor(labels, affine=affine), tmp_path / "overlay.png", NAMES, COLOURS)
    return np.asarray(Image.open(tmp_path / "overlay.png"))


def count(picture, colour):
    return int((picture == np.array(colour)).all(axis=-1).sum())


def test_three_slices_of_the_lungs_in_the_colours_given(tmp_path):
    """Label 2 lies in the middle third of the lungs only: in one of three panels, and in the legend."""
    labels = torch.zeros(1, 40, 30, 24, dtype=torch.uint8)
    labels[0, 5:35, 5:25, 6:21] = 1
    all_healthy = overlay(tmp_path, labels)
    labels[0, 10:20, 10:20, 11:16] = 2
    picture = overlay(tmp_path, labels)
    assert picture.shape == all_healthy.shape
    assert count(picture, COLOURS[1]) > count(all_healthy, COLOURS[1]) > 0
    third = picture.shape[1] // 3
    legend = picture.shape[0] - 24
    seen = [count(picture[:legend, start : start + third], COLOURS[1]) > 0 for start in (0, third, 2 * third)]
    assert seen == [False, True, False]


def test_a_palette_of_ones_own_is_used():
    grey, labels = np.zeros((4, 4, 3), dtype=np.uint8), np.eye(4, dtype=int)
    assert tuple(coloured(grey, labels)[0, 0]) == PALETTE[0]
    assert tuple(coloured(grey, labels, COLOURS)[0, 0]) == COLOURS[0]
