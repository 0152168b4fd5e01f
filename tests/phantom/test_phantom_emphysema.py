"""Emphysema in the phantom: as much as was asked for, where it belongs, and side by side."""

import pytest
import torch

from pulmozoo.bundle.errors import BadInput
from pulmozoo.phantom import scene as scene_module
from pulmozoo.phantom import thorax
from pulmozoo.phantom.centrilobular import Centrilobular
from pulmozoo.phantom.fields import Draws, Grid, centred_grid
from pulmozoo.phantom.grain import lung_grain
from pulmozoo.phantom.lung_air import level_of, take_tissue
from pulmozoo.phantom.paraseptal import Cysts, Paraseptal, two_nearest
from pulmozoo.phantom.scanner import Scanner
from pulmozoo.phantom.scene import Scene, draw_subject, paint_diseases, paint_tissue

COARSE = (54, 44, 58), (7.0, 6.8, 6.9)
# Paraseptal and centrilobular, of one seed after the other; no seed is chosen.
PERCENTS = ((0.0, 3.0), (3.0, 0.0), (6.0, 12.0), (14.0, 25.0), (1.5, 50.0))


@pytest.fixture(scope="module")
def cases():
    """Thirty pairs of lungs without tubes, which take most of the time, with both labels and what was asked for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene_module, "draw_trees", lambda draws, chest, lobation: None)
        return [painted(seed, *PERCENTS[seed % len(PERCENTS)]) for seed in range(30)]


def painted(seed, pse, cle):
    scene = paint_tissue(draw_subject(seed).with_normal_tissue(), centred_grid(*COARSE), body=False)
    return scene, paint_diseases(scene, seed, [Paraseptal(pse), Centrilobular(cle)]), (pse, cle)


def test_percents_are_those_asked_for(cases):
    for scene, labels, wanted in cases:
        lung = scene.lobes > 0
        for label, percent in zip((labels["paraseptal"], labels["centrilobular"]), wanted, strict=True):
            assert set(label.unique().tolist()) <= {0, 1}
            assert 100 * float(label.sum() / lung.sum()) == pytest.approx(percent, abs=1)


def test_labels_share_the_lungs(cases):
    for scene, labels, _ in cases:
        both = labels["paraseptal"] + labels["centrilobular"]
        assert both.max() <= 1
        assert (scene.lobes[both > 0] > 0).all()


def test_centrilobular_is_more_frequent_above_and_paraseptal_hugs_pleura_and_fissures(cases):
    upper, lower, cle_depth, pse_depth = 0, 0, [], []
    for scene, labels, _ in cases[:10]:
        depth = torch.minimum(scene.pleura_mm, scene.fissure_mm)
        cle, pse = labels["centrilobular"] > 0, labels["paraseptal"] > 0
        level = scene.grid.z.expand(cle.shape)
        middle = level[scene.lobes > 0].mean()
        upper, lower = upper + int((cle & (level > middle)).sum()), lower + int((cle & (level < middle)).sum())
        cle_depth.append(depth[cle])
        pse_depth.append(depth[pse])
    assert upper > 1.5 * lower
    assert torch.cat(pse_depth).quantile(0.95) < 14
    assert torch.cat(cle_depth).median() > 10


def test_lesions_hold_air_and_the_other_lung_stays():
    grid, quiet = ((200, 150, 1), (1.6, 1.6, 1.0)), Scanner(noise_hu=0.0, blur_mm=0.3)
    none, ill = (
        thorax(4, *grid, diseases=[Paraseptal(share), Centrilobular(3 * share)], scanner=quiet) for share in (0.0, 8.0)
    )
    assert not none["paraseptal"].any()
    assert not none["centrilobular"].any()
    label = (ill["paraseptal"] + ill["centrilobular"]) > 0
    assert ill["ct_hu"][label].float().median() < -960
    assert none["ct_hu"][label].float().median() > -920
    # The centrilobular spots and the cysts' walls fade beyond their labels.
    near = torch.nn.functional.max_pool2d(label[None, :, :, 0].float(), 13, stride=1, padding=6)[0] > 0
    far = (ill["lobes"][:, :, 0] > 0) & ~near
    assert far.sum() > 100
    changed = (ill["ct_hu"][:, :, 0] - none["ct_hu"][:, :, 0])[far].abs()
    assert changed.float().quantile(0.9) <= 5


@pytest.mark.parametrize("disease", [Paraseptal(10.0), Centrilobular(25.0)], ids=["paraseptal", "centrilobular"])
def test_a_seed_is_the_same_lesions_on_another_grid(disease):
    labels = []
    for count, step in ((13, 6.0), (37, 2.0)):
        box = centred_grid((count, count, count), (step, step, step))
        shifted = Grid(box.x + 70, box.y, box.z, box.spacing_mm)
        scene = paint_tissue(draw_subject(6).with_normal_tissue(), shifted, body=False)
        labels.append(paint_diseases(scene, 6, [disease])[disease.name])
    coarse, fine = labels
    assert coarse.any()
    assert (coarse == fine[::3, ::3, ::3]).float().mean() > 0.99


def row_of_lung(count):
    """A scene of one row of healthy lung."""
    hu, lobes = torch.full((count, 1, 1), -900.0), torch.ones(count, 1, 1, dtype=torch.uint8)
    none = torch.zeros_like(lobes)
    return Scene(hu, lobes, none, none.clone(), none > 0, centred_grid((count, 1, 1), (1.0, 1.0, 1.0)), None)


def test_level_by_hand():  # 10 voxels with scores 1 to 10, of which 30 % are 3
    scene, score = row_of_lung(10), torch.arange(1.0, 11.0)[:, None, None]
    assert level_of(score, scene, 30.0) == 8
    scene.diseased[9] = True
    scene.hu[8] = 30.0
    assert level_of(score, scene, 30.0) == 6
    assert level_of(score, scene, 0.0) > 1e20
    with pytest.raises(BadInput, match=r"percent is 90: this chest has room for at most 80\.0 percent; ask for less"):
        level_of(score, scene, 90.0)


def test_air_by_hand():  # 14 % of the tissue is left; half a thick vessel keeps half of its contrast
    hu = torch.tensor([-900.0, -900.0, 60.0, -175.0])
    take_tissue(hu, torch.tensor([1.0, 0.5, 1.0, 1.0]), -1000.0)
    torch.testing.assert_close(hu, torch.tensor([-986.0, -943.0, 60.0, -529.75]))


def test_cysts_by_hand():  # two balls of 4 mm, 6.5 mm apart; a third one is of another lobe
    grid = centred_grid((7, 1, 1), (2.0, 2.0, 2.0))  # x from -6 to 6
    centre = torch.tensor([[-3.0, 0.0, 0.0], [3.5, 0.0, 0.0], [0.0, 0.0, 0.0]])
    cysts = Cysts(centre, torch.full((3,), 4.0), torch.tensor([1, 1, 2]), torch.zeros(3))
    nearest, second = two_nearest(cysts, grid, torch.ones(grid.shape, dtype=torch.uint8))
    assert nearest.flatten().tolist() == [-1, -3, -3, -1, -2.5, -3.5, -1.5]
    assert second[2:5].flatten().tolist() == [1.5, -0.5, 1]


def test_skewed_grain_has_the_sd_and_few_bright_grains():
    hu = torch.full((60, 60, 60), -870.0)
    lung_grain(hu, torch.ones_like(hu), 20.0, (1.0, 1.0, 1.0), Draws(1), skew=1.0)
    grain = hu + 870
    assert grain.std().item() == pytest.approx(20, rel=0.05)
    assert grain.mean().item() == pytest.approx(0, abs=0.5)
    assert grain.quantile(0.05) > -0.7 * 20
    assert grain.quantile(0.99) > 3 * 20


@pytest.mark.parametrize(
    ("disease", "percent", "sentence"),
    [
        (Paraseptal, 30.0, "percent of paraseptal must be from 0 to 25, got 30.0"),
        (Centrilobular, -1.0, r"percent of centrilobular must be from 0 to 80, got -1.0"),
    ],
)
def test_a_share_that_cannot_be_is_named(disease, percent, sentence):
    with pytest.raises(BadInput, match=sentence):
        disease(percent)
