from collections.abc import Sequence

import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from pulmozoo.inferers.two_stage import TwoStageInferer, box_around, near_lobes, tiles_in_box
from pulmozoo.networks.ctsunet import CTSUNet, probabilities

SHAPE = (32, 48, 64)


class Marked(CTSUNet):
    """Stage 1 takes bright voxels for a lobe; stage 2 answers the middle of its patch and where the patch began."""

    def __init__(self) -> None:
        super().__init__(width=0.1)
        self.calls: list[Tensor] = []

    def scan_logits(self, image: Tensor) -> Tensor:
        logits = torch.zeros(len(image), 7, *image.shape[2:])
        logits[:, 2:3] = (image > 0.5) * 8.0 - 4
        return logits

    def stage2(self, patch: Tensor, start: Tensor | Sequence[int], padded_scan_shape: Sequence[int]) -> Tensor:
        starts = torch.as_tensor(start).reshape(-1, 3)
        self.calls.append(starts)
        self.padded_scan_shape = tuple(padded_scan_shape)
        middle = patch[:, :7, 44:-44, 44:-44, 44:-44].clone()
        middle[:, 6] = starts[:, 0, None, None, None] / 10  # the border channel tells the tile
        return middle


@pytest.fixture
def marked() -> Marked:
    return Marked().eval()


@pytest.fixture(scope="module")
def tiny() -> CTSUNet:
    """A real network whose untrained stage 1 takes most of a scan for lobes."""
    torch.manual_seed(0)
    return CTSUNet(width=0.1).eval()


@pytest.fixture(scope="module")
def real_scan() -> Tensor:
    return torch.rand(1, 1, 32, 32, 48, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def answer(tiny, real_scan) -> Tensor:
    return infer(TwoStageInferer(132), real_scan, tiny)


def scan(*bright: tuple[slice, slice, slice], shape: tuple[int, ...] = SHAPE) -> Tensor:
    """A dark random scan with bright blocks."""
    image = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(0)) / 2
    for block in bright:
        image[(0, 0, *block)] += 0.5
    return image


def infer(inferer: TwoStageInferer, image: Tensor, network: nn.Module) -> Tensor:
    with torch.no_grad():
        return inferer(image, network)


def one_by_one(network: CTSUNet, image: Tensor, starts: Sequence[tuple[int, int, int]], tile: int) -> Tensor:
    """Mean of the given tiles, written as plainly as it goes: ``(7, D, H, W)``."""
    out = tile - 88
    depth, height, width = image.shape[2:]
    filled = [max(n, out) for n in (depth, height, width)]
    framed = torch.zeros(8, *(n + 88 for n in filled))
    total, count = torch.zeros(7, *filled), torch.zeros(filled)
    with torch.no_grad():
        stack = torch.cat([image, probabilities(network.scan_logits(image))], dim=1)
        framed[:, 44 : 44 + depth, 44 : 44 + height, 44 : 44 + width] = stack[0]
        for z, y, x in starts:
            patch = framed[None, :, z : z + tile, y : y + tile, x : x + tile]
            logits = network.stage2(patch, (z, y, x), framed.shape[1:])
            total[:, z : z + out, y : y + out, x : x + out] += probabilities(logits)[0]
            count[z : z + out, y : y + out, x : x + out] += 1
    return (total / count.clamp(min=1))[:, :depth, :height, :width]


def test_box_by_hand():
    foreground = torch.zeros(SHAPE, dtype=torch.bool)
    foreground[10, 20, 30] = foreground[12, 47, 1] = True
    assert box_around(foreground, margin=0) == ((10, 13), (20, 48), (1, 31))
    assert box_around(foreground) == ((8, 15), (18, 48), (0, 33))  # 2 voxels more, inside the scan
    assert box_around(torch.zeros(SHAPE, dtype=torch.bool)) is None


def test_tiles_far_from_the_lobes_are_left_out():
    foreground = torch.zeros(SHAPE, dtype=torch.bool)
    foreground[10, 20, 30] = True
    starts = tiles_in_box(SHAPE, 12, ((0, 32), (0, 48), (0, 64)))
    assert near_lobes(starts, 12, foreground, dilation=0) == [(0, 12, 24)]
    assert near_lobes(starts, 12, foreground, dilation=1) == [(0, 12, 24)]  # 24 to 36 and 12 to 24 stay out of reach
    assert near_lobes(starts, 12, foreground, dilation=2) == [(0, 12, 24), (12, 12, 24)]


def test_tiles_are_those_that_touch_the_box():
    # Starts of 12: 0 12 20 along depth, 0 12 24 36 along height, 0 12 24 36 48 52 along width.
    assert tiles_in_box(SHAPE, 12, ((0, 32), (24, 36), (51, 53))) == [(z, 24, x) for z in (0, 12, 20) for x in (48, 52)]
    assert tiles_in_box(SHAPE, 12, ((11, 12), (11, 13), (0, 1))) == [(0, 0, 0), (0, 12, 0)]
    assert len(tiles_in_box((256, 256, 256), 44, ((0, 256), (0, 256), (0, 256)))) == 216


def test_only_the_box_is_looked_at_and_answered(marked):
    image = scan((slice(13, 22), slice(20, 22), slice(2, 10)))
    result = infer(TwoStageInferer(share_levels=False, tile=100), image, marked)
    assert result.shape == (1, 7, *SHAPE)
    # With 2 voxels around it the box is 11 to 24, 18 to 24 and 0 to 12.
    assert torch.cat(marked.calls).tolist() == [[z, 12, 0] for z in (0, 12, 20)]
    inside = torch.zeros(SHAPE, dtype=torch.bool)
    inside[11:24, 18:24, 0:12] = True
    assert not result[..., ~inside].any()
    assert torch.allclose(result[:, :6, inside].sum(dim=1), torch.tensor(1.0))
    assert marked.padded_scan_shape == (120, 136, 152)


def test_overlaps_are_averaged(marked):
    result = infer(TwoStageInferer(share_levels=False, tile=100), scan((slice(None), slice(5), slice(5))), marked)
    border = result[0, 6, :, 5, 5]
    tiles = torch.tensor([0.0, 1.2, 2.0]).sigmoid()  # depth has tiles at 0, 12 and 20: two of them on 20 to 23
    expected = torch.cat([tiles[:1].expand(12), tiles[1:2].expand(8), tiles[1:].mean().expand(4), tiles[2:].expand(8)])
    assert torch.allclose(border, expected)


@pytest.mark.parametrize("batch", [1, 5])
def test_equals_tiles_one_by_one(marked, batch):
    image = scan((slice(4, 28), slice(14, 40), slice(10, 50)))
    starts = tiles_in_box(SHAPE, 12, ((2, 30), (12, 42), (8, 52)))
    assert len(starts) == 3 * 3 * 5
    expected = one_by_one(marked, image, starts, tile=100)
    marked.calls.clear()
    result = infer(TwoStageInferer(share_levels=False, tile=100, batch=batch), image, marked)[0]
    assert [len(call) for call in marked.calls] == [batch] * (45 // batch)
    assert torch.equal(result[:, 2:30, 12:42, 8:52], expected[:, 2:30, 12:42, 8:52])


def test_real_network_tile_by_tile(tiny, real_scan, answer):
    # Tiles of 44: depth and height are filled up to one, width has tiles at 0 and 4.
    with torch.no_grad():
        assert box_around(tiny.scan_logits(real_scan)[0, :6].argmax(dim=0) > 0) == ((0, 32), (0, 32), (0, 48))
    expected = one_by_one(tiny, real_scan, [(0, 0, 0), (0, 0, 4)], tile=132)
    assert torch.allclose(answer[0], expected, atol=1e-5)
    assert torch.allclose(answer[:, :6].sum(dim=1), torch.ones(1, 32, 32, 48), atol=1e-5)


def test_tiles_left_out_are_background(marked):
    image = scan((slice(2, 4), slice(2, 4), slice(2, 4)), (slice(28, 30), slice(44, 46), slice(60, 62)))
    every = infer(TwoStageInferer(share_levels=False, tile=100), image, marked)
    few = infer(TwoStageInferer(share_levels=False, tile=100, dilation=0), image, marked)
    assert few[..., :12, :12, :12].equal(every[..., :12, :12, :12])
    assert every[:, :6].any(dim=1)[..., 15, 20, 30].all()
    assert not few[..., 15, 20, 30].any()


def test_without_stage_2_the_answer_is_that_of_stage_1(tiny, real_scan):
    with torch.no_grad():
        expected = probabilities(tiny.scan_logits(real_scan))
    assert torch.allclose(infer(TwoStageInferer(refine=False), real_scan, tiny), expected, atol=1e-6)


def test_bfloat16_is_close(tiny, real_scan, answer):
    low = infer(TwoStageInferer(132, amp=True), real_scan, tiny)
    assert low.dtype == torch.float32
    assert not torch.equal(low, answer)
    assert (low - answer).abs().max() < 0.02


def test_odd_sizes_are_filled_at_the_front(marked):
    shape = (25, 47, 50)  # 32, 48 and 64 after 7, 1 and 14 voxels of zeros
    image = scan((slice(5, 9), slice(10, 14), slice(20, 24)), shape=shape)
    result = infer(TwoStageInferer(share_levels=False, tile=100), image, marked)
    assert result.shape == (1, 7, *shape)
    answered = result[0, :6].any(dim=0).nonzero()
    assert (answered.amin(dim=0).tolist(), answered.amax(dim=0).tolist()) == ([3, 8, 18], [10, 15, 25])
    assert {tuple(start) for call in marked.calls for start in call.tolist()} == {
        (z, y, x) for z in (0, 12) for y in (0, 12) for x in (24, 36)
    }
    whole = torch.zeros(1, 1, *SHAPE)
    whole[..., 7:, 1:, 14:] = image
    assert torch.equal(result, infer(TwoStageInferer(share_levels=False, tile=100), whole, marked)[..., 7:, 1:, 14:])


def test_scan_smaller_than_a_tile(marked):
    shape = (16, 16, 32)
    image = scan((slice(2, 16), slice(2, 16), slice(2, 30)), shape=shape)
    result = infer(TwoStageInferer(share_levels=False, tile=132), image, marked)
    assert result.shape == (1, 7, *shape)
    assert marked.padded_scan_shape == (132, 132, 132)
    assert torch.equal(torch.cat(marked.calls), torch.zeros(1, 3))
    with torch.no_grad():
        stack = torch.cat([image, probabilities(marked.scan_logits(image))], dim=1)
    stack[:, 6] = 0  # what the stub puts there: the first voxel of the tile
    assert torch.equal(result, probabilities(stack[:, :7]))


def test_scan_without_lobes_is_all_background(marked, caplog):
    result = infer(TwoStageInferer(share_levels=False, tile=100), scan(), marked)
    assert result.shape == (1, 7, *SHAPE)
    assert not result.any()
    assert not marked.calls
    assert "stage 1 found no lobes" in caplog.text


def test_scans_of_a_batch_have_boxes_of_their_own(marked):
    scans = [
        scan((slice(4, 8), slice(20, 22), slice(2, 10))),
        scan(),
        scan((slice(24, 28), slice(2, 4), slice(50, 60))),
    ]
    inferer = TwoStageInferer(share_levels=False, tile=100)
    together = infer(inferer, torch.cat(scans), marked)
    assert torch.equal(together, torch.cat([infer(inferer, image, marked) for image in scans]))
    assert together[0].any()
    assert not together[1].any()


def test_wrapped_network_and_meta_tensor_are_looked_through(marked):
    image = scan((slice(4, 8), slice(20, 22), slice(2, 10)))
    expected = infer(TwoStageInferer(share_levels=False, tile=100), image, marked)
    result = infer(TwoStageInferer(share_levels=False, tile=100), MetaTensor(image), nn.DataParallel(marked))
    assert not isinstance(result, MetaTensor)
    assert torch.equal(result, expected)


def test_other_networks_are_refused():
    with pytest.raises(TypeError, match="needs a CTSUNet, got Conv3d"):
        TwoStageInferer()(scan(), nn.Conv3d(1, 7, kernel_size=1))
