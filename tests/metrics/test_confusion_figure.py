import numpy as np
import pytest
from PIL import Image

from pulmozoo.bundle.errors import BadInput
from pulmozoo.metrics import confusion_figure as module
from pulmozoo.metrics.confusion_figure import draw_confusion, row_shares


def test_shares_by_hand():
    assert row_shares(np.array([[3, 1], [0, 0]])).tolist() == [[0.75, 0.25], [0, 0]]


def test_what_all_are_called_is_a_dark_column(tmp_path):
    draw_confusion(["absent", "mild"], np.array([[1.0, 0], [1, 0]]), tmp_path / "confusion.png")
    picture = np.asarray(Image.open(tmp_path / "confusion.png").convert("L")).astype(float)
    assert picture.shape == (600, 600)
    dark = picture < 100  # the square of 1 is dark blue, text is little
    columns = np.flatnonzero(dark.mean(axis=0) > 0.5)
    assert len(columns) > 150  # both true classes were called absent, the left column of squares
    assert np.median(columns) < 300


def test_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "has_matplotlib", False)
    with pytest.raises(BadInput, match="the figures need the eval extra"):
        draw_confusion(["a"], np.ones((1, 1)), tmp_path / "confusion.png")
