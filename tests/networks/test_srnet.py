from typing import Any

import pytest
import torch
from torch import nn

from box_filter import box_filtered, gigamacs, parameters, sawtooth, without_gradient
from pulmozoo.networks.sr_unet import SRUNet
from pulmozoo.networks.srnet import SRNet
from pulmozoo.networks.unet2d import UNet2d

NETWORKS = {
    "SR-Net": (SRNet, {}, 8),
    "SR-Net, half as wide": (SRNet, {"width": 0.5}, 8),
    "2D-Net": (SRNet, {"depth": 1}, 1),
    "SR-UNet 64": (SRUNet, {}, 8),
    "SR-UNet 32": (SRUNet, {"base": 32}, 8),
    "2D-UNet": (UNet2d, {"norm": None}, 1),
    "2D-UNet BN": (UNet2d, {"norm": "batch"}, 1),
}


def shapes_only(name: str) -> nn.Module:
    kind, options, _ = NETWORKS[name]
    with torch.device("meta"):
        return kind(**options)


@pytest.mark.parametrize(
    ("name", "count", "gmacs"),
    [
        ("SR-Net", 2_008_200, 42.378),
        ("SR-Net, half as wide", 505_352, 10.949),
        ("2D-Net", 1_066_728, 13.454),
        ("SR-UNet 64", 68_712_641, 398.259),
        ("SR-UNet 32", 17_181_793, 100.077),
        ("2D-UNet", 31_030_593, 108.207),
        ("2D-UNet BN", 31_036_481, 108.207),
    ],
)
def test_parameters_and_multiply_adds(name, count, gmacs):
    network = shapes_only(name)
    assert parameters(network) == count
    assert gigamacs(network, 1, 1, NETWORKS[name][2], 384, 384) == pytest.approx(gmacs, rel=1e-3)


def test_parameters_of_each_stage():
    network = shapes_only("SR-Net")
    assert [parameters(block) for block in network.encoder] == [7_840, 84_336, 264_512]
    assert [parameters(block) for block in network.down] == [14_354, 84_066, 334_018]
    assert parameters(network.bottom) == 624_400
    assert [parameters(block) for block in network.up] == [172_672, 98_624, 26_784]
    assert [parameters(block) for block in network.decoder] == [198_848, 76_560, 21_088]
    assert parameters(network.head) == 98


@pytest.mark.parametrize(
    ("name", "mean", "std", "first", "centre"),
    [
        ("SR-Net", 0.458745, 0.048751, 0.186781, 0.476171),
        ("2D-Net", 0.495143, 0.067170, 0.200303, 0.595200),
        ("SR-UNet 64", 0.345795, 0.064527, 0.055125, 0.379032),
    ],
)
def test_box_filter(name, mean, std, first, centre):
    kind, options, depth = NETWORKS[name]
    with torch.no_grad():
        answer = box_filtered(kind(**options))(sawtooth(1, 1, depth, 64, 64))
    assert answer.shape == (1, 1, 1, 64, 64)
    plane = answer[0, 0, 0]
    found = [plane.mean(), plane.std(), plane[0, 0], plane[32, 32]]
    assert torch.tensor(found).tolist() == pytest.approx([mean, std, first, centre], abs=2e-6)


@pytest.mark.parametrize(("kind", "multiple"), [(SRNet, 8), (SRUNet, 16)])
def test_planes_of_unequal_sizes_and_their_limits(kind, multiple):
    with torch.device("meta"):
        network = kind()
        assert network(torch.zeros(2, 1, 8, 3 * multiple, 5 * multiple)).shape == (2, 1, 1, 3 * multiple, 5 * multiple)
        with pytest.raises(
            ValueError, match=rf"divisible by {multiple}, got \(41, {multiple}\): pad to \(48, {multiple}"
        ):
            network(torch.zeros(1, 1, 8, 41, multiple))
        for wrong in ((1, 1, 4, 64, 64), (1, 2, 8, 64, 64), (1, 8, 64, 64)):
            with pytest.raises(ValueError, match=r"must have shape \(B, 1, 8, H, W\), got"):
                network(torch.zeros(wrong))


def test_depth_is_that_of_the_paper_or_none():
    with pytest.raises(ValueError, match=r"must be 8 \(SR-Net\) or 1 \(2D-Net\), got 4"):
        SRNet(depth=4)


@pytest.mark.parametrize(
    ("kind", "options", "depth"),
    [(SRNet, {}, 8), (SRNet, {"depth": 1}, 1), (SRNet, {"width": 0.25}, 8), (SRUNet, {"base": 4}, 8)],
)
def test_every_parameter_has_a_gradient(kind, options: dict[str, Any], depth):
    torch.manual_seed(0)
    network = kind(**options)
    assert without_gradient(network, network(torch.rand(2, 1, depth, 32, 48))) == []


def test_every_slice_of_the_stack_counts_and_the_axes_are_not_mixed():
    torch.manual_seed(0)
    network = SRNet().eval()
    stack = torch.rand(1, 1, 8, 16, 24, requires_grad=True)
    network(stack).square().sum().backward()
    assert stack.grad.abs().amax(dim=(0, 1, 3, 4)).gt(0).all()
    with torch.no_grad():
        answer, turned = network(stack), network(stack.transpose(3, 4))
    assert turned.shape == (1, 1, 1, 24, 16)
    assert not torch.allclose(answer, turned.transpose(3, 4), atol=1e-3)


def test_samples_of_a_batch_do_not_mix():
    torch.manual_seed(0)
    network = SRNet().eval()
    stacks = torch.rand(2, 1, 8, 16, 24)
    with torch.no_grad():
        assert torch.allclose(network(stacks)[1:], network(stacks[1:]), atol=1e-5)
