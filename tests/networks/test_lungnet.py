from math import sqrt

import pytest
import torch
from torch import nn

from box_filter import box_filtered, gigamacs, parameters, sawtooth, without_gradient
from pulmozoo.networks.lungnet import DILATIONS, HalfDropout, LungNet, SkipNorm, SliceNorm

NO_DILATION = {"dilations": (1,) * 10}
EXPONENTIAL = {"dilations": (1, 1, 2, 4, 8, 16, 32, 64)}
NINE_LAYERS = {"dilations": DILATIONS[:-1]}


def shapes_only(options) -> LungNet:
    with torch.device("meta"):
        return LungNet(**options)


@pytest.mark.parametrize(
    ("options", "count", "gmacs"),
    [
        ({}, 130_056, 33.714),
        (NO_DILATION, 130_056, 33.714),
        ({"normalisation": "plain"}, 130_056, 33.714),
        ({"normalisation": None}, 129_094, 33.714),
        ({"concatenate": False}, 93_064, 24.017),
        ({"kernels": 16}, 46_744, 12.000),
        (EXPONENTIAL, 103_240, 26.734),
        (NINE_LAYERS, 116_648, 30.224),
        ({"kernels": 64}, 421_096, 109.757),
    ],
    ids=str,
)
def test_parameters_and_multiply_adds(options, count, gmacs):
    network = shapes_only(options)
    assert parameters(network) == count
    assert gigamacs(network, 1, 1, 512, 512) == pytest.approx(gmacs, rel=1e-4)


@pytest.mark.parametrize(
    ("options", "mean", "std", "corner", "centre"),
    [
        ({}, 1.670057, 2.053034, 0.0, 5.093080),
        ({"concatenate": False}, 1.104576, 2.507465, 0.0, 0.0),
        ({"normalisation": None}, 0.284830, 0.049957, 0.098619, 0.341396),
        ({"normalisation": "plain"}, 0.374901, 0.801975, 0.0, 0.0),
        (EXPONENTIAL, 1.545427, 2.028831, 0.0, 2.518182),
        (NINE_LAYERS, 1.731779, 2.113706, 0.0, 5.541716),
    ],
    ids=str,
)
def test_box_filter(options, mean, std, corner, centre):
    with torch.no_grad():
        logits = box_filtered(LungNet(**options))(sawtooth(1, 1, 48, 40))[0]
    assert logits.shape == (6, 48, 40)
    assert torch.allclose(logits, logits[:1].expand_as(logits), atol=1e-5)
    found = torch.tensor([logits.mean(), logits.std(), logits[0, 0, 0], logits[0, 24, 20]])
    assert found.tolist() == pytest.approx([mean, std, corner, centre], abs=5e-6)


@pytest.mark.parametrize(
    ("options", "field"), [({}, 287), (EXPONENTIAL, 257), (NINE_LAYERS, 177), (NO_DILATION, 21)], ids=str
)
def test_receptive_field_is_the_support_of_the_gradient(options, field):
    """Without norm, whose statistics see all, and with weights above 0, so that nothing cancels; one row is enough."""
    network = box_filtered(LungNet(kernels=4, normalisation=None, **options))
    row = torch.ones(1, 1, 1, 301, requires_grad=True)
    network(row)[0, 0, 0, 150].backward()
    reached = row.grad.flatten().nonzero().flatten()
    half = field // 2
    assert (int(reached[0]), int(reached[-1])) == (150 - half, 150 + half)
    column = row.detach().transpose(2, 3).clone().requires_grad_()
    network(column)[0, 0, 150, 0].backward()
    assert torch.equal(column.grad.flatten(), row.grad.flatten())


def test_skip_norm_by_hand():  # 0 and 2: mean 1, variance 1, so x + (x - 1) / sqrt(1.001)
    layer = SkipNorm(1)
    step = 1 / sqrt(1.001)
    answer = layer(torch.tensor([0.0, 2.0]).reshape(1, 1, 1, 2)).flatten().tolist()
    assert answer == pytest.approx([-step, 2 + step])


@pytest.mark.parametrize("normalisation", ["skip", "plain"])
def test_slices_do_not_mix(normalisation):
    """Neither in training nor after; the slices differ in mean and spread by far."""
    torch.manual_seed(0)
    network = LungNet(kernels=4, normalisation=normalisation)
    network.dropout = nn.Identity()
    volume = torch.rand(2, 1, 3, 17, 22) * torch.tensor([1.0, 5.0, 0.1])[:, None, None]
    for mode in (True, False):
        network.train(mode)
        with torch.no_grad():
            together = network(volume)
            assert together.shape == (2, 6, 3, 17, 22)
            for index in range(3):
                assert torch.allclose(together[:, :, index], network(volume[:, :, index]), atol=1e-4)
            assert torch.allclose(together[1:, :, 1], network(volume[1:, :, 1]), atol=1e-4)


def test_every_parameter_has_a_gradient():
    torch.manual_seed(0)
    network = LungNet(kernels=4)
    # What comes before an instance norm cannot move the mean, so biases of convolutions are reached by the skip alone.
    assert without_gradient(network, network(torch.rand(1, 1, 19, 24))) == []


def test_convolutions_start_as_he_proposed():
    convolution = LungNet().blocks[4][0]
    assert convolution.weight.std().item() == pytest.approx(sqrt(2 / (9 * 32)), rel=0.05)
    assert not any(module.bias.any() for module in LungNet().modules() if isinstance(module, nn.Conv2d))


def test_dropout_acts_in_training_alone():
    torch.manual_seed(0)
    network, image = LungNet(kernels=4), torch.rand(1, 1, 19, 24)
    with torch.no_grad():
        assert not torch.equal(network(image), network(image))
        network.eval()
        assert torch.equal(network(image), network(image))


def test_all_maps_reach_the_head_in_bfloat16_channels_last():
    """Which the input, a single float32 channel of no layout, would prevent."""
    network = LungNet(kernels=4).to(memory_format=torch.channels_last)
    seen = []
    network.dropout.register_forward_pre_hook(lambda _, args: seen.extend(args))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        network(torch.rand(1, 1, 19, 24))
    assert seen[0].dtype == torch.bfloat16
    assert seen[0].shape == (1, 41, 19, 24)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


def test_unknown_normalisation_is_named():
    with pytest.raises(ValueError, match="must be 'skip', 'plain' or None, got 'batch'"):
        LungNet(normalisation="batch")


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_dropout_of_a_half(layout):
    """Half of the values vanish, each by itself, and the others are doubled."""
    torch.manual_seed(0)
    x = torch.rand(1, 21, 30, 41).contiguous(memory_format=layout) + 1
    dropped = HalfDropout()(x)
    kept = dropped > 0
    assert torch.equal(dropped[kept], 2 * x[kept])
    assert kept.float().mean().item() == pytest.approx(0.5, abs=0.01)
    assert kept.float().mean(dim=(0, 2, 3)).std() < 0.03
    assert kept.float().mean(dim=(0, 1)).std() < 0.15
    assert dropped.is_contiguous(memory_format=layout)
    assert torch.equal(HalfDropout().eval()(x), x)


def test_norm_of_one_slice_is_that_of_many():
    torch.manual_seed(0)
    norm, x = SliceNorm(3), torch.randn(4, 3, 7, 9) * torch.tensor([1.0, 20.0, 0.1, 3.0])[:, None, None, None]
    nn.init.uniform_(norm.weight)
    alone = torch.cat([norm(part) for part in x.split(1)])
    assert torch.allclose(norm(x), alone, atol=1e-5)
