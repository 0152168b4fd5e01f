"""The scanner: kernels, noise and artefacts on bodies whose answer is known."""

from dataclasses import replace

import pytest
import torch

from pulmozoo.bundle.errors import BadInput
from pulmozoo.phantom.acquisition import acquire
from pulmozoo.phantom.anatomy import draw_chest
from pulmozoo.phantom.artefacts import Marks, find_marks
from pulmozoo.phantom.fields import Draws, Points
from pulmozoo.phantom.scan_grid import ScanGrid
from pulmozoo.phantom.scanner import Scanner, draw_scanner

QUIET = Scanner(noise_hu=0.0, slice_mm=1.0)
SMOOTH = replace(QUIET, blur_mm=0.85, ramp=0.2)
SHARP = replace(QUIET, blur_mm=0.35, sharpening=1.2, ramp=0.7)
NOWHERE = Marks(torch.tensor([[900.0, 900.0, 900.0]]), None)


def scanned(hu, scanner, spacing_mm=(0.7, 0.7, 1.0), marks=NOWHERE, seed=0):
    """A scan of a body that is given by a function of x, y, z in mm."""
    scan = ScanGrid((96, 90, 12), spacing_mm, scanner)
    painted = scan.painted()
    volume = hu(*painted.coordinates()) + torch.zeros(painted.shape)
    return acquire(volume, scan, marks, Draws(seed)).float()


def water(x, y, z):
    return 0 * x


def edge(x, y, z):
    return torch.where(x > 0.35, 100.0, -100.0)


def hot_and_cold(x, y, z):
    return torch.where(x > 0, 9000.0, -3000.0)


def spectrum(noise):
    """Noise power at 0.1, 0.35 and 0.6 cycles per mm in the plane, each with its neighbours."""
    power = torch.fft.fft2(noise, dim=(0, 1)).abs().square().mean(dim=2)
    along_x, along_y = (torch.fft.fftfreq(count, d=0.7) for count in power.shape)
    per_mm = (along_x[:, None].square() + along_y.square()).sqrt()
    return [float(power[(per_mm - f).abs() < 0.05].mean()) for f in (0.1, 0.35, 0.6)]


def test_a_smooth_kernel_blurs_and_a_sharp_one_overshoots():
    smooth, sharp = (scanned(edge, scanner)[:, 45, 6] for scanner in (SMOOTH, SHARP))
    assert smooth.max() == 100
    assert smooth.min() == -100
    assert (smooth.abs() < 95).sum() >= 4
    assert sharp.max() > 115
    assert sharp.min() < -115
    assert torch.equal(sharp[:30], torch.full((30,), -100.0))


@pytest.mark.parametrize("scanner", [SMOOTH, SHARP, replace(SMOOTH, slice_mm=3.0)], ids=["smooth", "sharp", "overlap"])
def test_noise_has_the_sd_asked_for(scanner):
    noise = scanned(water, replace(scanner, noise_hu=20.0))
    assert float(noise.mean()) == pytest.approx(0, abs=1)
    assert float(noise[32:64, 30:60].std()) == pytest.approx(20, rel=0.08)


def test_noise_is_coloured_by_the_kernel():
    smooth, sharp = (spectrum(scanned(water, replace(scanner, noise_hu=60.0))) for scanner in (SMOOTH, SHARP))
    assert smooth[0] > 3 * smooth[1] > 9 * smooth[2]
    assert sharp[1] > 4 * sharp[0]
    assert sharp[2] > 1.5 * sharp[0]


@pytest.mark.parametrize(("slice_mm", "expected"), [(1.0, 0.0), (4.0, 0.8)])
def test_overlapping_slices_share_their_noise(slice_mm, expected):
    noise = scanned(water, replace(SMOOTH, noise_hu=60.0, slice_mm=slice_mm))
    neighbours = torch.corrcoef(torch.stack([noise[..., 5].flatten(), noise[..., 6].flatten()]))[0, 1]
    assert float(neighbours) == pytest.approx(expected, abs=0.12)


def test_noise_is_louder_in_the_middle_of_a_body():
    def body(x, y, z):
        return torch.where(x.square() + y.square() < 150**2, 0.0, -800.0)

    noise = scanned(body, replace(SMOOTH, noise_hu=20.0), spacing_mm=(4.0, 4.0, 1.0))
    middle, rim, corner = (
        float(part.std()) for part in (noise[43:53, 40:50], noise[13:17, 40:50], noise[:8, :8] + 800)
    )
    # By hand, with half of 0.019 per mm: exp(3.0) at the middle; mean of exp(3.0) and exp(1.9) at the rim; exp(0.7).
    assert middle == pytest.approx(20, rel=0.1)
    assert 1.1 < middle / rim < 1.4
    assert 2.5 < middle / corner < 3.7


def test_the_same_bits_whatever_the_threads():
    threads = torch.get_num_threads()
    scanner = replace(SHARP, noise_hu=30.0, streak_hu=20.0)
    first = scanned(edge, scanner)
    try:
        torch.set_num_threads(3 if threads == 1 else 1)
        assert torch.equal(first, scanned(edge, scanner))
    finally:
        torch.set_num_threads(threads)
    assert not torch.equal(first, scanned(edge, scanner, seed=1))


def test_streaks_lie_along_x_where_few_photons_come_through():
    def shoulders(x, y, z):
        return torch.where((z > 0) & (y.abs() < 40), 300.0, -900.0)

    scanner = replace(QUIET, streak_hu=50.0)
    streaks = scanned(shoulders, scanner, spacing_mm=(5.0, 5.0, 1.0)) - scanned(
        shoulders, QUIET, spacing_mm=(5.0, 5.0, 1.0)
    )
    assert not streaks[..., :5].any()
    above = streaks[:, 40:50, 8:]
    assert 20 < float(above.std()) < 60
    assert (above[1:] - above[:-1]).abs().mean() < 0.5 * (above[:, 1:] - above[:, :-1]).abs().mean()


def test_only_the_heart_moves():
    marks = Marks(torch.tensor([[20.0, 0.0, 0.0]]), None)
    still, moved = (scanned(edge, replace(QUIET, motion_mm=mm), (3.0, 3.0, 3.0), marks) for mm in (0.0, 4.0))
    changed = (still - moved).abs()
    assert changed.max() > 30
    assert not changed[:10].any()
    x, _, _ = ScanGrid((96, 90, 12), (3.0, 3.0, 3.0), QUIET).axes()
    assert not changed[(x - 20).abs() > 75].any()


def test_dense_contrast_and_metal_send_out_streaks():
    cava = torch.tensor([[-10.0, 5.0, -3.0], [-10.0, 5.0, 3.0]])
    scanner = replace(QUIET, cava_hu=800.0, slice_mm=0.5)
    contrast = scanned(water, scanner, marks=Marks(NOWHERE.heart, cava))
    scan = ScanGrid((96, 90, 12), (0.7, 0.7, 1.0), scanner)
    x, y, z = scan.axes()
    column = contrast[(x + 10).abs().argmin(), (y - 5).abs().argmin()]
    assert (column[z.abs() < 3] > 700).all()
    assert not contrast[..., z.abs() > 3.5].any()
    assert float(contrast[..., 6].std()) > 20
    assert not scanned(water, scanner).any()  # without contrast agent in the blood
    metal = scanned(water, replace(QUIET, metal_mm=((5.0, 5.0, 0.0),)))
    assert metal.max() > 2000


def test_outside_the_circle_is_padding():
    scan = scanned(water, replace(QUIET, field_mm=60.0, padding_hu=-3024))
    assert scan[0, 0].tolist() == [-3024] * 12
    assert scan[48, 45].tolist() == [0] * 12


def test_hu_stay_within_what_a_scanner_stores():
    scan = scanned(hot_and_cold, QUIET)
    assert (scan.min(), scan.max()) == (-1024, 3071)


def test_marks_are_found_again_in_the_upright_chest():
    chest = draw_chest(Draws(5))
    marks = find_marks(chest, enhanced=True)
    upright = torch.stack(chest.straighten(Points(marks.heart)), dim=1)[0]
    low, high = torch.tensor(chest.mediastinum.heart[0].bounds())
    torch.testing.assert_close(upright, (low + high) / 2, atol=0.5, rtol=0)
    assert (marks.cava[1:, 2] > marks.cava[:-1, 2]).all()
    assert find_marks(chest, enhanced=False).cava is None


def test_scanners_vary():
    scanners = [draw_scanner(Draws(seed), (0.7, 0.7, 3.0)) for seed in range(200)]
    assert all(0.5 <= s.slice_mm <= 10 and 3 < s.noise_hu <= 90 and 0.3 < s.blur_mm < 0.9 for s in scanners)
    assert {s.slice_mm > 3 for s in scanners} == {s.slice_mm < 3 for s in scanners} == {True, False}
    assert any(s.sharpening > 1 for s in scanners)
    assert any(s.metal_mm for s in scanners)
    assert sorted(s.noise_hu for s in scanners)[100] < 25


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [("slice_mm", 0.0, "must be above 0 mm, got 0.0"), ("noise_hu", -1.0, "must be at least 0, got -1.0")],
)
def test_an_impossible_scanner_is_named(field, value, sentence):
    with pytest.raises(BadInput, match=f"{field} of a scanner {sentence}"):
        Scanner(**{field: value})
