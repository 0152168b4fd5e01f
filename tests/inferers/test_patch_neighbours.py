import numpy as np
import pytest
import torch

from pulmozoo.inferers.patch_neighbours import PatchNeighboursInferer, draw_pixels, patch_features

WINDOW_HU = (-1000.0, 0.0)  # so that 0.05 is -950 HU, in the third of the eight bins
FEATURES = 9


def slice_with_rim(dark: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """A lung of 40 x 30 pixels with a dark lesion on its rim and an equally dark hole, which is none, in the middle."""
    image = np.zeros((48, 40), dtype=np.float32)
    image[4:44, 5:35] = 0.18
    lesion = np.zeros(image.shape, dtype=bool)
    lesion[10:30, 5:8] = True
    image[lesion] = dark
    image[20:28, 18:24] = dark
    return image, lesion


def scan(image: np.ndarray, lesion: np.ndarray) -> dict[str, object]:
    return {"image": torch.from_numpy(image)[None, None], "label": torch.from_numpy(lesion)[None, None], "targets": [0]}


def test_features_by_hand():
    image, _ = slice_with_rim()
    features, lung = patch_features(image, WINDOW_HU)
    assert lung.sum() == 40 * 30
    assert features.shape == (1200, FEATURES)
    assert np.allclose(features[:, :-1].sum(axis=1), 1)
    placed = np.zeros((*image.shape, features.shape[1]))
    placed[lung] = features
    assert placed[40, 20, -1] == pytest.approx(4 / 15)  # 4 pixels from the nearest that is not lung
    assert placed[24, 21, 2] == pytest.approx(6 * 7 / 49)  # the hole is 6 wide and fills 7 rows of the window
    assert placed[20, 5, 2] == pytest.approx(3 / 4)  # 3 of 4 columns of the window that lie in the lung are lesion


def test_as_many_pixels_of_each_kind():
    features, classes = draw_pixels([scan(*slice_with_rim())], WINDOW_HU, pixels=20)
    assert features.shape == (40, FEATURES)
    assert classes.tolist() == [False] * 20 + [True] * 20


def test_dark_at_the_pleura_is_told_from_dark_in_the_middle():
    image, lesion = slice_with_rim()
    inferer = PatchNeighboursInferer([scan(*slice_with_rim(0.06))], WINDOW_HU, neighbours=3, pixels=200)
    stacks = torch.from_numpy(image)[None, None, None].repeat(2, 1, 8, 1, 1)
    stacks[1, 0, 4] = 0  # nothing but what lies around the lungs
    logits = inferer(stacks, torch.nn.Identity())
    assert logits.shape == (2, 1, 1, 48, 40)
    found = logits[0, 0, 0].sigmoid().numpy() > 0.5
    assert 2 * (found & lesion).sum() / (found.sum() + lesion.sum()) > 0.9
    assert not found[22:26, 20:22].any()
    assert logits[1].max() < -5
