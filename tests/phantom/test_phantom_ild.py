"""Interstitial lung disease in the phantom: its cells, its patterns, and how radiologists draw them."""

import math
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch

from pulmozoo.phantom.annotation import draw_annotation
from pulmozoo.phantom.cells import PERIOD, Cells, draw_cells
from pulmozoo.phantom.exam import Exam
from pulmozoo.phantom.fields import Draws, Grid, centred_grid
from pulmozoo.phantom.ild import (
    CONSOLIDATION,
    GROUND_GLASS,
    HEALTHY,
    HONEYCOMBING,
    MICRONODULES,
    PICTURES,
    PRIORITY,
    RETICULATION,
    Extent,
    ILDPatterns,
    draw_brush,
    draw_extent,
    draw_patterns,
    line_coverage,
)
from pulmozoo.phantom.ild_cohort import ANNOTATIONS, draw_ild, high_resolution, write_annotations
from pulmozoo.phantom.scan_grid import ScanGrid
from pulmozoo.phantom.scanner import Scanner
from pulmozoo.phantom.scene import draw_subject, paint_scene
from pulmozoo.phantom.trees import tube_coverage

GRID = (200, 160, 3), (1.6, 1.6, 1.2)


@pytest.fixture(scope="module")
def subject():
    return draw_subject(3)


@pytest.fixture
def scene(subject):
    return paint_scene(subject, centred_grid(*GRID))


def middle_cells(width_mm: float) -> Cells:
    """Cubes: the point of each cell is its middle."""
    flat = Draws(0).smooth_field(100.0, rms=0.0)
    return Cells(width_mm, torch.full((PERIOD, PERIOD, PERIOD, 3), 0.5), (flat, flat, flat))


def test_cells_by_hand():
    """In cubes of 8 mm: 1 mm and 3 mm below a face whose middle is 3 mm aside, and a corner."""
    x, y, z = torch.tensor([1.0, 3.0, 8.0]), torch.tensor([4.0, 8.0]), torch.tensor([4.0, 7.0, 8.0])
    grid = Grid(x, y, z, (1.0, 1.0, 1.0))
    wall, centre = (values.reshape(3, 2, 3) for values in middle_cells(8.0).distances(grid, torch.ones(3, 2, 3) > 0))
    assert wall[0, 0, 0].item() == pytest.approx(1.0, abs=1e-5)
    assert centre[0, 0, 0].item() == pytest.approx(3.0, abs=1e-5)
    assert wall[1, 0, 0].item() == pytest.approx(3.0, abs=1e-5)
    assert wall[0, 0, 1].item() == pytest.approx(1.0, abs=1e-5)
    assert centre[0, 0, 1].item() == pytest.approx(math.hypot(3, 3), abs=1e-5)
    assert wall[2, 1, 2].item() == pytest.approx(0.0, abs=1e-5)
    assert centre[2, 1, 2].item() == pytest.approx(math.sqrt(48), abs=1e-5)


def test_cells_are_the_same_on_every_grid():
    cells = draw_cells(Draws(1), width_mm=7.0, warp_mm=2.0)
    fine, coarse = centred_grid((21, 21, 21), (1.0, 1.0, 1.0)), centred_grid((11, 11, 11), (2.0, 2.0, 2.0))
    whole = [cells.distances(grid, torch.ones(grid.shape) > 0)[0].reshape(grid.shape) for grid in (fine, coarse)]
    assert torch.allclose(whole[0][::2, ::2, ::2], whole[1], atol=1e-4)


def test_a_thin_line_keeps_its_thickness():
    at = torch.linspace(-5, 5, 1001).abs()
    for thick_mm in (0.3, 1.0, 2.5):
        assert line_coverage(at, thick_mm, voxel_mm=1.0).mean().item() * 10 == pytest.approx(thick_mm, rel=0.01)


def paint(scene, pattern: int, seed: int = 0):
    """The whole lung in one pattern; returns HU before and after, and the lungs."""
    before, lungs = scene.hu.clone(), scene.lobes > 0
    draw_brush(Draws(seed), pattern).paint(scene, lungs.float())
    return before, scene.hu, lungs


def test_nothing_is_painted_far_from_the_lungs(scene):
    for pattern in PRIORITY:
        before, after, _ = paint(scene, pattern)
        far = scene.pleura_mm < -2
        assert torch.equal(after[far], before[far])


def test_ground_glass_is_denser_and_shows_its_vessels(scene):
    before, after, lungs = paint(scene, GROUND_GLASS)
    assert 100 < (after - before)[lungs].median() < 420
    vessels = (scene.vessels > 0) & (before > -100)
    assert vessels.any()
    assert torch.equal(after[vessels & (before > -250)], before[vessels & (before > -250)])
    assert after[vessels].median() > after[lungs].median() + 200


def test_consolidation_is_solid_but_for_its_bronchi(scene):
    _, after, lungs = paint(scene, CONSOLIDATION)
    solid = lungs & (tube_coverage(scene.subject.trees.airways, scene.grid, scene.lobes) == 0)
    assert (after[solid] > -100).float().mean() > 0.99
    bronchi = lungs & (scene.airways > 0)
    assert bronchi.any()
    assert after[bronchi].median() < -700


def test_micronodules_are_small_and_many(scene):
    before, after, lungs = paint(scene, MICRONODULES)
    changed = (after - before)[lungs] > 50
    assert 0.005 < changed.float().mean() < 0.25
    assert (after >= before).all()


def test_reticulation_is_lines_in_aerated_lung(scene):
    before, after, lungs = paint(scene, RETICULATION)
    assert (after >= before - 1).all()
    assert (after - before)[lungs].std() > 80
    assert (after[lungs] < -500).float().mean() > 0.3


def test_honeycombing_is_air_and_walls(scene):
    _, after, lungs = paint(scene, HONEYCOMBING)
    assert (after[lungs] < -850).float().mean() > 0.15
    assert (after[lungs] > -400).float().mean() > 0.15


@pytest.mark.parametrize("pattern", [HONEYCOMBING, RETICULATION])
def test_fibrosis_lies_below_the_pleura(scene, pattern):
    deep = shallow = 0.0
    for seed in range(12):
        share = replace(draw_extent(Draws(seed), pattern), level=-3.0).share(scene)
        shallow += share[(scene.pleura_mm > 0) & (scene.pleura_mm < 5)].mean().item()
        deep += share[scene.pleura_mm > 35].mean().item()
    assert shallow > 3 * deep


def test_a_lobe_is_filled_now_and_then(scene):
    lobes = {draw_extent(Draws(seed), CONSOLIDATION).lobe for seed in range(80)}
    assert lobes == {0, 1, 2, 3, 4, 5}
    field = Draws(0).smooth_field(30.0)
    filled = Extent(field, field, 0.0, 0.0, math.inf, 0.1, lobe=4).share(scene)
    assert torch.equal(filled > 0.5, scene.lobes == 4)


def test_all_patterns_occur_and_some_subjects_are_healthy():
    assert sum(often for often, _ in PICTURES) >= 1
    drawn = [tuple(pattern for pattern, _, _ in draw_patterns(Draws(seed))) for seed in range(60)]
    assert {pattern for each in drawn for pattern in each} == set(PRIORITY)
    assert () in drawn


def test_labels_cover_the_lungs(scene):
    healthy = scene.hu.clone()
    label = ILDPatterns().paint(scene, Draws(3))
    assert label.dtype == torch.uint8
    assert not label[scene.lobes == 0].any()
    left_out = (label == 0) & (scene.lobes > 0)
    assert left_out.sum() < 0.1 * (scene.lobes > 0).sum()
    assert set(label.unique().tolist()) == {0, HEALTHY, RETICULATION, HONEYCOMBING}
    changed = (scene.hu - healthy).abs() > 1
    assert changed.any()
    assert not changed[(label == HEALTHY) & (scene.pleura_mm > 8)].float().mean() > 0.2


def test_thin_slices_far_apart_are_those_of_a_volume(subject):
    """Painted alone, as with what lies between them."""
    shape, spacing, scanner = (90, 70, 3), (3.0, 3.0, 12.0), Scanner(slice_mm=1.2)
    gapped = ScanGrid(shape, spacing, scanner).painted()
    assert gapped.shape == shape
    assert gapped.spacing_mm == pytest.approx((3.0, 3.0, 1.2))
    whole = centred_grid((90, 70, 21), (3.0, 3.0, 1.2))
    assert torch.allclose(gapped.z, whole.z[::10], atol=1e-4)
    alone, together = paint_scene(subject, gapped), paint_scene(subject, whole)
    assert torch.equal(alone.lobes, together.lobes[..., ::10])
    # A tube is drawn as points, and those that are near a slice are the same but for rounding.
    assert torch.allclose(alone.hu, together.hu[..., ::10], atol=2.0)
    assert (alone.vessels == together.vessels[..., ::10]).float().mean() > 0.9999


def test_thick_or_turned_slices_are_painted_through():
    for scanner in (Scanner(slice_mm=5.0), Scanner(slice_mm=1.2, turn_degrees=(4.0, 0.0, 0.0))):
        assert len(ScanGrid((20, 20, 3), (3.0, 3.0, 12.0), scanner).painted().z) > 3


def test_an_annotation_is_part_of_the_truth_on_a_few_slices():
    label = torch.ones(60, 50, 40, dtype=torch.uint8)
    label[20:40, 10:40], label[:, :, :3] = 5, 0
    spacing_mm = (1.0, 2.0, 1.5)
    drawn = [draw_annotation(label, spacing_mm, Draws(seed)) for seed in range(6)]
    for annotation in drawn:
        known = annotation > 0
        assert torch.equal(annotation[known], label[known])
        slices = known.flatten(0, 1).any(dim=0).nonzero().flatten()
        assert (slices.diff() * spacing_mm[2] >= 9.9).all()
        assert known.float().mean() < 0.1
    seen = torch.stack(drawn)
    assert set(seen.unique().tolist()) == {0, 1, 5}
    assert not seen[:, 20, 10:40].any()  # the border of a region is not drawn


def test_slices_that_lie_far_apart_are_annotated_one_by_one():
    label = torch.ones(40, 40, 12, dtype=torch.uint8)
    annotation = torch.stack([draw_annotation(label, (2.0, 2.0, 13.0), Draws(seed)) for seed in range(5)])
    assert 0.3 < annotation.flatten(0, 2).any(dim=0).float().mean() <= 1
    assert annotation.any(dim=1).any(dim=1).float().mean() < 0.9


def test_annotations_lie_on_the_grid_of_the_labels(tmp_path):
    full = np.zeros((30, 40, 26), dtype=np.uint8)
    full[3:27, 4:38, 4:22] = 3
    affine = np.array([[0, 0, -1.5, 20], [2.0, 0, 0, -30], [0, -12.0, 0, 100], [0, 0, 0, 1]])
    (tmp_path / ILDPatterns.name).mkdir()
    nib.save(nib.Nifti1Image(full, affine), tmp_path / ILDPatterns.name / "phantom_00000.nii.gz")
    write_annotations(tmp_path, ["phantom_00000"])
    path = tmp_path / ANNOTATIONS / "phantom_00000.nii.gz"
    drawn, written = nib.load(path), path.read_bytes()
    assert np.allclose(drawn.affine, affine)
    label = np.asarray(drawn.dataobj)
    assert label.any()
    assert (label[label > 0] == full[label > 0]).all()
    write_annotations(tmp_path, ["phantom_00000"])
    assert path.read_bytes() == written
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_most_scans_have_thin_slices_far_apart():
    exam = Exam((150, 150, 60), (2.0, 2.0, 5.0), Scanner(slice_mm=5.0, turn_degrees=(3.0, 0.0, 0.0)), "RAS")
    scans = [high_resolution(exam, Draws(seed)) for seed in range(60)]
    gapped = [scan for scan in scans if scan.spacing_mm[2] >= 10]
    assert 45 < len(gapped) < 60
    for scan in scans:
        for count, step, extent in zip(scan.shape, scan.spacing_mm, (300, 300, 300), strict=True):
            assert count * step == pytest.approx(extent, abs=step)
        assert scan.axes == "RAS"
        assert (scan.scanner.slice_mm <= 1.5) == (scan in gapped)
    assert all(ScanGrid(scan.shape, scan.spacing_mm, scan.scanner).gap_mm > 8 for scan in gapped)
    assert [disease.name for disease in draw_ild(Draws(0))] == ["ild_patterns"]
