"""Normal lung of the phantom against normal lung as measured."""

import numpy as np
import pytest

from pulmozoo.phantom import thorax
from pulmozoo.phantom.realism import lung_patches, patch_numbers
from pulmozoo.phantom.scanner import Scanner

# Means over 370 axial patches of 31 x 31 pixels of about 0.65 mm from inspiratory CT of smokers, labelled normal by
# experts: HU, and the autocorrelation at 1, 2, 4 and 8 pixels.
MEAN_HU = -851
AUTOCORRELATION = {1: 0.80, 2: 0.48, 4: 0.14, 8: 0.04}


@pytest.fixture(scope="module")
def normal_lung():
    """The numbers of patches of three chests, their mean over the chests."""
    chests = []
    for seed in (1, 5, 6):
        scan = thorax(seed, (420, 250, 1), (0.65, 0.65, 1.0), scanner=Scanner(blur_mm=0.5, noise_hu=14.0))
        chests.append(patch_numbers(lung_patches(scan["ct_hu"].numpy(), scan["lobes"].numpy())))
    return {name: float(np.mean([chest[name] for chest in chests])) for name in chests[0]}


def test_normal_lung_has_the_measured_density(normal_lung):
    assert normal_lung["mean_hu"] == pytest.approx(MEAN_HU, abs=25)
    assert normal_lung["sd_hu"] == pytest.approx(117, abs=25)


@pytest.mark.parametrize("lag_px", AUTOCORRELATION)
def test_normal_lung_has_the_measured_texture(normal_lung, lag_px):
    assert normal_lung[f"autocorrelation_{lag_px}"] == pytest.approx(AUTOCORRELATION[lag_px], abs=0.1)
