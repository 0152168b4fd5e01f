import pytest
import torch
from monai.networks.nets import ResNetFeatures
from torch import nn

from pulmozoo.blocks.slice_recovery import recover_slices, target_index


def test_target_is_the_same_slice_on_every_level():
    assert [target_index(depth) for depth in (8, 4, 2, 1)] == [4, 2, 1, 0]


def test_recovered_slices_by_hand():
    levels = [
        torch.arange(depth).float().reshape(1, 1, depth, 1, 1).expand(2, 3, depth, 5, 6) for depth in (8, 4, 2, 1)
    ]
    recovered = recover_slices(levels)
    assert [tuple(level.shape) for level in recovered] == [(2, 3, 1, 5, 6)] * 4
    assert [int(level[0, 0, 0, 0, 0]) for level in recovered] == [4, 2, 1, 0]


@pytest.mark.parametrize("depth", [8, 4])
def test_any_encoder_with_skips_takes_it(depth):
    """MONAI's 3D ResNet: from each of its five levels one slice, and gradients that go back."""
    encoder = ResNetFeatures("resnet10", pretrained=False, spatial_dims=3, in_channels=1)
    volume = torch.rand(1, 1, depth, 32, 48, requires_grad=True)
    recovered = recover_slices(encoder(volume))
    assert [level.shape[2] for level in recovered] == [1] * 5
    flat = [nn.functional.interpolate(level[:, :1, 0], (32, 48)) for level in recovered]
    torch.cat(flat, dim=1).sum().backward()
    assert volume.grad.any()
