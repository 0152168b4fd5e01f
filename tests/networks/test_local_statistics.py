import pytest
import torch

from pulmozoo.networks.local_statistics import LocalStatistics, local_mean


def test_local_mean_by_hand():
    x = torch.tensor([[0.0, 3, 6], [9, 12, 15], [18, 21, 24]])[None, None]
    mean = local_mean(x, 3)[0, 0]
    assert mean[1, 1].item() == pytest.approx(12.0)
    assert mean[0, 0].item() == pytest.approx((0 + 3 + 9 + 12) / 4)


def test_features_are_mean_and_spread():
    """Half 0, half 1 in squares of two: the mean is about 1/2 and so is the spread; flat slices have none."""
    network = LocalStatistics()
    torch.nn.init.zeros_(network.head.weight)
    torch.nn.init.zeros_(network.head.bias)
    with torch.no_grad():
        network.head.weight[0, 4], network.head.weight[1, 5] = 0.1, 0.1  # of the largest square
    board = (torch.arange(40)[:, None] // 2 + torch.arange(50) // 2).remainder(2).float()
    logits = network(torch.stack([board, torch.full((40, 50), 0.3)])[:, None])
    assert logits.shape == (2, 6, 40, 50)
    assert logits[0, :2, 20, 20].tolist() == pytest.approx([0.5, 0.5], abs=0.02)
    assert logits[1, :2, 20, 20].tolist() == pytest.approx([0.3, 0.0], abs=1e-3)


def test_volumes_go_slice_by_slice():
    torch.manual_seed(0)
    network, volume = LocalStatistics(), torch.rand(2, 1, 3, 17, 22)
    together = network(volume)
    assert together.shape == (2, 6, 3, 17, 22)
    assert torch.allclose(together[:, :, 1], network(volume[:, :, 1]), atol=1e-5)


def test_parameters():  # six features and a bias for each class
    assert sum(parameter.numel() for parameter in LocalStatistics().parameters()) == 6 * 7
