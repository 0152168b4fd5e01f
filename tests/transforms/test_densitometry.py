from pathlib import Path

import pytest
import torch

from pulmozoo.transforms.densitometry import (
    densitometry,
    density_histograms,
    density_numbers,
    in_slice_noise,
    kernel_warning,
    second_difference,
)
from pulmozoo.transforms.lungs import lungs_from_ct
from pulmozoo.transforms.reading import read_ct

SHELF = Path(__file__).parents[3] / "shared" / "data" / "lung-pet-ct-dx-a0001"
CT_HU = torch.tensor([-1024, -951, -950, -911, -910, -850, -850, -800, -700, -600, 40, 40], dtype=torch.int16)
LUNG = torch.tensor([1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 0, 0], dtype=torch.uint8)


def test_densitometry_by_hand():
    """Ten voxels of a quarter mL: strictly below -950 two of them, below -910 four; the second darkest makes 15 %."""
    assert densitometry(CT_HU, LUNG, voxel_ml=0.25) == {
        "volume_ml": 2.5,
        "mean_hu": -854.6,
        "laa950_percent": 20.0,
        "laa910_percent": 40.0,
        "perc15_hu": -951,
    }


def test_each_label_is_counted_apart():
    histograms = density_histograms(CT_HU, LUNG, 4)
    assert histograms.sum(dim=1).tolist() == [0, 5, 5, 0]
    left, right = (density_numbers(histograms[label], 1.0) for label in (1, 2))
    assert (left["laa910_percent"], left["perc15_hu"], left["mean_hu"]) == (80.0, -1024, -949.2)
    assert (right["laa910_percent"], right["perc15_hu"], right["mean_hu"]) == (0.0, -850, -760.0)


def test_percentile_is_that_of_numpy():
    torch.manual_seed(0)
    ct_hu = (torch.randn(5000) * 60 - 870).round().clamp(-1024, 0).to(torch.int16)
    expected = int(torch.quantile(ct_hu.float(), 0.15, interpolation="lower"))
    assert densitometry(ct_hu, torch.ones(5000), 1.0)["perc15_hu"] == expected


def test_absent_part_has_a_volume_alone():
    numbers = densitometry(CT_HU, torch.zeros_like(LUNG), voxel_ml=0.25)
    assert numbers == {
        "volume_ml": 0.0,
        "mean_hu": None,
        "laa950_percent": None,
        "laa910_percent": None,
        "perc15_hu": None,
    }


def test_second_difference_by_hand():
    x = torch.tensor([[0.0, 1, 4, 9, 16], [3, 3, 3, 3, 0]])
    assert second_difference(x, 1).tolist() == [[2, 2, 2], [0, 0, -3]]


def noisy(sigma: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Lungs that darken from front to back, with vessels and white noise, in a bright body."""
    torch.manual_seed(0)
    ct_hu = (-800 - 2.0 * torch.arange(40)[None, :, None] + sigma * torch.randn(12, 40, 50)).round()
    ct_hu[:, ::9, ::9] += 500
    lungs = torch.zeros(12, 40, 50, dtype=torch.uint8)
    lungs[2:11, 3:37, 3:24], lungs[2:11, 3:37, 26:47] = 1, 2
    ct_hu[lungs == 0] = 40
    return ct_hu.to(torch.int16), lungs


@pytest.mark.parametrize("sigma", [5.0, 30.0])
def test_noise_is_measured_in_spite_of_gradient_vessels_and_body(sigma):
    noise = in_slice_noise(*noisy(sigma))
    assert sigma <= noise < 1.35 * sigma  # a vessel touches one in nine places
    assert in_slice_noise(noisy(sigma)[0], torch.zeros(12, 40, 50)) is None


def test_noise_is_that_of_the_slices():
    """Slices that differ as a whole are no noise, rows that differ are."""
    ct_hu, lungs = torch.full((12, 40, 50), -850.0), torch.ones(12, 40, 50)
    ct_hu[::2] += 100
    assert in_slice_noise(ct_hu, lungs) == 0
    checks = (torch.arange(40)[:, None] + torch.arange(50)) % 2
    assert in_slice_noise(ct_hu + 10.0 * checks, lungs) == pytest.approx(10 * 8 / (0.6745 * 6))


def test_warning_names_noise_and_limit():
    assert kernel_warning(15.0, 0.8) is None
    assert kernel_warning(None, 0.8) is None
    assert kernel_warning(28.0, 3.0) is None  # vessels look like noise in large pixels
    warning = kernel_warning(28.2, 0.8)
    assert "28 HU of noise" in warning
    assert warning.endswith("more than 15, so LAA-950, LAA-910 and Perc15 are unreliable; use a smooth reconstruction")


@pytest.mark.skipif(not SHELF.is_dir(), reason=f"the shelf with real scans is not there ({SHELF})")
@pytest.mark.parametrize(("kernel", "noise_hu", "warns"), [("B", 3.0, False), ("L", 27.9, True)])
def test_sharp_kernel_of_a_real_scan_is_told(kernel, noise_hu, warns):
    scan = read_ct(SHELF / f"ct_kernel_{kernel}.nii.gz")
    ct_hu = scan.as_tensor()[0]
    lungs = torch.from_numpy(lungs_from_ct(ct_hu, scan.affine))
    noise = in_slice_noise(ct_hu.movedim(2, 0), lungs.movedim(2, 0))
    assert noise == pytest.approx(noise_hu, rel=0.1)
    assert (kernel_warning(noise, 0.84) is not None) is warns
