"""Where a scan's voxels lie: the same place in the patient whatever the slices, the turn and the centre."""

import pytest
import torch

from pulmozoo.phantom.scan_grid import ScanGrid, slice_profile
from pulmozoo.phantom.scanner import Scanner

SHAPE, SPACING_MM = (31, 26, 9), (2.0, 2.5, 6.0)
PLACES = {
    "straight": Scanner(slice_mm=6.0),
    "shifted": Scanner(slice_mm=6.0, centre_mm=(7.0, -9.0, 11.0)),
    "turned": Scanner(slice_mm=6.0, turn_degrees=(9.0, -5.0, 12.0)),
    "both": Scanner(slice_mm=6.0, centre_mm=(7.0, -9.0, 11.0), turn_degrees=(9.0, -5.0, 12.0)),
}


@pytest.mark.parametrize("name", PLACES)
def test_a_landmark_lies_where_the_affine_says(name):
    scan = ScanGrid(SHAPE, SPACING_MM, PLACES[name])
    x, y, z = scan.painted().coordinates()
    landmark = (8.0, -6.0, 5.0)  # to the left, to the front, up
    squared = (x - landmark[0]) ** 2 + (y - landmark[1]) ** 2 + (z - landmark[2]) ** 2
    image = scan.image((-squared / 50).exp()).double()
    index = torch.stack([(image * axis).sum() for axis in torch.meshgrid(*map(torch.arange, SHAPE), indexing="ij")])
    found = scan.affine() @ torch.cat([index / image.sum(), torch.ones(1)])
    torch.testing.assert_close(found[:3], torch.tensor([-8.0, 6.0, 5.0]).double(), atol=0.15, rtol=0)


@pytest.mark.parametrize("name", PLACES)
def test_labels_lie_on_the_image(name):
    scan = ScanGrid(SHAPE, SPACING_MM, PLACES[name])
    x, y, z = scan.painted().coordinates()
    ball = (x - 8) ** 2 + (y + 6) ** 2 + (z - 5) ** 2 < 14**2
    image, label = scan.image(ball.float()), scan.labels(ball.to(torch.uint8))
    assert image.shape == label.shape == SHAPE
    assert label.dtype == torch.uint8
    assert (image[label > 0] > 0.1).all()
    assert (image[label == 0] < 0.9).all()


def test_affine_of_a_straight_scan():
    affine = ScanGrid((3, 5, 2), (2.0, 3.0, 4.0), Scanner(centre_mm=(1.0, 0.0, 0.0))).affine()
    assert affine.tolist() == [[-2, 0, 0, 1], [0, -3, 0, 6], [0, 0, 4, -2], [0, 0, 0, 1]]


def test_turning_about_z_carries_left_to_posterior():
    affine = ScanGrid((3, 3, 3), (1.0, 1.0, 1.0), Scanner(turn_degrees=(0.0, 0.0, 90.0))).affine()
    torch.testing.assert_close(affine[:3, 0], torch.tensor([0.0, -1.0, 0.0]).double())


@pytest.mark.parametrize(
    ("spacing_mm", "steps"), [((0.7, 0.7, 1.0), 1), ((0.7, 0.7, 2.0), 2), ((0.7, 0.7, 5.0), 4), ((4.0, 5.0, 5.0), 1)]
)
def test_thick_slices_are_painted_finely(spacing_mm, steps):
    scan = ScanGrid((4, 5, 6), spacing_mm, Scanner(slice_mm=spacing_mm[2]))
    assert scan.steps == steps
    assert scan.painted().spacing_mm == (*spacing_mm[:2], spacing_mm[2] / steps)


def test_a_slice_is_the_average_over_its_thickness():
    # Slices 5 mm thick every 5 mm; bone above the middle of the second of three: it fills half of that one.
    scan = ScanGrid((1, 1, 3), (1.0, 1.0, 5.0), Scanner(slice_mm=5.0))
    z = scan.painted().z
    bone = torch.where(z > 0, 1000.0, torch.where(z == 0, 500.0, 0.0))[None, None]
    torch.testing.assert_close(scan.image(bone).flatten(), torch.tensor([0.0, 500.0, 1000.0]), atol=25, rtol=0)
    assert scan.labels((bone > 600).to(torch.uint8)).flatten().tolist() == [0, 0, 1]  # the middle, not the average


def test_slices_may_overlap():
    scan = ScanGrid((1, 1, 7), (1.0, 1.0, 1.0), Scanner(slice_mm=5.0))
    z = scan.painted().z
    seen = scan.image((z == 0).float()[None, None]).flatten()
    torch.testing.assert_close(seen[1:6], torch.full((5,), 0.2), atol=0.06, rtol=0)


def test_profile_is_as_wide_as_the_slice():
    profile = torch.tensor(slice_profile(6.0, 0.5, 12))
    assert float(profile.sum()) == pytest.approx(1)
    assert torch.equal(profile, profile.flip(0))
    assert int((profile > profile.max() / 2).sum()) in (11, 12, 13)
    # A slice thinner than the painted steps is the slice painted at its middle.
    assert slice_profile(0.1, 1.0, 1) == pytest.approx([0, 1, 0], abs=1e-6)


def test_nothing_is_labelled_outside_the_circle():
    scan = ScanGrid((21, 21, 2), (1.0, 1.0, 1.0), Scanner(field_mm=20.0))
    label = scan.labels(torch.ones(scan.painted().shape, dtype=torch.uint8))
    assert label[10, :, 0].tolist() == [1] * 21
    assert label[0, 0, 0] == label[3, 2, 1] == 0
    assert float(label.float().mean()) == pytest.approx(3.1416 * 10**2 / 21**2, abs=0.03)


def test_a_slight_turn_hardly_moves_labels():
    straight, turned = (Scanner(slice_mm=6.0, turn_degrees=(degrees, 0.0, degrees)) for degrees in (0.0, 0.4))
    labels = []
    for scanner in (straight, turned):
        scan = ScanGrid((30, 27, 8), SPACING_MM, scanner)
        x, y, z = scan.painted().coordinates()
        labels.append(scan.labels((x**2 + y**2 + z**2 < 18**2).to(torch.uint8)))
    assert (labels[0] != labels[1]).float().mean() < 0.01
