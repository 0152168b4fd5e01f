"""Chest films of the phantom: the mask is where the air is, and the film is darker there by the known amount."""

import math
from dataclasses import replace

import pytest
import torch

from pulmozoo.bundle.errors import BadInput
from pulmozoo.phantom.anatomy import LEFT, RIGHT, draw_chest
from pulmozoo.phantom.fields import Draws, Grid, Points
from pulmozoo.phantom.film_body import MOST_STRETCH, apex_depth, draw_build, rib_paths
from pulmozoo.phantom.film_devices import CHANCES, CHEST_TUBE, DEVICES, draw_devices
from pulmozoo.phantom.film_lungs import Lungs, lung_shadow, vessel_shadow
from pulmozoo.phantom.fissures import LungBox
from pulmozoo.phantom.pneumothorax import CHANCES as KIND_CHANCES
from pulmozoo.phantom.pneumothorax import KINDS, Pneumothorax, draw_pneumothorax
from pulmozoo.phantom.projection import Exposure, Frame, blur_plane, capsule_shadow, detect, show, tube_shadow
from pulmozoo.phantom.radiograph import MASK_MM, MASK_SHARE, air_mask, draw_film_subject, expose, radiograph
from pulmozoo.phantom.trees import Segments

SIZE = 64
PLAIN = Exposure(
    mu_per_mm=0.02,
    scatter=0.0,
    scatter_mm=20,
    blur_mm=0.0,
    quanta=1e12,
    detail=1.0,
    detail_mm=20,
    black=0.0,
    white=0.0,
    curve=0.01,
    gamma=1.0,
)
BOXES = (LungBox((0, -60, -100), (100, 60, 100)), LungBox((-100, -60, -100), (0, 60, 100)))
FLAT = Draws(0).smooth_field(60.0, rms=0.0)


def collapse(scale, *, side=LEFT, centre=(0.0, 0.0, -100.0), line_mm=0.0, fluid_mm=0.0, **changes):
    values = {
        "kind": "large",
        "apex_only": None,
        "pocket": None,
        "uneven": FLAT,
        "shift_mm": 0.0,
        "drop_mm": 0.0,
        "condensing": 0.0,
        **changes,
    }
    return Pneumothorax(side=side, centre=centre, scale=scale, line_mm=line_mm, fluid_mm=fluid_mm, **values)


def box_lungs(density=0.2):
    """Two lungs of 100 x 120 x 200 mm, as depths below their flat faces, with one vessel in the left one."""
    x, y, z = torch.arange(-120.0, 121, 4), torch.arange(-80.0, 81, 4), torch.arange(-120.0, 121, 4)
    grid = Grid(x, y, z, (4.0, 4.0, 4.0))
    px, py, pz = grid.coordinates()
    depths = tuple(
        torch.minimum(torch.minimum(50 - (px - side * 50).abs(), 60 - py.abs()), 100 - pz.abs())
        for side in (LEFT, RIGHT)
    )
    vessel = Segments(
        torch.tensor([[20.0, 0.0, -80.0]]),
        torch.tensor([[20.0, 0.0, 80.0]]),
        torch.tensor([2.0]),
        torch.tensor([1]),
        torch.tensor([5]),
    )
    nothing = Segments(*(value[:0] for value in vars(vessel).values()))
    return Lungs(BOXES, grid, depths, torch.full(grid.shape, density), (vessel, nothing), (), {})


def test_box_of_air_darkens_the_film_by_its_depth_and_is_the_mask():
    """The lung keeps its lower half, so 120 mm of air lie in the beam above: exp(0.02 * 120 * 0.2) more light."""
    frame, lungs = Frame(2.0, 160), box_lungs(density=0.2)
    whole = lung_shadow(lungs, LEFT, frame)
    half = lung_shadow(lungs, LEFT, frame, collapse((1.0, 1.0, 0.5)))
    above = (frame.z() > 15).expand(-1, frame.count) & (frame.z() < 85) & (frame.x() > 15) & (frame.x() < 85)
    below = (frame.z() < -15).expand(-1, frame.count) & (frame.z() > -85) & (frame.x() > 15) & (frame.x() < 85)
    torch.testing.assert_close(half.air[above], torch.full((int(above.sum()),), 120.0), atol=1.5, rtol=0)
    assert half.air[below].abs().max() < 2
    torch.testing.assert_close(half.space, whole.space)

    exposure, patient = PLAIN, torch.full((frame.count, frame.count), 200.0)
    before, after = (detect(patient + shadow.water_mm, exposure, 2.0, Draws(1)) for shadow in (whole, half))
    gain = after[above].mean() / before[above].mean()
    assert gain.item() == pytest.approx(math.exp(0.02 * 120 * 0.2), rel=0.01)
    assert (after[below].mean() / before[below].mean()).item() == pytest.approx(1, rel=0.01)

    mask = air_mask(half.air, half.space)
    assert mask[above].all()
    assert not mask[below].any()
    area_cm2 = float(mask.sum()) * 0.2**2
    assert area_cm2 == pytest.approx(100, rel=0.1)  # 100 x 100 mm, the border a pixel wide


def test_mask_needs_length_and_share():
    air = torch.tensor([MASK_MM - 0.1, MASK_MM + 0.1, 50.0, 50.0])
    space = torch.tensor([MASK_MM, MASK_MM + 0.1, 50 / MASK_SHARE + 1, 50 / MASK_SHARE - 1])
    assert air_mask(air, space).tolist() == [False, True, False, True]


def test_no_vessel_lies_in_the_air_and_all_are_there_without_it():
    frame, lungs = Frame(4.0, 80), box_lungs()
    row = {z: int((frame.z()[:, 0] - z).abs().argmin()) for z in (60, -60)}
    whole, half = (vessel_shadow(lungs, LEFT, frame, how) for how in (None, collapse((1.0, 1.0, 0.5))))
    assert whole[row[60]].sum() > 0
    assert half[row[60]].sum() == 0
    assert half[row[-60]].sum() > 0
    assert vessel_shadow(lungs, RIGHT, frame).sum() == 0


def test_pleural_line_lies_at_the_edge_of_the_collapsed_lung():
    frame, lungs = Frame(2.0, 160), box_lungs()
    edge = collapse((0.6, 1.0, 1.0), centre=(0.0, 0.0, 0.0))
    with_line = collapse((0.6, 1.0, 1.0), centre=(0.0, 0.0, 0.0), line_mm=0.5)
    line = lung_shadow(lungs, LEFT, frame, with_line).water_mm - lung_shadow(lungs, LEFT, frame, edge).water_mm
    row = line[int((frame.z()[:, 0]).abs().argmin())]
    assert frame.x()[row.argmax()].item() == pytest.approx(60, abs=2)
    assert row.sum().item() * 2.0 == pytest.approx(0.5 * 120, rel=0.15)  # its area seen from above


def test_fluid_in_a_pneumothorax_has_a_level():
    frame, lungs = Frame(4.0, 80), box_lungs()
    wet = lung_shadow(lungs, LEFT, frame, collapse((0.3, 1.0, 1.0), centre=(0.0, 0.0, 0.0), fluid_mm=60.0))
    beside = (frame.x() > 50) & (frame.x() < 90)
    under, over = ((frame.z() - z).abs().argmin() for z in (-60, 0))
    assert wet.air[under][beside].abs().max() < 1
    assert wet.air[over][beside].min() > 110


@pytest.mark.parametrize("kind", KINDS)
def test_target_is_the_inverse_of_source(kind):
    drawn = draw_pneumothorax(Draws(3), kind, BOXES)
    box = BOXES[0] if drawn.side == LEFT else BOXES[1]
    lung = Draws(4).points(50, box.low, box.high)
    back = torch.stack(drawn.source(Points(drawn.target(lung))), dim=1)
    assert (back - lung).norm(dim=1).max() < 2.5


def test_tube_keeps_its_volume_at_any_pixel_size_and_has_its_chord():
    ends = torch.tensor([[-60.0, 0.0, -40.0]]), torch.tensor([[50.0, 30.0, 20.0]])
    volume = math.pi * 25 * (110**2 + 30**2 + 60**2) ** 0.5
    for pixel in (8.0, 2.0, 0.9):
        frame = Frame(pixel, round(240 / pixel))
        assert float(tube_shadow(frame, *ends, torch.tensor([5.0])).sum()) * pixel**2 == pytest.approx(volume, rel=1e-3)
    frame = Frame(1.0, 240)
    upright = tube_shadow(
        frame, torch.tensor([[0.5, 0.0, -90.0]]), torch.tensor([[0.5, 0.0, 60.0]]), torch.tensor([9.0])
    )
    assert upright.max().item() == pytest.approx(18, rel=0.05)
    torch.testing.assert_close(capsule_shadow(frame, (0.5, -90), (0.5, 60), 9)[100], upright[100], atol=2.2, rtol=0)


def test_scatter_blurs_and_attenuation_is_exponential():
    water = torch.full((40, 40), 100.0)
    assert detect(water, PLAIN, 1.0, Draws(0)).mean().item() == pytest.approx(math.exp(-2), rel=1e-4)
    scattered = detect(water, PLAIN.__class__(**{**vars(PLAIN), "scatter": 0.5}), 1.0, Draws(0))
    assert scattered.mean().item() == pytest.approx(1.5 * math.exp(-2), rel=1e-4)


def test_blur_keeps_the_mean_and_widens_a_point():
    point = torch.zeros(81, 81)
    point[40, 40] = 1.0
    for sd in (2.0, 9.0):
        blurred = blur_plane(point, sd)
        away = (torch.arange(81) - 40.0).square()
        assert blurred.sum().item() == pytest.approx(1, rel=0.02)
        assert float((blurred.sum(0) * away).sum()) ** 0.5 == pytest.approx(sd, rel=0.1)


def test_dense_tissue_is_shown_bright():
    signal = torch.exp(-torch.linspace(0, 4, 64).repeat(64, 1))
    shown = show(signal, torch.ones(64, 64, dtype=torch.bool), PLAIN, 1.0)
    assert (shown[32].diff() >= 0).all()
    assert (shown.min(), shown.max()) == (0, 1)


@pytest.fixture(scope="module")
def patient():
    return draw_film_subject(1, SIZE)


@pytest.fixture(scope="module")
def tension(patient):
    return expose(patient, 5, "tension", SIZE, devices=())


def test_keys_shapes_and_ranges(tension):
    assert tension["film"].shape == tension["mask"].shape == (SIZE, SIZE)
    assert (tension["film"].min() >= 0) & (tension["film"].max() <= 1)
    assert tension["mask"].dtype == torch.uint8
    assert set(tension["mask"].unique().tolist()) == {0, 1}
    assert tension["has_pneumothorax"] is True
    assert 3 < tension["pixel_mm"] < 8


def test_top_of_a_lung_is_a_dome_that_leans_inward():
    """A box 100 mm wide and 100 mm high, tapered over the upper 50: half-width 52.5 * sqrt(1 - 1/4) at half of it."""
    x, z = torch.tensor([44.0, 38.0, 50.0]), torch.tensor([75.0, 100.0, 20.0])
    depth = apex_depth(LungBox((0, -60, 0), (100, 60, 100)), 50.0, x, z)
    assert depth[0].item() == pytest.approx(0.8 * 52.5 * 0.75**0.5, abs=0.01)
    assert depth[1].item() == pytest.approx(0, abs=0.01)
    assert depth[2] > 100  # below the dome it bounds nothing


def test_upper_ribs_keep_to_the_tops_of_the_lungs_and_fall_to_the_front(patient):
    untapered = rib_paths(patient.chest, replace(patient.build, taper=1.0), patient.lungs.boxes)
    furthest = []
    for ribs in (patient.ribs, untapered):
        outside = [
            apex_depth(box, patient.build.taper, paths[:3, :, 0], paths[:3, :, 2]).min().item()
            for box, paths in zip(patient.lungs.boxes, ribs, strict=True)
        ]
        furthest.append(min(outside))
    assert furthest[0] > furthest[1] + 2
    assert (patient.ribs[:, :, -1, 2] < patient.ribs[:, :, 0, 2] - 15).all()


def test_lungs_stand_as_tall_on_a_film_as_those_of_a_standing_patient():
    shares = []
    for seed in range(40):
        chest = draw_chest(Draws(seed))
        build = draw_build(Draws(seed, 1), chest)
        if build.tall < MOST_STRETCH:
            shares.append(build.tall * (build.top - build.floor) / (2 * build.cage))
    assert len(shares) > 20
    assert min(shares) >= 0.69
    assert max(shares) <= 1.16
    assert sum(shares) / len(shares) == pytest.approx(0.92, abs=0.06)


def test_same_seed_same_film_and_other_seed_other_film(patient, tension):
    again, other = (expose(patient, seed, "tension", SIZE, devices=()) for seed in (5, 6))
    assert torch.equal(again["film"], tension["film"])
    assert not torch.equal(other["film"], tension["film"])


@pytest.mark.parametrize("seed", [5, 6, 7, 8])
def test_mask_lies_on_the_named_side(patient, seed):
    film = expose(patient, seed, "tension", SIZE, devices=())
    columns = film["mask"].nonzero()[:, 1].float()
    # The patient's left is on the right of a film.
    assert (columns.mean() > SIZE / 2) == (film["side"] == "left")


def test_without_pneumothorax_the_mask_is_empty(patient):
    film = expose(patient, 5, None, SIZE)
    assert not film["mask"].any()
    assert (film["has_pneumothorax"], film["side"], film["kind"]) == (False, "none", "none")


def test_monochrome1_is_the_negative(patient, tension):
    negative = expose(patient, 5, "tension", SIZE, devices=(), photometric="MONOCHROME1")
    torch.testing.assert_close(negative["film"], 1 - tension["film"])
    assert torch.equal(negative["mask"], tension["mask"])


@pytest.mark.parametrize("name", DEVICES)
def test_each_device_shows_on_a_film_of_its_own(patient, name):
    without, with_device = (expose(patient, 3, None, SIZE, "AP", devices=names) for names in ((), (name,)))
    assert (without["film"] - with_device["film"]).abs().max() > 0.003  # else they are the same, noise included
    assert not with_device["mask"].any()


def test_devices_are_drawn_as_often_as_stated():
    drawn = [draw_devices(Draws(seed), "AP", has_pneumothorax=seed % 2 == 0) for seed in range(600)]
    for present in (True, False):
        tubes = [("chest_tube" in names) for names in drawn[0 if present else 1 :: 2]]
        assert sum(tubes) / len(tubes) == pytest.approx(CHEST_TUBE["AP", present], abs=0.1)
    folds = sum("skin_fold" in names for names in drawn) / len(drawn)
    assert folds == pytest.approx(CHANCES["AP"]["skin_fold"], abs=0.07)


def test_chances_of_kinds_add_up():
    assert all(
        sum(chances.values()) == pytest.approx(1) and set(chances) <= set(KINDS) for chances in KIND_CHANCES.values()
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"pneumothorax": "huge"}, "pneumothorax must be None or one of apical, lateral, .*, got 'huge'"),
        ({"view": "LL"}, "view must be one of PA, AP, got 'LL'"),
        ({"devices": ("ring",)}, "devices must be of chest_tube, .*, got 'ring'"),
        ({"photometric": "RGB"}, "photometric must be one of MONOCHROME1, MONOCHROME2, got 'RGB'"),
        ({"size": 8}, "size must be a whole number from 32 to 4096, got 8"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
    ],
)
def test_bad_arguments_are_named(arguments, sentence):
    with pytest.raises(BadInput, match=sentence):
        radiograph(**{"seed": 0, "size": SIZE, **arguments})
