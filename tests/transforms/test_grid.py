from math import cos, radians, sin
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Orientationd
from torch.nn import functional as F

from pulmozoo.transforms.grid import (
    LabelsOnScand,
    ToWorkingGridd,
    labels_on_grid,
    resample,
    resample_labels,
    resampling_weights,
    working_shape,
)

SHAPE, SPACING_MM = (26, 30, 22), (3.0, 2.5, 4.0)  # unequal, along the axes of the scan
DIRECTIONS = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
BLOBS = {1: ((20.0, 10.0, -12.0), 17.0), 2: ((-18.0, -6.0, 16.0), 15.0)}  # centre (R, A, S) and radius in mm


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        ({"shape": [256, 255, 254]}, (256, 255, 254)),
        ({"spacing_mm": 4.0}, (51, 26, 11)),  # extents of 200, 100 and 40 mm
        ({"in_plane": 51}, (101, 51, 21)),  # 2 mm, from the longer in-plane side
        ({"spacing_mm": 1000.0}, (2, 2, 2)),
    ],
)
def test_working_shape_by_hand(grid, expected):
    assert working_shape((41, 51, 81), (5.0, 2.0, 0.5), grid) == expected


def test_longer_in_plane_side_may_be_the_last():
    assert working_shape((41, 81, 51), (5.0, 0.5, 2.0), {"in_plane": 51}) == (101, 21, 51)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(("old", "new"), [(7, 7), (7, 19), (19, 7), (5, 1), (1, 4), (2, 2)])
def test_resampling_weights_sum_to_one(old, new, antialias):
    weights = resampling_weights(old, new, antialias=antialias)
    assert weights.shape == (new, old)
    assert (weights >= 0).all()
    assert torch.allclose(weights.sum(dim=1), torch.ones(new))
    if old == new:
        assert torch.equal(weights, torch.eye(old))


def test_resampling_weights_by_hand():
    assert resampling_weights(3, 5, antialias=True).tolist() == [
        [1, 0, 0],
        [0.5, 0.5, 0],
        [0, 1, 0],
        [0, 0.5, 0.5],
        [0, 0, 1],
    ]
    assert resampling_weights(5, 3, antialias=False).tolist() == [[1, 0, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 1]]
    # A step of 2 voxels: a tent of 1/2, 1, 1/2, cut at the ends.
    rows = [[2 / 3, 1 / 3, 0, 0, 0], [0, 1 / 4, 1 / 2, 1 / 4, 0], [0, 0, 0, 1 / 3, 2 / 3]]
    assert torch.allclose(resampling_weights(5, 3, antialias=True), torch.tensor(rows))


def test_linear_resampling_is_exact_on_a_ramp():
    z, y, x = torch.meshgrid(torch.arange(5.0), torch.arange(7.0), torch.arange(3.0), indexing="ij")
    volume = torch.stack([z + 10 * y + 100 * x, -z])
    z, y, x = torch.meshgrid(torch.linspace(0, 4, 9), torch.linspace(0, 6, 4), torch.linspace(0, 2, 5), indexing="ij")
    assert torch.allclose(
        resample(volume, (9, 4, 5), antialias=False), torch.stack([z + 10 * y + 100 * x, -z]), atol=1e-4
    )
    assert resample(volume, (5, 7, 3), antialias=True).equal(volume)


def test_averaging_keeps_the_mean_where_plain_linear_would_miss_a_line():
    volume = torch.zeros(1, 9, 4, 5)
    volume[:, 1] = 1  # between the voxels of a grid of half the size
    assert not resample(volume, (5, 4, 5), antialias=False).any()
    assert resample(volume, (5, 4, 5), antialias=True)[0, :, 0, 0].tolist() == pytest.approx([1 / 3, 1 / 4, 0, 0, 0])


@pytest.mark.parametrize("shape", [(17, 15, 23), (5, 7, 9), (8, 3, 9), (1, 20, 4)], ids=str)
def test_labels_by_slabs_are_those_of_the_whole_volume(shape):
    probabilities = torch.rand(6, 5, 7, 9, generator=torch.Generator().manual_seed(0)).softmax(dim=0)
    labels = labels_on_grid(probabilities, shape)
    whole = F.interpolate(probabilities[None], (max(2, shape[0]), *shape[1:]), mode="trilinear", align_corners=True)[0]
    if shape[0] == 1:  # a single slice is the middle one
        whole = F.interpolate(probabilities[None, :, 2:3], shape, mode="trilinear", align_corners=True)[0]
    assert labels.dtype == torch.uint8
    assert torch.equal(labels[0].long(), whole.argmax(dim=0))


def test_labels_take_the_largest_share():
    labels = torch.tensor([2, 2, 5, 5, 0], dtype=torch.int16).reshape(1, 5, 1, 1).expand(1, 5, 3, 4)
    # Shares as in the tent above: 2 alone; 5 with 3/4 against 1/4; 0 with 2/3 against 1/3.
    shrunk = resample_labels(labels, (3, 3, 4), antialias=True)
    assert shrunk.dtype == torch.int16
    assert shrunk[0, :, 1, 2].tolist() == [2, 5, 0]
    assert resample_labels(labels, (5, 3, 4), antialias=True) is labels


def affine_of(codes: str, oblique: bool) -> np.ndarray:
    """Affine of a scan of SHAPE whose axes run as ``codes`` say, its centre at the world's origin, maybe turned."""
    affine = np.eye(4)
    affine[:3, :3] = np.transpose([DIRECTIONS[code] for code in codes]) * SPACING_MM
    if oblique:
        a, b = radians(20), radians(-12)
        about_s = np.array([[cos(a), -sin(a), 0], [sin(a), cos(a), 0], [0, 0, 1]])
        about_r = np.array([[1, 0, 0], [0, cos(b), -sin(b)], [0, sin(b), cos(b)]])
        affine[:3, :3] = about_s @ about_r @ affine[:3, :3]
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
    return affine


def blobs(affine: np.ndarray, shape: tuple[int, ...]) -> torch.Tensor:
    """Two balls at fixed places in the world, on any grid: ``(1, *shape)`` uint8."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    labels = np.zeros(shape, dtype=np.uint8)
    for label, (centre, radius) in BLOBS.items():
        labels[np.linalg.norm(world - centre, axis=-1) < radius] = label
    return torch.from_numpy(labels)[None]


def centre_of(labels: MetaTensor, label: int) -> np.ndarray:
    """Mean place of a label in the world."""
    index = (labels.as_tensor()[0] == label).nonzero().double().mean(dim=0).numpy()
    affine = labels.affine.numpy()
    return affine[:3, :3] @ index + affine[:3, 3]


@pytest.fixture(
    params=[
        ("LPS", False),
        ("RAS", False),
        ("SPL", False),
        ("AIR", False),
        ("LPS", True),
        ("RAS", True),
        ("ILA", True),
    ],
    ids=lambda param: param[0] + (" oblique" if param[1] else ""),
)
def reference(request) -> MetaTensor:
    affine = affine_of(*request.param)
    assert nib.aff2axcodes(affine) == tuple(request.param[0])
    return MetaTensor(blobs(affine, SHAPE), affine=torch.from_numpy(affine), meta={"filename_or_obj": "scan.nii.gz"})


def on_working_grid(reference: MetaTensor, grid: dict[str, Any]) -> MetaTensor:
    turned = Orientationd(keys="label", axcodes="SPL", labels=None)({"label": reference})
    return ToWorkingGridd(keys=[], label_keys="label", grid=grid, antialias=True)(turned)["label"]


def test_labels_lie_right_on_the_working_grid(reference):
    labels = on_working_grid(reference, {"spacing_mm": 2.0})
    assert nib.aff2axcodes(labels.affine.numpy()) == ("S", "P", "L")
    assert labels.pixdim.tolist() == pytest.approx([2, 2, 2], rel=0.03)
    for label, (centre, _) in BLOBS.items():
        assert np.abs(centre_of(labels, label) - centre).max() < 0.7


@pytest.mark.parametrize("grid", [{"spacing_mm": 2.0}, {"shape": [31, 33, 35]}], ids=["isotropic", "fixed"])
def test_round_trip_ends_on_the_scan_itself(reference, grid):
    labels = on_working_grid(reference, grid)
    shares = F.one_hot(labels.as_tensor()[0].long(), 7).movedim(-1, 0).float()
    shares[6] = 9  # a border channel, which does not compete
    data = {"pred": shares, "image": labels, "ct_hu": reference, "scan": "a"}
    result = LabelsOnScand("pred", "ct_hu", channels=6)(data)
    back = result["pred"]
    assert back.shape == (1, *SHAPE)
    assert back.dtype == torch.uint8
    assert torch.equal(back.affine, reference.affine)
    assert back.meta["filename_or_obj"] == "scan.nii.gz"
    assert result["scan"] == "a"
    for label in BLOBS:
        ours, truth = back.as_tensor() == label, reference.as_tensor() == label
        assert 2 * (ours & truth).sum() / (ours.sum() + truth.sum()) > 0.95


def test_probabilities_are_kept_on_the_scan_when_asked(reference):
    labels = on_working_grid(reference, {"spacing_mm": 2.0})
    shares = F.one_hot(labels.as_tensor()[0].long(), 7).movedim(-1, 0).float() * 0.6
    shares[0] += 0.4
    data = {"pred": shares, "image": labels, "ct_hu": reference}
    result = LabelsOnScand("pred", "ct_hu", channels=6, probabilities_key="p")(data)
    kept = result["p"]
    assert kept.shape == (5, *SHAPE)
    assert kept.dtype == torch.uint8
    assert torch.equal(kept.affine, reference.affine)
    assert kept.max() == 153  # 0.6 of 255
    for label in range(1, 6):
        likeliest = kept[label - 1].as_tensor() > 130
        assert bool(likeliest.any()) == (label in BLOBS)
        assert (result["pred"].as_tensor()[0][likeliest] == label).all()


def test_images_are_interpolated_and_labels_are_not():
    affine = torch.diag(torch.tensor([4.0, 2.0, 3.0, 1.0]))
    image = torch.arange(5.0).reshape(1, 5, 1, 1).expand(1, 5, 4, 3)
    data = {
        "image": MetaTensor(image.clone(), affine=affine, meta={"note": "kept"}),
        "label": MetaTensor((image > 2).to(torch.uint8), affine=affine),
        "scan": "a",
    }
    out = ToWorkingGridd(keys="image", label_keys=["label"], grid={"shape": (9, 7, 3)})(data)
    assert out["image"][0, :, 0, 0].tolist() == pytest.approx([0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4])
    assert out["label"][0, :, 0, 0].tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 1]  # the even share at 2.5 goes to the lower
    assert out["label"].dtype == torch.uint8
    assert out["image"].pixdim.tolist() == [2, 1, 3]  # the same extent with other voxels
    assert out["image"].meta["note"] == "kept"
    assert out["scan"] == "a"
    assert data["image"].shape == (1, 5, 4, 3)
    assert torch.equal(data["image"].affine, affine.double())
