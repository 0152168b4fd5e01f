import torch
from torch.nn import functional as F

from box_filter import box_filtered, parameters, without_gradient
from pulmozoo.networks.ild_cnn import ILDCNN


def test_parameters():
    network = ILDCNN()
    assert parameters(network.convolutions) == 95_144
    assert parameters(network.dense) == 376_134
    assert parameters(network) == 471_278


def test_receptive_field_is_a_patch_of_32_pixels():
    """From 16 before to 15 after, along both axes."""
    image = torch.ones(1, 1, 90, 80, requires_grad=True)
    box_filtered(ILDCNN())(image)[0, 0, 45, 40].backward()
    rows, columns = image.grad[0, 0].nonzero().unbind(dim=1)
    assert (int(rows.min()), int(rows.max())) == (45 - 16, 45 + 15)
    assert (int(columns.min()), int(columns.max())) == (40 - 16, 40 + 15)


def test_a_pixel_is_answered_as_the_patch_classifier_would():
    """The plain classifier, layer by layer: mean of the last map, then the dense layers as matrices."""
    torch.manual_seed(0)
    network = ILDCNN().eval()
    image = torch.rand(1, 1, 45, 50)
    with torch.no_grad():
        pixel = network(image)[0, :, 20, 30]
        features = network.convolutions(image[..., 4:36, 14:46])
        assert features.shape == (1, 144, 27, 27)
        x = features.mean(dim=(2, 3))
        matrices = [network.dense[index] for index in (1, 4, 7)]
        for layer in matrices[:-1]:
            x = F.relu(F.linear(x, layer.weight[:, :, 0, 0], layer.bias))
        expected = F.linear(x, matrices[-1].weight[:, :, 0, 0], matrices[-1].bias)
    assert torch.allclose(pixel, expected[0], atol=1e-5)


def test_volumes_of_any_size_keep_it():
    with torch.no_grad():
        assert ILDCNN().eval()(torch.rand(1, 1, 2, 9, 13)).shape == (1, 6, 2, 9, 13)


def test_every_parameter_has_a_gradient():
    torch.manual_seed(0)
    network = ILDCNN()
    assert without_gradient(network, network(torch.rand(1, 1, 12, 10))) == []
