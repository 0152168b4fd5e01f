from itertools import product

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pulmozoo.blocks.criss_cross import CrissCrossAttention, line_neighbours, relation, slot_normalised

SHAPE = (2, 3, 4)
VOXELS = list(product(*map(range, SHAPE)))  # in the order of the flat index
SLOTS = 2 + 3 + 4 - 2


def seeded(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def on_a_line() -> Tensor:
    """Which voxels share two coordinates or more: ``(N, N)``."""
    equal = [[sum(a == b for a, b in zip(one, other, strict=True)) for other in VOXELS] for one in VOXELS]
    return torch.tensor(equal) >= 2


@pytest.fixture(params=[(True, False), (True, True), (False, False), (False, True)], ids=str)
def block(request) -> CrissCrossAttention:
    """Geometry and slot norm on and off, with weights large enough that each part is felt."""
    geometry, slot_norm = request.param
    torch.manual_seed(0)
    block = CrissCrossAttention(8, geometry=geometry, slot_norm=slot_norm).eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn_like(parameter))
        block.back.weight.mul_(0.3)
        block.norm.running_mean.normal_()
        block.norm.running_var.uniform_(0.5, 2)
    return block


def dense_relation(query: Tensor, key: Tensor, slot_norm: bool) -> Tensor:
    """Dot products of all voxels, ``(N, N)``; with the slot norm, one norm for each rank among the neighbours."""
    products, mask = query @ key.T, on_a_line()
    if slot_norm:
        rank = mask.cumsum(dim=1) - 1
        for slot in range(SLOTS):
            chosen = mask & (rank == slot)
            assert chosen.sum() == len(VOXELS)
            products[chosen] = products[chosen] / (products[chosen].square().sum().sqrt() + 1e-6)
    return products


def dense_attention(block: CrissCrossAttention, x: Tensor, position: Tensor) -> Tensor:
    """One sample as the paper's Eq. 3 has it: attention among all voxels, all but the axis lines masked."""
    voxels, place = (volume[0].flatten(start_dim=1).T for volume in (x, position))
    for _ in range(3):
        logits = dense_relation(block.theta(voxels), block.phi(voxels), block.slot_norm)
        if block.geometry_theta is not None:
            logits += F.relu(dense_relation(block.geometry_theta(place), block.geometry_phi(place), block.slot_norm))
        weights = logits.masked_fill(~on_a_line(), -torch.inf).softmax(dim=1)
        voxels = voxels + block.back(weights @ block.value(voxels))
    return F.relu(block.norm(voxels.T.reshape(x.shape)))


@pytest.mark.parametrize("shape", [SHAPE, (4, 1, 2), (1, 1, 1)], ids=str)
def test_neighbours_are_those_on_the_axis_lines_by_flat_index(shape):
    voxels = list(product(*map(range, shape)))
    expected = [
        [at for at, other in enumerate(voxels) if sum(a != b for a, b in zip(voxel, other, strict=True)) <= 1]
        for voxel in voxels
    ]
    neighbours = line_neighbours(shape)
    assert neighbours.shape == (len(voxels), sum(shape) - 2)
    assert neighbours.tolist() == expected


def test_neighbours_by_hand():  # of voxel (1, 0, 2), number 14: two above each other, three in a column, four in a row
    assert line_neighbours(SHAPE)[14].tolist() == [2, 12, 13, 14, 15, 18, 22]


def test_attention_is_dense_attention_with_a_mask(block):
    x, position = seeded(1, 8, *SHAPE), seeded(1, 3, *SHAPE, seed=1)
    with torch.no_grad():
        ours, expected = block(x, position), dense_attention(block, x, position)
    assert ours.shape == x.shape
    assert ours.std() > 0.1
    assert torch.allclose(ours, expected, atol=1e-5, rtol=1e-5)


def test_samples_of_a_batch_do_not_mix(block):
    x, position = seeded(2, 8, *SHAPE), seeded(2, 3, *SHAPE, seed=1)
    with torch.no_grad():
        together = block(x, position)
        for sample in (0, 1):
            alone = block(x[sample : sample + 1], position[sample : sample + 1])
            assert torch.allclose(together[sample], alone[0], atol=1e-5)


def test_one_position_serves_a_whole_batch(block):
    x, position = seeded(2, 8, *SHAPE), seeded(1, 3, *SHAPE, seed=1)
    with torch.no_grad():
        assert torch.allclose(block(x, position), block(x, position.expand(2, -1, -1, -1, -1)), atol=1e-5)


def test_equal_weights_take_the_mean_of_the_lines():
    """With theta 0 all neighbours count 1/7; a single 1 is spread over its lines, thrice, by x + x W with W = 1/7."""
    block = CrissCrossAttention(4, geometry=False).eval()
    with torch.no_grad():
        for layer in (block.theta, block.value, block.back):
            layer.weight.zero_()
            layer.bias.zero_()
        block.value.weight[0, 0] = block.back.weight[0, 0] = 1
        block.norm.eps = 0
        x = torch.zeros(1, 4, *SHAPE)
        x[0, 0, 1, 0, 2] = 1
        out = block(x, torch.zeros(1, 3, *SHAPE))
    spread = torch.eye(24) + on_a_line() / SLOTS
    assert torch.allclose(out[0, 0].flatten(), torch.linalg.matrix_power(spread, 3)[:, 14])
    assert not out[0, 1:].any()


def test_relation_by_hand():
    query, key = torch.arange(24.0).reshape(1, 24, 1), torch.arange(24.0).reshape(1, 24, 1) * 10
    related = relation(query, key, line_neighbours(SHAPE))
    assert related.shape == (1, 24, SLOTS)
    assert related[0, 14].tolist() == [14 * 10 * other for other in (2, 12, 13, 14, 15, 18, 22)]
    assert torch.equal(relation(query.expand(1, 24, 3), key.expand(1, 24, 3), line_neighbours(SHAPE)), 3 * related)


def test_slot_norm_by_hand():  # slots 3, 4 and 0, 12 of two voxels: 3/5, 4/5 and 0, 12/12; the batch stays apart
    related = torch.tensor([[[3.0, 0.0], [4.0, -12.0]], [[0.0, 0.0], [0.0, 2.0]]])
    expected = torch.tensor([[[0.6, 0.0], [0.8, -1.0]], [[0.0, 0.0], [0.0, 1.0]]])
    assert torch.allclose(slot_normalised(related), expected, atol=1e-6)


def test_single_voxel_attends_to_itself(block):
    x, position = seeded(2, 8, 1, 1, 1), torch.zeros(2, 3, 1, 1, 1)
    with torch.no_grad():
        voxels = x.flatten(start_dim=1)
        for _ in range(3):
            voxels = voxels + block.back(block.value(voxels))
        assert torch.allclose(block(x, position), F.relu(block.norm(voxels.reshape(x.shape))), atol=1e-5)


def test_half_precision_comes_back_but_is_not_computed_in():
    torch.manual_seed(0)
    block = CrissCrossAttention(8).eval()
    x, position = seeded(1, 8, *SHAPE).bfloat16(), seeded(1, 3, *SHAPE, seed=1)
    with torch.no_grad():
        expected = block(x.float(), position).bfloat16()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = block(x, position)
    assert low.dtype == torch.bfloat16
    assert torch.equal(low, expected)


def test_unused_norms_are_carried_and_frozen():
    norms = CrissCrossAttention(256).unused_norms
    assert sum(parameter.numel() for parameter in norms.parameters()) == 1536
    assert not any(parameter.requires_grad for parameter in norms.parameters())


def test_gradient_of_relation():
    query, key = (seeded(2, 24, 3, seed=seed, dtype=torch.float64).requires_grad_() for seed in (0, 1))
    assert torch.autograd.gradcheck(lambda q, k: relation(q, k, line_neighbours(SHAPE)), (query, key))


def test_gradient_of_slot_norm():
    related = seeded(2, 24, SLOTS, dtype=torch.float64)
    related[0, :, 3] = 0  # a slot without any relation has no norm to divide by
    slot_normalised(related.requires_grad_()).sum().backward()
    assert related.grad.isfinite().all()
    assert torch.autograd.gradcheck(slot_normalised, seeded(2, 24, SLOTS, dtype=torch.float64).requires_grad_())
