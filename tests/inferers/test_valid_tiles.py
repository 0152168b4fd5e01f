import pytest
import torch

from pulmozoo.inferers.valid_tiles import ValidTileInferer
from pulmozoo.networks.ctsunet import MARGIN


def middle(patch: torch.Tensor) -> torch.Tensor:
    """Six classes that grow with the voxel, without the margin that a network would lose."""
    inner = slice(MARGIN, -MARGIN)
    return torch.arange(6).reshape(1, 6, 1, 1, 1) * patch[:, :, inner, inner, inner]


@pytest.mark.parametrize("shape", [(30, 13, 12), (5, 25, 12), (4, 4, 4)])
@pytest.mark.parametrize("tile", [92, 100])
def test_every_voxel_gets_the_answer_of_its_own_place(shape, tile):
    scans = torch.rand(2, 1, *shape)
    found = ValidTileInferer(tile=tile)(scans, middle)
    wanted = (torch.arange(6).reshape(1, 6, 1, 1, 1) * scans).softmax(dim=1)
    assert found.dtype == torch.float32
    assert torch.allclose(found, wanted)


def test_the_network_sees_the_scan_around_a_tile_and_zeros_around_the_scan():
    seen = []

    def network(patch: torch.Tensor) -> torch.Tensor:
        seen.append(patch)
        return middle(patch)

    scan = torch.ones(1, 1, 8, 4, 4)
    ValidTileInferer(tile=92)(scan, network)
    assert [patch.sum().item() for patch in seen] == [8 * 4 * 4] * 2  # the whole scan lies within both margins
    assert seen[0][0, 0, MARGIN : MARGIN + 8, MARGIN : MARGIN + 4, MARGIN : MARGIN + 4].all()
    assert seen[1][0, 0, MARGIN - 4 : MARGIN + 4, MARGIN : MARGIN + 4, MARGIN : MARGIN + 4].all()
