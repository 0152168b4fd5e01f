"""Vessels and fissures keep their amount of tissue at any voxel size; scanner noise has the variance it says."""

import math

import pytest
import torch

from pulmozoo.phantom.acquisition import correlated_noise, gaussian_blur
from pulmozoo.phantom.fields import Draws, centred_grid
from pulmozoo.phantom.fissures import Fissure, LungBox
from pulmozoo.phantom.trees import ANYWHERE, Segments, _tips_behind, tube_coverage


def straight_tube(radius_mm):
    ends = torch.tensor([[-20.0, 0.0, 0.0], [20.0, 0.0, 0.0]])
    return Segments(ends[:1], ends[1:], torch.tensor([radius_mm]), torch.tensor([ANYWHERE]))


@pytest.mark.parametrize("radius_mm", [0.5, 1.0, 3.0])
def test_tube_fills_its_cross_section(radius_mm):
    grid = centred_grid((21, 25, 27), (1.0, 1.0, 1.0))
    drawn = tube_coverage(straight_tube(radius_mm), grid, torch.zeros(grid.shape, dtype=torch.uint8))
    assert float(drawn[10].sum()) == pytest.approx(math.pi * radius_mm**2, rel=0.15)


def test_tube_enters_no_other_lobe():
    grid = centred_grid((21, 9, 9), (1.0, 1.0, 1.0))
    lobes = torch.ones(grid.shape, dtype=torch.uint8)
    lobes[:10] = 2
    tube = straight_tube(1.0)
    drawn = tube_coverage(Segments(tube.start, tube.end, tube.radius, torch.tensor([1])), grid, lobes)
    assert drawn[:10].max() == 0
    assert drawn[10:].max() > 0.5


def test_tips_behind_by_hand():  # 0 - 1 - (2, 3): two ends
    assert _tips_behind([0, 1, 1]) == [2, 2, 1, 1]


@pytest.mark.parametrize("step_mm", [0.5, 2.0, 5.0])
def test_fissure_keeps_its_thickness(step_mm):
    field = Draws(0).smooth_field(100.0, rms=0.0)
    fissure = Fissure((0.5, 0.0, 0.0), (0.0, 0.0, 0.0), field, field, gap_level=-1.0, thickness_mm=1.0)
    box = LungBox((-50.0, -50.0, -50.0), (50.0, 50.0, 50.0))
    grid = centred_grid((1, 1, 41), (1.0, 1.0, step_mm))
    sheet = fissure.sheet(fissure.distance(box, grid), box, grid)
    assert float(sheet.sum()) * step_mm == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("sd_voxels", [(0.2, 0.5, 1.0), (2.0, 2.0, 0.1)])
def test_noise_has_unit_variance(sd_voxels):
    noise = correlated_noise(Draws(0), (40, 41, 42), sd_voxels)
    assert float(noise.std()) == pytest.approx(1, abs=0.05)


def test_blur_keeps_a_constant_and_the_sum():
    point = torch.zeros(11, 12, 13)
    point[5, 5, 6] = 1
    torch.testing.assert_close(gaussian_blur(torch.ones(4, 2, 1), (1.0, 1.0, 1.0)), torch.ones(4, 2, 1))
    assert float(gaussian_blur(point, (1.0, 0.5, 1.2)).sum()) == pytest.approx(1, abs=1e-5)
