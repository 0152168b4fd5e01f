import logging

import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from pulmozoo.bundle.errors import BadInput
from pulmozoo.inferers.lung_crops import LungCropsInferer
from pulmozoo.inferers.slices import PaddedInferer, in_batches
from pulmozoo.networks.lungnet import LungNet
from pulmozoo.networks.unet2d import UNet2d
from pulmozoo.transforms.lung_box import lung_box


@pytest.fixture(scope="module")
def lungnet() -> LungNet:
    torch.manual_seed(0)
    return LungNet(kernels=4, dilations=(1, 2, 5)).eval()


@pytest.fixture(scope="module")
def volumes() -> Tensor:
    """Two volumes of seven slices that differ in brightness, with their lungs as the second channel.

    Left lung in slices 1 to 5, right lung in slices 2 and 5, of unequal size; the second volume has less.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 1, 7, 19, 26, generator=generator) * torch.linspace(0.5, 3, 7)[:, None, None]
    lungs = torch.zeros(2, 1, 7, 19, 26)
    lungs[:, 0, 1:6, 3:9, 15:20] = 1
    lungs[:, 0, 2, 5:14, 2:6], lungs[0, 0, 5, 1:4, 1:12] = 2, 2
    lungs[1, 0, 3] = 0
    return torch.cat([images, lungs], dim=1)


def infer(inferer: LungCropsInferer, volumes: Tensor, network: nn.Module) -> Tensor:
    with torch.no_grad():
        return inferer(volumes, network)


def test_planes_are_filled_up_and_cut_back(volumes):
    torch.manual_seed(0)
    unet = UNet2d(out_channels=6, norm="instance", base=4).eval()
    padded = torch.zeros(2, 1, 32, 32)
    padded[..., :19, :26] = volumes[:, :1, 3]
    with torch.no_grad():
        result = PaddedInferer(multiple=16)(MetaTensor(volumes[:, :1, 3]), unet)
        assert torch.allclose(result, unet(padded)[..., :19, :26], atol=1e-4)


def test_lung_crops_equal_crop_by_crop(lungnet, volumes):
    """Whatever the margin holds is seen, and nothing outside a lung is answered."""
    result = infer(LungCropsInferer(margin=4), MetaTensor(volumes), lungnet)
    assert type(result) is Tensor
    lungs = volumes[:, 1:]
    expected = torch.zeros(2, 6, 7, 19, 26)
    with torch.no_grad():
        for sample, index, side in ((s, i, side) for s in (0, 1) for i in range(7) for side in (1, 2)):
            lung = lungs[sample, 0, index] == side
            if lung.any():
                rows, columns = lung_box(lung, margin=4)
                logits = lungnet(volumes[sample : sample + 1, :1, index, rows, columns])[0]
                expected[sample, :, index, rows, columns] += logits * lung[rows, columns]
    assert torch.allclose(result, expected, atol=1e-5)
    assert not result[(lungs == 0).expand_as(result)].any()
    assert result[(lungs > 0).expand_as(result)].count_nonzero() > 0


def test_crops_are_filled_up_for_a_network_that_needs_it(volumes):
    torch.manual_seed(0)
    unet = UNet2d(out_channels=6, norm="instance", base=4).eval()
    assert infer(LungCropsInferer(margin=30, multiple=16), volumes, unet).shape == (2, 6, 7, 19, 26)


def test_bfloat16_is_close(lungnet, volumes):
    single, low = (infer(LungCropsInferer(amp=amp), volumes, lungnet) for amp in (False, True))
    assert low.dtype == torch.float32
    assert not torch.equal(low, single)
    assert (low - single).abs().mean() < 0.02 * single.abs().max()


def test_images_without_lungs_are_refused(lungnet, volumes):
    with pytest.raises(BadInput, match="no slice holds lung, so there is nothing to segment"):
        infer(LungCropsInferer(), volumes * torch.tensor([1, 0])[:, None, None, None], lungnet)
    with pytest.raises(ValueError, match=r"\(B, 2, D, H, W\), CT and lungs, got \(2, 1, 7, 19, 26\)"):
        infer(LungCropsInferer(), volumes[:, :1], lungnet)


def test_batches_and_progress(caplog):
    caplog.set_level(logging.INFO)
    assert [list(group) for group in in_batches([3, 4, 8, 9, 11], 2)] == [[3, 4], [8, 9], [11]]
    assert caplog.messages == ["2 of 5 slices", "4 of 5 slices", "5 of 5 slices"]
    caplog.clear()
    list(in_batches(range(300), 4))
    assert len(caplog.messages) == 10
    assert caplog.messages[-1] == "300 of 300 slices"


def test_wrapped_network_is_taken(lungnet, volumes):
    expected = infer(LungCropsInferer(), volumes, lungnet)
    assert torch.equal(infer(LungCropsInferer(), volumes, nn.DataParallel(lungnet)), expected)
