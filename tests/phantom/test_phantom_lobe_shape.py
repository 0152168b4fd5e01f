"""The segmentation from the lung's shape alone, on lungs that are boxes."""

import pytest
import torch

from pulmozoo.phantom.lobe_shape import shape_prior

RAS = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0], dtype=torch.float64))


@pytest.fixture
def box_lungs():
    """``(24, 20, 30)`` on RAS axes: the right lung has the larger x."""
    lungs = torch.zeros(24, 20, 30, dtype=torch.uint8)
    lungs[2:11, 1:19, 2:28] = 1
    lungs[13:22, 1:19, 2:28] = 2
    return lungs


def test_box_lungs_by_hand(box_lungs):
    lobes = shape_prior(box_lungs, RAS)
    assert torch.equal(lobes > 0, box_lungs > 0)
    assert lobes[6, 10, 26] == 1  # left, middle of y: the oblique fissure is at 0.41 of the height
    assert lobes[6, 10, 5] == 2
    assert lobes[17, 17, 26] == 3
    assert lobes[17, 2, 5] == 4
    assert lobes[17, 17, 8] == 5


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_any_axis_order_and_direction(box_lungs, axes):
    expected = shape_prior(box_lungs, RAS).permute(axes).flip((0, 2))
    affine = torch.eye(4, dtype=torch.float64)
    affine[:3, :3] = RAS[:3, :3][:, list(axes)] * torch.tensor([-1.0, 1.0, -1.0])
    assert torch.equal(shape_prior(box_lungs.permute(axes).flip((0, 2)), affine), expected)


def test_one_lung_or_none(box_lungs):
    assert set(shape_prior(box_lungs * (box_lungs == 1), RAS).unique().tolist()) == {0, 1, 2}
    assert not shape_prior(torch.zeros_like(box_lungs), RAS).any()


def test_oblique_affine_and_flat_mask_are_refused(box_lungs):
    tilted = RAS.clone()
    tilted[0, 1] = 1.5
    with pytest.raises(ValueError, match="affine must run each voxel axis along one world axis, got"):
        shape_prior(box_lungs, tilted)
    with pytest.raises(ValueError, match=r"lungs must have shape \(X, Y, Z\), got \(24, 20\)"):
        shape_prior(box_lungs[..., 0], RAS)
    with pytest.raises(ValueError, match=r"affine must have shape \(4, 4\), got \(3, 3\)"):
        shape_prior(box_lungs, RAS[:3, :3])
