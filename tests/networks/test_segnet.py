import pytest
import torch
from torch import nn

from box_filter import parameters, without_gradient
from pulmozoo.networks.segnet import SegNet


def test_parameters():
    with torch.device("meta"):
        network = SegNet()
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 26
    assert sum(map(parameters, convolutions)) == 29_429_446
    assert parameters(network) == 29_445_318


def test_volume_is_its_slices():
    torch.manual_seed(0)
    network = SegNet().eval()
    volume = torch.rand(1, 1, 2, 64, 96)
    with torch.no_grad():
        answer = network(volume)
        assert answer.shape == (1, 6, 2, 64, 96)
        assert torch.allclose(answer[:, :, 1], network(volume[:, :, 1]), atol=1e-4)


def test_every_parameter_has_a_gradient():
    torch.manual_seed(0)
    network = SegNet()
    assert without_gradient(network, network(torch.rand(1, 1, 64, 64))) == []


def test_wrong_plane_names_the_next_that_works():
    with torch.device("meta"), pytest.raises(ValueError, match=r"divisible by 32, got \(64, 80\): pad to \(64, 96\)"):
        SegNet()(torch.zeros(1, 1, 64, 80))
