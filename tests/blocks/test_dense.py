import torch

from pulmozoo.blocks.dense import DenseBlock


def test_dense_block_hands_on_its_input_and_adds_growth():
    block = DenseBlock(3, layers=2, growth=4, kernel=(1, 3, 3)).eval()
    x = torch.rand(2, 3, 1, 5, 6)
    with torch.no_grad():
        out = block(x)
    assert out.shape == (2, block.out_channels, 1, 5, 6) == (2, 11, 1, 5, 6)
    assert torch.equal(out[:, :3], x)


def test_each_layer_sees_the_input_and_all_layers_before():
    """Kernels of one voxel that sum up their input: 1 + 2 = 3, then 1 + 2 + 3 + 3 = 9."""
    block = DenseBlock(2, layers=2, growth=2, kernel=(1, 1, 1)).eval()
    for unit in block.units:
        torch.nn.init.ones_(unit[0].weight)
        unit[1].eps = 0
    with torch.no_grad():
        out = block(torch.tensor([1.0, 2.0]).reshape(1, 2, 1, 1, 1))
    assert out.flatten().tolist() == [1, 2, 3, 3, 9, 9]
