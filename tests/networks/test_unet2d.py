import pytest
import torch

from box_filter import gigamacs, parameters, without_gradient
from pulmozoo.networks.unet2d import UNet2d


@pytest.mark.parametrize(("norm", "count"), [(None, 31_030_918), ("batch", 31_036_806), ("instance", 31_036_806)])
def test_parameters_with_six_classes(norm, count):
    with torch.device("meta"):
        network = UNet2d(out_channels=6, norm=norm)
    assert parameters(network) == count
    assert gigamacs(network, 1, 1, 512, 512) == pytest.approx(192.45, rel=1e-3)


@pytest.mark.parametrize("norm", [None, "batch", "instance"])
def test_every_parameter_has_a_gradient(norm):
    torch.manual_seed(0)
    network = UNet2d(norm=norm, base=4)
    assert without_gradient(network, network(torch.rand(2, 1, 32, 48))) == []


def test_volumes_are_segmented_slice_by_slice():
    torch.manual_seed(0)
    network = UNet2d(out_channels=6, norm="instance", base=4)
    volume = torch.rand(2, 1, 3, 32, 48)
    with torch.no_grad():
        answer = network(volume)
        assert answer.shape == (2, 6, 3, 32, 48)
        assert torch.allclose(answer[:, :, 2], network(volume[:, :, 2]), atol=1e-5)


def test_wrong_plane_names_the_next_that_works():
    with pytest.raises(ValueError, match=r"divisible by 16, got \(40, 64\): pad to \(48, 64\)"):
        UNet2d(base=4)(torch.zeros(1, 1, 3, 40, 64))
