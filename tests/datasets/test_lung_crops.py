import pytest
import torch

from pulmozoo.datasets.lung_crops import slice_crops, volume_crops
from pulmozoo.transforms.lung_box import lung_box


@pytest.fixture
def lungs() -> torch.Tensor:
    """Right lung at rows 40 to 79 and columns 45 to 64, left lung at rows 35 to 84 and columns 100 to 129."""
    lungs = torch.zeros(120, 150, dtype=torch.uint8)
    lungs[40:80, 45:65], lungs[35:85, 100:130] = 2, 1
    return lungs


@pytest.fixture
def image() -> torch.Tensor:
    return torch.arange(120.0 * 150).reshape(120, 150)


def test_box_is_wider_by_the_margin_where_the_slice_goes_on(lungs):
    assert lung_box(lungs == 2) == (slice(8, 112), slice(13, 97))
    assert lung_box(lungs == 1) == (slice(3, 117), slice(68, 150))  # the slice ends 20 columns after the lung
    assert lung_box(lungs == 2, margin=0) == (slice(40, 80), slice(45, 65))


def test_crops_of_both_lungs(image, lungs):
    label = torch.zeros_like(lungs)
    label[50, 50:60], label[60, 105:110] = 3, 6
    left, right = slice_crops(image, label, lungs, slice_index=7)
    assert (left.side, left.slice_index, right.side) == (1, 7, 2)
    assert torch.equal(left.image, image[3:117, 68:150])  # not masked
    assert torch.equal(right.image, image[8:112, 13:97])
    for crop, number, pixels in ((left, 6, 5), (right, 3, 10)):
        assert crop.image.shape == crop.label.shape == crop.lung.shape
        assert int((crop.label == number).sum()) == int((crop.label > 0).sum()) == pixels
    assert int(left.lung.sum()) == 50 * 30
    assert torch.equal(right.lung, lungs[8:112, 13:97] == 2)


def test_crops_without_annotation_are_dropped(image, lungs):
    label = torch.zeros_like(lungs)
    assert list(slice_crops(image, label, lungs)) == []
    label[50, 63:65] = 3  # columns up to 65 are within 40 of the left lung
    assert [crop.side for crop in slice_crops(image, label, lungs, margin=40)] == [2]
    label[50, 66] = 4  # beside the right lung, as consolidation may be that the mask lost: it is in no other lung
    right = next(iter(slice_crops(image, label, lungs)))
    assert sorted(right.label[right.label > 0].tolist()) == [3, 3, 4]


def test_volume_is_cropped_slice_by_slice(image, lungs):
    volume_lungs = torch.stack([torch.zeros_like(lungs), lungs, lungs * (lungs == 1)])
    label = (volume_lungs > 0) * 2
    crops = list(volume_crops(torch.stack([image] * 3), label, volume_lungs))
    assert [(crop.slice_index, crop.side) for crop in crops] == [(1, 1), (1, 2), (2, 1)]


def test_shapes_must_match(image, lungs):
    with pytest.raises(ValueError, match=r"one shape \(H, W\), got \[\(120, 150\), \(120, 149\), \(120, 150\)\]"):
        list(slice_crops(image, lungs[:, 1:], lungs))
