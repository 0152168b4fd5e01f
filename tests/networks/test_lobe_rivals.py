import pytest
import torch
from torch import nn

from pulmozoo.losses.ctsunet import CTSULoss, border_map
from pulmozoo.losses.frvnet import FRVLoss
from pulmozoo.networks.frvnet import FRVNet
from pulmozoo.networks.patch_unet import PatchUNet


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.fixture(scope="module")
def label() -> torch.Tensor:
    """All five lobes in slabs, axes unequal."""
    label = torch.zeros(1, 1, 32, 48, 16)
    for lobe in range(1, 6):
        label[:, :, 5 * lobe : 5 * lobe + 5, 8:40, 3:13] = lobe
    return label


@pytest.mark.parametrize(("network", "parameters"), [(PatchUNet, 16_318_246), (FRVNet, 14_621_892)])
def test_parameter_counts_of_the_fact_sheet(network, parameters):
    with torch.device("meta"):
        assert count(network()) == parameters


def test_patch_unet_gives_the_middle_of_its_patch():
    network = PatchUNet(width=0.1).eval()
    image = torch.rand(1, 1, 92, 100, 92)
    with torch.no_grad():
        logits = network(image)
        assert logits.shape == (1, 6, 4, 12, 4)
        image[:, :, 1:-1, 1:-1, 1:-1] += 1  # only the outermost voxels stay: they lie within the field of view
        assert not torch.equal(network(image), logits)
    with pytest.raises(ValueError, match="stage 2 needs patch sizes 92, 100, 108"):
        network(torch.rand(1, 1, 96, 92, 92))


def test_patch_unet_learns_from_patches_of_whole_scans(label):
    network = PatchUNet(width=0.1)
    prediction = network(label / 5, label, patches=2, patch=100)
    assert prediction["patch_logits"].shape == (2, 6, 12, 12, 12)
    assert prediction["patch_label"].shape == (2, 1, 12, 12, 12)
    CTSULoss(cross_entropy=1.0)(prediction, label).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_frvnet_has_four_outputs_in_training_and_one_else(label):
    network = FRVNet(width=0.25)
    outputs = network(label / 5)
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        "lobes": (1, 6, 32, 48, 16),
        "border": (1, 2, 32, 48, 16),
        "lobes_half": (1, 6, 16, 24, 8),
        "lobes_quarter": (1, 6, 8, 12, 4),
    }
    FRVLoss()(outputs, label).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert network.eval()(label / 5).shape == (1, 6, 32, 48, 16)
    with pytest.raises(
        ValueError, match=r"FRV-Net needs sizes divisible by 16, got \(32, 40, 16\): pad to \(32, 48, 16\)"
    ):
        network(torch.rand(1, 1, 32, 40, 16))


def test_frvnet_loss_falls_to_zero_where_all_is_right(label):
    def sure(classes: int, truth: torch.Tensor) -> torch.Tensor:
        return 40 * nn.functional.one_hot(truth[:, 0].long(), classes).movedim(-1, 1).float()

    right = {"lobes": sure(6, label), "border": sure(2, border_map(label))}
    for name, factor in (("lobes_half", 0.5), ("lobes_quarter", 0.25)):
        right[name] = sure(6, nn.functional.interpolate(label, scale_factor=factor))
    assert FRVLoss()(right, label).item() == pytest.approx(0, abs=1e-5)
    wrong = {name: logits.roll(1, dims=1) for name, logits in right.items()}
    assert FRVLoss()(wrong, label).item() > 3.9
