"""Vessels and fissures keep their amount of tissue at any voxel size; scanner noise has the variance it says."""

import math
from dataclasses import replace

import pytest
import torch

from pulmozoo.phantom.fields import Draws, centred_grid
from pulmozoo.phantom.filters import correlated_noise
from pulmozoo.phantom.fissures import Fissure, LungBox
from pulmozoo.phantom.scene import draw_subject
from pulmozoo.phantom.trees import ANYWHERE, Segments, _calibre, _grow, tube_coverage


def straight_tube(radius_mm):
    ends = torch.tensor([[-20.0, 0.0, 0.0], [20.0, 0.0, 0.0]])
    return Segments(ends[:1], ends[1:], torch.tensor([radius_mm]), torch.tensor([ANYWHERE]), torch.tensor([0]))


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
    drawn = tube_coverage(replace(tube, lobe=torch.tensor([1])), grid, lobes)
    assert drawn[:10].max() == 0
    assert drawn[10:].max() > 0.5


@pytest.fixture(scope="module", params=[4, 9])
def trees(request):
    return draw_subject(request.param).trees


def test_tree_of_two_tips_by_hand():  # the gate is the tip at 10; one branch feeds both, then each is reached
    tips = torch.tensor([[10.0, 0.0, 0.0], [20.0, 8.0, 0.0]])
    growth = _grow(Draws(0), tips, torch.zeros(3))
    torch.testing.assert_close(growth.nodes[:2], torch.tensor([[10.0, 0.0, 0.0], [12.0, 1.6, 0.0]]))
    assert sorted(growth.nodes[2:].tolist()) == tips.tolist()
    assert growth.parent.tolist() == [0, 0, 1, 1]
    assert growth.tips.tolist() == [2, 2, 1, 1]
    assert growth.generation.tolist() == [2, 3, 4, 4]
    assert _calibre(growth, 0.5).tolist() == pytest.approx([0.5 * 2 ** (1 / 2.8)] * 2 + [0.5] * 2)


@pytest.mark.parametrize("name", ["arteries", "veins", "airways"])
def test_every_tube_starts_at_a_root_or_where_another_ends(trees, name):
    tubes = getattr(trees, name)
    from_end = torch.cdist(tubes.start, tubes.end, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=1)
    roots = tubes.start[from_end > 1e-3].unique(dim=0)
    expected = 1 if name == "airways" else 2  # the trachea; the hilum of each lung
    assert expected <= len(roots) <= expected + 1  # the bronchus of the right upper lobe leaves on its way


def test_airways_reach_the_sixth_generation_in_each_lung(trees):
    airways = trees.airways
    for lobes in ((1, 2), (3, 4, 5)):
        inside = torch.isin(airways.lobe, torch.tensor(lobes))
        assert airways.generation[inside].max() >= 6
    assert sorted(airways.generation.unique().tolist()) == list(range(int(airways.generation.max()) + 1))


def test_calibre_and_wall_fall_from_the_trachea_to_the_periphery(trees):
    airways = trees.airways
    central, middle, far = airways.generation == 0, airways.generation == 3, airways.generation >= 6
    for value in (airways.radius, trees.wall_mm):
        assert value[central].min() > value[middle].max() > value[far].mean()
    assert trees.arteries.radius[trees.arteries.generation > 8].mean() < 2


def test_airways_run_beside_arteries_and_veins_between(trees):
    small = trees.airways.where(trees.airways.generation > 4)
    to_artery = torch.cdist(small.end, trees.arteries.end).amin(dim=1)
    to_vein = torch.cdist(small.end, trees.veins.end).amin(dim=1)
    assert to_artery.median() < 6
    assert to_artery.median() < to_vein.median()


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
