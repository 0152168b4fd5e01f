from itertools import pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from pulmozoo.handlers.overlay import PALETTE, fullest_slice, overlay_png, truth_and_prediction

NAMES = {1: "left lung", 2: "right lung"}
AFFINE = np.diag([3.0, 2.0, 5.0, 1.0])  # x to the right, y to the front, z up


def tensor(volume: np.ndarray, affine: np.ndarray = AFFINE, **meta: str) -> MetaTensor:
    return MetaTensor(torch.from_numpy(np.ascontiguousarray(volume))[None], affine=torch.from_numpy(affine), meta=meta)


@pytest.fixture
def scan() -> tuple[np.ndarray, np.ndarray]:
    """CT and labels of unequal axes and spacings: 120 x 100 x 150 mm, label 2 on the patient's right."""
    ct = np.random.default_rng(0).uniform(-900, 100, (40, 50, 30)).astype(np.float32)
    labels = np.zeros(ct.shape, dtype=np.uint8)
    labels[4:16, 10:40, 5:25], labels[22:37, 10:42, 6:26] = 1, 2
    return ct, labels


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.mode == "RGB"
        return np.asarray(image)


def pixels_of(pixels: np.ndarray, label: int) -> np.ndarray:
    """Rows and columns that have the full colour of a label."""
    return np.argwhere((pixels == PALETTE[label - 1]).all(axis=-1))


def drawn(tmp_path: Path, ct: MetaTensor, labels: MetaTensor, names: dict[int, str] = NAMES) -> np.ndarray:
    overlay_png(ct, labels, tmp_path / "overlay.png", names)
    return picture(tmp_path / "overlay.png")


def test_picture_has_three_panels_of_the_right_proportions(tmp_path, scan):
    pixels = drawn(tmp_path, *map(tensor, scan))
    # 400 px high: axial 480 wide (120 mm over 100 mm), coronal 320, sagittal 267; four gaps of 8
    assert pixels.shape[1] == 480 + 320 + 267 + 4 * 8
    assert 800 < pixels.shape[0] < 900


def test_labels_are_drawn_in_their_colour_below_only(tmp_path, scan):
    pixels = drawn(tmp_path, *map(tensor, scan))
    for label in (1, 2):
        found = pixels_of(pixels, label)
        assert len(found) > 300
        assert found[:, 0].min() > 400


def test_patient_right_is_on_the_left_and_the_head_is_up(tmp_path, scan):
    ct, _ = scan
    labels = np.zeros(ct.shape, dtype=np.uint8)
    labels[30:38, 30:45, 20:29] = 2  # right, front, top
    found = pixels_of(drawn(tmp_path, *map(tensor, (ct, labels))), 2)
    panels = [(8, 488), (496, 816), (824, 1091)]
    for left, right in panels:
        inside = found[(found[:, 1] >= left) & (found[:, 1] < right) & (found[:, 0] < 816)]
        assert inside[:, 1].mean() < (left + right) / 2
        assert inside[:, 0].mean() < 616  # the middle of the lower row


@pytest.mark.parametrize("codes", ["LPS", "SAR", "PIL"])
def test_axis_order_and_direction_do_not_matter(tmp_path, scan, codes):
    expected = drawn(tmp_path, *map(tensor, scan)).astype(int)
    change = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(AFFINE), nib.orientations.axcodes2ornt(codes)
    )
    affine = AFFINE @ nib.orientations.inv_ornt_aff(change, scan[0].shape)
    turned = [tensor(nib.orientations.apply_orientation(volume, change), affine) for volume in scan]
    assert np.abs(drawn(tmp_path, *turned) - expected).max() <= 1


def test_oblique_grid_is_drawn_along_its_closest_axes(tmp_path, scan):
    expected = drawn(tmp_path, *map(tensor, scan)).astype(int)
    turn = np.eye(4)
    turn[:2, :2] = [[0.96, -0.28], [0.28, 0.96]]
    turned = drawn(tmp_path, *(tensor(volume, turn @ AFFINE) for volume in scan))
    assert np.abs(turned - expected).max() <= 1


def test_empty_labels_show_the_middle_without_colour(tmp_path, scan):
    ct, labels = scan
    pixels = drawn(tmp_path, tensor(ct), tensor(np.zeros_like(labels)), {})
    assert len(np.unique(pixels)) > 50
    assert (pixels == pixels[..., :1]).all()


def test_slice_with_most_labels_is_shown(tmp_path):
    ct = np.full((20, 21, 22), -1000, dtype=np.float32)
    labels = np.zeros(ct.shape, dtype=np.uint8)
    labels[2:5, 4:7, 3:6], ct[2:5, 4:7, 3:6] = 1, 400  # the only bright voxels
    pixels = drawn(tmp_path, tensor(ct, np.eye(4)), tensor(labels, np.eye(4)), {})
    panels = np.array_split(pixels[:400], 3, axis=1)
    assert all(np.count_nonzero((panel == 255).all(axis=-1)) > 1000 for panel in panels)


def test_slice_with_more_labels_goes_before_a_larger_area():
    labels = np.zeros((4, 10, 10), dtype=np.uint8)
    labels[1] = 1
    labels[2, :4, :4], labels[2, :4, 5:], labels[2, 5:] = 1, 2, 3
    assert fullest_slice(labels, 0) == 2
    assert fullest_slice(labels != 0, 0) == 1


def test_names_title_and_unnamed_labels(tmp_path, scan):
    ct, labels = scan
    plain = drawn(tmp_path, tensor(ct), tensor(labels), {1: "one", 2: "two"})
    titled = drawn(tmp_path, tensor(ct, filename_or_obj="a/scan.nii.gz"), tensor(labels), {1: "one", 2: "two"})
    assert titled.shape[0] > plain.shape[0]
    unnamed = drawn(tmp_path, tensor(ct), tensor(labels * 4), {})
    assert len(pixels_of(unnamed[-24:], 4)) > 100
    assert len(pixels_of(unnamed[-24:], 8)) > 100
    many = drawn(tmp_path, tensor(ct), tensor(labels), {label: "a rather long name" for label in range(1, 19)})
    assert many.shape[0] > plain.shape[0]


def test_missing_folder_is_made_and_float_labels_are_fine(tmp_path, scan):
    ct, labels = scan
    overlay_png(tensor(ct), tensor(labels), tmp_path / "integer.png", NAMES)
    overlay_png(tensor(ct), tensor(labels.astype(np.float32)), tmp_path / "new" / "float.png", NAMES)
    assert np.array_equal(picture(tmp_path / "integer.png"), picture(tmp_path / "new" / "float.png"))


def test_different_grids_are_named(tmp_path, scan):
    ct, labels = scan
    with pytest.raises(ValueError, match=r"one shape \(1, X, Y, Z\), got \(1, 40, 50, 30\) and \(1, 39, 50, 30\)"):
        overlay_png(tensor(ct), tensor(labels[1:]), tmp_path / "x.png", NAMES)
    with pytest.raises(ValueError, match="affines differ"):
        overlay_png(tensor(ct), tensor(labels, np.eye(4)), tmp_path / "x.png", NAMES)


def test_truth_is_above_the_prediction_where_they_differ_most(tmp_path, scan):
    """Truth and prediction agree but for a block of label 1, which only the truth has."""
    ct, prediction = scan
    truth = prediction.copy()
    truth[25:35, 15:20, 1:4] = 1
    sheet = truth_and_prediction(*map(tensor, (ct, truth, prediction)), "a scan", NAMES)
    assert sheet.size == (480 + 320 + 267 + 4 * 8, 24 + 3 * 408 + 24)
    pixels = np.asarray(sheet)
    ends = (24, 432, 840, 1248)
    above, middle, below = (pixels[top:bottom] for top, bottom in pairwise(ends))
    assert len(pixels_of(above, 1)) == 0
    axial = slice(0, 490)  # at z 1 to 3 the prediction is empty
    assert len(pixels_of(middle[:, axial], 1)) > 300
    assert len(pixels_of(below[:, axial], 1)) == len(pixels_of(below[:, axial], 2)) == 0
    assert len(pixels_of(middle, 2)) > 300
    assert len(pixels_of(below, 2)) > 300
