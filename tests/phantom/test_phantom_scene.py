"""A chest before it is scanned: what diseases see of it, and what stays when one is added."""

import pytest
import torch

from pulmozoo.phantom import thorax
from pulmozoo.phantom.anatomy import draw_chest
from pulmozoo.phantom.fields import Draws, centred_grid
from pulmozoo.phantom.fissures import Accessory, Fissure, Lobation, LungBox, LungMap, fissure_coverage
from pulmozoo.phantom.scanner import Scanner
from pulmozoo.phantom.scene import draw_subject, paint_scene

SHAPE, SPACING_MM = (56, 46, 50), (6.5, 7.0, 7.5)
QUIET = Scanner(noise_hu=0.0, slice_mm=1.0)


class ApicalAir:
    """Air in the outermost centimetre of the upper lobes."""

    name = "apical_air"

    def paint(self, scene, draws):
        label = (scene.pleura_mm > 0) & (scene.pleura_mm < 10) & ((scene.lobes == 1) | (scene.lobes == 3))
        scene.hu[label] = draws.uniform(-1000, -980)
        return label.to(torch.uint8)


class Nodule:
    """A ball of soft tissue at a random place, farther than 15 mm from any fissure."""

    name = "nodule"

    def paint(self, scene, draws):
        centre = draws.points(1, (-60.0, -40.0, -40.0), (60.0, 40.0, 40.0))[0].tolist()
        away = sum((axis - middle) ** 2 for axis, middle in zip(scene.grid.coordinates(), centre, strict=True))
        label = (away < 30.0**2) & (scene.lobes > 0) & (scene.fissure_mm > 15)
        scene.hu[label] = 40.0
        return label.to(torch.uint8)


class Nothing:
    """A disease that no one has."""

    name = "nothing"

    def paint(self, scene, draws):
        return torch.zeros_like(scene.lobes)


@pytest.fixture(scope="module")
def scene():
    return paint_scene(draw_subject(3), centred_grid(SHAPE, SPACING_MM))


def test_a_disease_changes_its_voxels_and_nothing_else():
    healthy = thorax(3, SHAPE, SPACING_MM, scanner=QUIET)
    spared, ill = (thorax(3, SHAPE, SPACING_MM, "cpu", [disease], QUIET) for disease in (Nothing(), ApicalAir()))
    label = ill["apical_air"] > 0
    assert label.any()
    assert set(ill) == {*healthy, "apical_air"}
    assert all(torch.equal(healthy[key], ill[key]) for key in healthy if key != "ct_hu")
    assert ill["ct_hu"][label].float().median() < -960
    untouched = ~torch.nn.functional.max_pool3d(label.float()[None], 5, stride=1, padding=2)[0].bool()
    assert torch.equal(spared["ct_hu"][untouched], ill["ct_hu"][untouched])


def test_diseases_lie_in_even_tissue_without_patches():
    subject = draw_subject(9)  # with patches of emphysema and consolidation that have no label
    assert len(subject.tissue.patches) == 2
    assert subject.with_normal_tissue().tissue.patches == ()
    healthy, spared = (paint_scene(s, centred_grid(SHAPE, SPACING_MM)) for s in (subject, subject.with_normal_tissue()))
    lung = healthy.lobes > 0
    assert torch.equal(healthy.lobes, spared.lobes)
    assert healthy.hu[lung].std() > spared.hu[lung].std()
    assert not (spared.hu[lung] < -960).any()


def test_a_disease_is_the_same_with_another_before_it():
    alone, second = (
        thorax(3, SHAPE, SPACING_MM, "cpu", list_, QUIET) for list_ in ([Nodule()], [ApicalAir(), Nodule()])
    )
    assert alone["nodule"].any()
    assert torch.equal(alone["nodule"], second["nodule"])


def test_depth_and_distance_belong_to_the_lungs(scene):
    assert torch.equal(scene.pleura_mm > 0, scene.lobes > 0)
    between = (scene.lobes[:, :, 1:] == 2) & (scene.lobes[:, :, :-1] == 1)
    between |= (scene.lobes[:, :, 1:] == 1) & (scene.lobes[:, :, :-1] == 2)
    assert between.any()
    assert scene.fissure_mm[:, :, 1:][between].max() < SPACING_MM[2]


def test_vessels_are_arteries_and_veins_of_the_lungs(scene):
    fine = paint_scene(scene.subject, centred_grid((90, 60, 60), (1.6, 1.6, 1.6)))
    assert set(fine.vessels.unique().tolist()) == {0, 1, 2}
    assert (fine.lobes[fine.vessels > 0] > 0).all()
    assert not (fine.vessels[fine.airways > 0]).any()


def test_size_sex_and_age_drive_the_chest():
    chests = [draw_chest(Draws(seed)) for seed in range(60)]
    stature = torch.tensor([chest.patient.stature_m for chest in chests])
    height = torch.tensor([chest.left.height for chest in chests])
    assert torch.corrcoef(torch.stack([stature, height]))[0, 1] > 0.2
    women = [chest.left.lateral for chest in chests if chest.patient.female]
    men = [chest.left.lateral for chest in chests if not chest.patient.female]
    assert sum(women) / len(women) < sum(men) / len(men)


def test_an_accessory_fissure_is_seen_in_its_lobe_only():
    flat = Draws(0).smooth_field(100.0, rms=0.0)
    outside = Fissure((5.0, 0.0, 0.0), (0.0, 0.0, 0.0), flat, flat, gap_level=-1.0, thickness_mm=1.0)
    within = Fissure((0.5, 0.0, 0.0), (0.0, 0.0, 0.0), flat, flat, gap_level=-1.0, thickness_mm=1.0)
    box = LungBox((-50.0, -50.0, -50.0), (50.0, 50.0, 50.0))
    grid = centred_grid((2, 1, 21), (1.0, 1.0, 1.0))
    lobes = torch.ones(grid.shape, dtype=torch.uint8)
    lobes[1] = 2
    far = torch.full(grid.shape, 99.0)
    lungs = LungMap(far, lobes, far, far, far)
    lobation = Lobation(box, box, outside, outside, outside, (Accessory(within, 1),))
    share = fissure_coverage(lobation, lungs, grid)
    assert float(share[0].sum()) == pytest.approx(1.0, abs=0.01)
    assert not share[1].any()
