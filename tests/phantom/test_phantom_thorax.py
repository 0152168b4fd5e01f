"""The synthetic chest: reproducible, the same on every grid, and with anatomy the right way round."""

import pytest
import torch

from pulmozoo.phantom import thorax
from pulmozoo.phantom.fields import Draws, Points, centred_grid
from pulmozoo.phantom.scene import draw_subject

SHAPE, SPACING_MM = (80, 62, 70), (4.5, 5.0, 5.5)
LUL, LLL, RUL, RLL, RML = 1, 2, 3, 4, 5


@pytest.fixture(scope="module")
def chest():
    return thorax(7, SHAPE, SPACING_MM)


def centroid_ras_mm(scan, lobe):
    index = (scan["lobes"] == lobe).nonzero().double().mean(dim=0)
    return scan["affine"][:3, :3] @ index + scan["affine"][:3, 3]


def test_keys_shapes_and_types(chest):
    assert {key: value.dtype for key, value in chest.items()} == {
        "ct_hu": torch.int16,
        "lobes": torch.uint8,
        "airways": torch.uint8,
        "vessels": torch.uint8,
        "affine": torch.float64,
    }
    assert all(value.shape == SHAPE for key, value in chest.items() if key != "affine")
    assert chest["affine"].diagonal().tolist() == [-4.5, -5.0, 5.5, 1.0]


def test_same_seed_same_bits_and_other_seed_other_chest(chest):
    again, other = thorax(7, SHAPE, SPACING_MM), thorax(8, SHAPE, SPACING_MM)
    assert all(torch.equal(chest[key], again[key]) for key in chest)
    assert not torch.equal(chest["lobes"], other["lobes"])


@pytest.mark.parametrize("seed", [0, 3, 11])
def test_five_lobes_none_tiny_and_all_within_the_lungs(seed):
    scan = thorax(seed, (50, 42, 46), (7.0, 7.5, 8.0))
    counts = torch.bincount(scan["lobes"].flatten().long())
    assert len(counts) == 6
    assert (counts[1:] > 0.025 * counts[1:].sum()).all()
    assert scan["ct_hu"][scan["lobes"] > 0].float().median() < -600
    assert not scan["lobes"][[0, -1]].any()


def test_left_is_left_and_upper_is_above_lower(chest):
    centre = {lobe: centroid_ras_mm(chest, lobe) for lobe in (LUL, LLL, RUL, RLL, RML)}
    assert all(centre[lobe][0] < 0 for lobe in (LUL, LLL))
    assert all(centre[lobe][0] > 0 for lobe in (RUL, RLL, RML))
    assert centre[LUL][2] > centre[LLL][2]
    assert centre[RUL][2] > centre[RML][2]
    assert centre[RUL][2] > centre[RLL][2]
    assert centre[RML][1] > centre[RLL][1]  # the middle lobe lies in front


def test_same_chest_on_another_grid(chest):
    other = thorax(7, (97, 55, 61), (3.7, 5.6, 6.3))
    for lobe in (LUL, LLL, RUL, RLL, RML):
        assert (centroid_ras_mm(chest, lobe) - centroid_ras_mm(other, lobe)).norm() < 3


def test_small_grid_is_the_middle_of_a_large_one(chest):
    small = thorax(7, (40, 30, 20), SPACING_MM)
    assert torch.equal(small["lobes"], chest["lobes"][20:60, 16:46, 25:45])


def test_densities_of_air_lung_and_bone(chest):
    ct_hu = chest["ct_hu"].float()
    assert ct_hu[:2, :2].median() < -900
    assert -930 < ct_hu[chest["lobes"] > 0].median() < -700
    assert (ct_hu > 150).float().mean() > 0.002
    assert ct_hu[chest["airways"] > 0].median() < -800


def test_airways_are_wider_than_a_voxel_and_vessels_lie_in_the_lungs(chest):
    assert chest["airways"].sum() > 20
    assert chest["vessels"].sum() > 20
    assert (chest["lobes"][chest["vessels"] > 0] > 0).all()


@pytest.mark.parametrize("seed", [3, 7])
def test_vessels_keep_away_from_fissures(seed):
    subject = draw_subject(seed)
    for vessels in (subject.trees.arteries, subject.trees.veins):
        place = Points(torch.cat([vessels.start, vessels.end]))
        lungs = subject.lungs_at(place)
        near = (lungs.fissure_distance() < 4) & (lungs.lobes > 0)
        assert near.float().mean() < 0.02
        stem = (vessels.generation == 2).repeat(2)  # from the hilum, where the fissures meet, to the lobe
        assert near[~stem].float().mean() < 0.002


def test_smooth_field_is_the_same_on_a_grid_and_at_points():
    smooth = Draws(1).smooth_field(40.0)
    grid = centred_grid((5, 4, 3), (31.0, 37.0, 41.0))
    at = torch.stack(torch.broadcast_tensors(*grid.coordinates()), dim=-1).reshape(-1, 3)
    torch.testing.assert_close(grid.smooth(smooth).flatten(), Points(at).smooth(smooth))


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 0), (8, 8, 8.5)])
def test_bad_shape_is_named(shape):
    with pytest.raises(ValueError, match=r"shape must be three positive integers \(x, y, z\), got \(8, 8"):
        thorax(0, shape, SPACING_MM)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0), (1.0, 1.0, -2.0), (1.0, 1.0, float("nan"))])
def test_bad_spacing_is_named(spacing_mm):
    with pytest.raises(ValueError, match=r"spacing_mm must be three positive numbers \(x, y, z\), got \(1.0, 1.0"):
        thorax(0, (8, 8, 8), spacing_mm)


def test_bad_seed_is_named():
    with pytest.raises(ValueError, match="seed must be an integer of at least 0, got -1"):
        thorax(-1, (8, 8, 8), SPACING_MM)
