import copy

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from pulmozoo.inferers import shared_levels
from pulmozoo.inferers.shared_levels import SharedLevels
from pulmozoo.inferers.two_stage import Tiles, TwoStageInferer, tiles_in_box
from pulmozoo.networks.ctsunet import MARGIN, CTSUNet

WHOLE = ((0, 256), (0, 256), (0, 256))


@pytest.fixture(scope="module")
def network() -> CTSUNet:
    torch.manual_seed(0)
    network = CTSUNet(width=0.1).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
    return network


@pytest.fixture(scope="module")
def padded() -> Tensor:
    """A scan of 48 x 64 x 32 voxels in its frame."""
    return torch.rand(1, 8, *(n + 2 * MARGIN for n in (48, 64, 32)), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("slab", [6, 32])
@pytest.mark.parametrize("tile", [92, 100, 116])
def test_equals_each_tile_by_itself(network, padded, tile, slab, monkeypatch):
    monkeypatch.setattr(shared_levels, "SLAB", slab)
    starts = tiles_in_box((48, 64, 32), tile - 88, ((8, 48), (13, 50), (0, 32)))
    chosen = [starts[0], starts[-1], starts[len(starts) // 2]]
    with torch.no_grad():
        expected = Tiles(network, padded, tile)(chosen)
        ours = SharedLevels(network, padded, starts, tile)(chosen)
    assert ours.shape == expected.shape == (3, 7, *[tile - 88] * 3)
    assert torch.allclose(ours, expected, atol=1e-5)
    assert (expected[0] - expected[1]).abs().max() > 1e-3  # tiles differ, so a wrong place would show


def test_channels_last_gives_the_same(network, padded):
    last = copy.deepcopy(network).to(memory_format=torch.channels_last_3d)
    framed = padded.contiguous(memory_format=torch.channels_last_3d)
    with torch.no_grad():
        ours = SharedLevels(last, framed, [(0, 0, 0), (4, 20, 4)], 92)([(4, 20, 4)])
        assert torch.allclose(ours, Tiles(network, padded, 92)([(4, 20, 4)]), atol=1e-5)


def test_whole_scan_gives_the_same_probabilities(network):
    image = torch.rand(1, 1, 48, 64, 48, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        shared, single = (TwoStageInferer(116, share_levels=share)(image, network) for share in (True, False))
    assert single.any()
    assert (shared - single).abs().max() <= 1e-4


@pytest.mark.parametrize(("released", "least"), [(True, 2.3), (False, 2.6)], ids=["released", "paper"])
def test_multiply_adds_of_a_full_scan(released, least):
    """Counted on a scan of 256 cubed voxels without memory behind them."""
    starts = tiles_in_box((256, 256, 256), 44, WHOLE)
    with FakeTensorMode(), torch.no_grad():
        network = CTSUNet(released_widths=released, slot_norm=released).eval()
        padded = torch.empty(1, 8, *[256 + 2 * MARGIN] * 3)
        with FlopCounterMode(display=False) as single:
            Tiles(network, padded, 132)(starts[:1])
        with FlopCounterMode(display=False) as shared:
            tiles = SharedLevels(network, padded, starts, 132)
            encoder = shared.get_total_flops()
            tiles(starts[:1])
    each = shared.get_total_flops() - encoder
    assert len(starts) * single.get_total_flops() / (encoder + len(starts) * each) >= least
