import pytest
import torch
from torch import nn

from pulmozoo.blocks.scse import ScSE


@pytest.mark.parametrize("sse_channels", [2, 1])
def test_weights_of_channel_and_place_by_hand(sse_channels):
    """Channel means 1 and 3; the channel weights are sigmoid(1 + 3) and sigmoid(0), the place weights sigmoid(x0)."""
    block = ScSE(2, sse_channels)
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    x = torch.tensor([[[[0.0, 2.0]], [[3.0, 3.0]]]])
    with torch.no_grad():
        block.squeeze.weight[0] = 1
        block.excite.weight[0] = 1
        block.place.weight[:, 0] = 1
        out = block(x)
    by_channel = torch.tensor([4.0, 0.0]).sigmoid()[None, :, None, None]
    by_place = torch.tensor([0.0, 2.0]).sigmoid()
    assert torch.allclose(out, x * by_channel + x * by_place)


def test_one_place_map_or_one_for_each_channel():
    torch.manual_seed(0)
    x = torch.ones(1, 32, 4, 5)
    for sse_channels, maps in ((1, 1), (32, 32)):
        block = ScSE(32, sse_channels)
        nn.init.zeros_(block.excite.weight)
        nn.init.zeros_(block.excite.bias)
        assert len((block(x) - x / 2)[0, :, 2, 3].unique()) == maps


def test_channels_are_squeezed_sixteenfold_but_to_four_at_least():
    assert [ScSE(channels, 1).squeeze.out_channels for channels in (8, 64, 768)] == [4, 4, 48]
