import pytest
import torch
from torch import nn

from pulmozoo.blocks.aspp import ASPP


def adding(channels: int) -> ASPP:
    """All weights 1 and no norm: every branch adds up what it sees."""
    block = ASPP(channels, 1).eval()
    for module in block.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.ones_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0
    return block


def test_each_branch_sees_as_far_as_its_dilation():
    impulse = torch.zeros(1, 1, 45, 47)
    impulse[..., 20, 23] = 1
    block = adding(1)
    with torch.no_grad():
        seen = [{tuple(place) for place in branch(impulse)[0, 0].nonzero().tolist()} for branch in block.branches]
        out = block(impulse)
    assert seen[0] == {(20, 23)}
    for places, reach in zip(seen[1:], (6, 12, 18), strict=True):
        assert places == {(20 + y, 23 + x) for y in (-reach, 0, reach) for x in (-reach, 0, reach)}
    mean = 1 / (45 * 47)
    assert out[0, 0, 20, 23].item() == pytest.approx(4 + mean)  # all four branches and the mean of the map
    assert out[0, 0, 20 - 6, 23 + 6].item() == pytest.approx(1 + mean)
    assert out[0, 0, 0, 0].item() == pytest.approx(mean)


def test_half_of_the_answer_is_dropped_in_training():
    torch.manual_seed(0)
    block = ASPP(4, 64)
    nn.init.ones_(block.join[1].bias)
    nn.init.zeros_(block.join[1].weight)  # ones before the dropout, 0 or 2 after it
    out = block(torch.rand(2, 4, 8, 9))
    assert out.shape == (2, 64, 8, 9)
    assert set(out.unique().tolist()) == {0, 2}
    assert (out == 0).float().mean().item() == pytest.approx(0.5, abs=0.03)


def test_single_image_cannot_be_normalised_in_training():
    block = ASPP(4, 8)
    with pytest.raises(ValueError, match="batches of two images or more in training, got one: drop the last batch"):
        block(torch.rand(1, 4, 8, 8))
    assert block.eval()(torch.rand(1, 4, 8, 8)).shape == (1, 8, 8, 8)
