import logging

import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from pulmozoo.bundle.errors import BadInput
from pulmozoo.inferers.lung_crops import LungCropsInferer
from pulmozoo.inferers.slices import SlicesInferer, in_batches
from pulmozoo.networks.lungnet import LungNet
from pulmozoo.networks.unet2d import UNet2d
from pulmozoo.transforms.lung_box import lung_box


@pytest.fixture(scope="module")
def lungnet() -> LungNet:
    torch.manual_seed(0)
    return LungNet(kernels=4, dilations=(1, 2, 5)).eval()


@pytest.fixture(scope="module")
def volumes() -> Tensor:
    """Two volumes of seven slices that differ in brightness."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 1, 7, 19, 26, generator=generator) * torch.linspace(0.5, 3, 7)[:, None, None]


@pytest.fixture(scope="module")
def lungs() -> Tensor:
    """Left lung in slices 1 to 5, right lung in slices 2 and 5, of unequal size; the second volume has less."""
    lungs = torch.zeros(2, 1, 7, 19, 26, dtype=torch.uint8)
    lungs[:, 0, 1:6, 3:9, 15:20] = 1
    lungs[:, 0, 2, 5:14, 2:6], lungs[0, 0, 5, 1:4, 1:12] = 2, 2
    lungs[1, 0, 3] = 0
    return lungs


def infer(inferer: SlicesInferer | LungCropsInferer, *arguments: object) -> Tensor:
    with torch.no_grad():
        return inferer(*arguments)


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_equals_slice_by_slice(lungnet, volumes, batch):
    result = infer(SlicesInferer(batch), MetaTensor(volumes), lungnet)
    assert result.shape == (2, 6, 7, 19, 26)
    assert type(result) is Tensor
    with torch.no_grad():
        for index in range(7):
            assert torch.allclose(result[:, :, index], lungnet(volumes[:, :, index]), atol=1e-3, rtol=1e-4)


def test_only_slices_with_lung_are_looked_at(lungnet, volumes, lungs):
    every, some = infer(SlicesInferer(3), volumes, lungnet), infer(SlicesInferer(3), volumes, lungnet, lungs)
    assert torch.allclose(some[0, :, 1:6], every[0, :, 1:6], atol=1e-4)
    assert torch.allclose(some[1, :, [1, 2, 4, 5]], every[1, :, [1, 2, 4, 5]], atol=1e-4)
    for sample, index in ((0, 0), (0, 6), (1, 0), (1, 3), (1, 6)):
        assert not some[sample, :, index].any()
        assert every[sample, :, index].any()


def test_planes_are_filled_up_and_cut_back(volumes):
    torch.manual_seed(0)
    unet = UNet2d(out_channels=6, norm="instance", base=4).eval()
    result = infer(SlicesInferer(4, multiple=16), volumes, unet)
    padded = torch.zeros(2, 1, 7, 32, 32)
    padded[..., :19, :26] = volumes
    with torch.no_grad():
        assert torch.allclose(result, unet(padded)[..., :19, :26], atol=1e-4)


def test_lung_crops_equal_crop_by_crop(lungnet, volumes, lungs):
    """Whatever the margin holds is seen, and nothing outside a lung is answered."""
    result = infer(LungCropsInferer(margin=4), volumes, lungnet, lungs)
    assert result.shape == (2, 6, 7, 19, 26)
    expected = torch.zeros_like(result)
    with torch.no_grad():
        for sample, index, side in ((s, i, side) for s in (0, 1) for i in range(7) for side in (1, 2)):
            lung = lungs[sample, 0, index] == side
            if lung.any():
                rows, columns = lung_box(lung, margin=4)
                logits = lungnet(volumes[sample : sample + 1, :, index, rows, columns])[0]
                expected[sample, :, index, rows, columns] += logits * lung[rows, columns]
    assert torch.equal(result, expected)
    assert not result[(lungs == 0).expand_as(result)].any()
    assert result[(lungs > 0).expand_as(result)].count_nonzero() > 0


@pytest.mark.parametrize("inferer", [SlicesInferer, LungCropsInferer])
def test_bfloat16_is_close(lungnet, volumes, lungs, inferer):
    single, low = (infer(inferer(amp=amp), volumes, lungnet, lungs) for amp in (False, True))
    assert low.dtype == torch.float32
    assert not torch.equal(low, single)
    assert (low - single).abs().mean() < 0.02 * single.abs().max()


@pytest.mark.parametrize("inferer", [SlicesInferer, LungCropsInferer])
def test_lungs_that_are_empty_or_of_another_shape_are_refused(lungnet, volumes, lungs, inferer):
    with pytest.raises(BadInput, match="no slice holds lung, so there is nothing to segment"):
        infer(inferer(), volumes, lungnet, torch.zeros_like(lungs))
    with pytest.raises(ValueError, match=r"image \(2, 1, 7, 19, 26\), got \(2, 1, 7, 26, 19\)"):
        infer(inferer(), volumes, lungnet, lungs.transpose(3, 4))


def test_batches_and_progress(caplog):
    caplog.set_level(logging.INFO)
    assert [list(group) for group in in_batches([3, 4, 8, 9, 11], 2)] == [[3, 4], [8, 9], [11]]
    assert caplog.messages == ["2 of 5 slices", "4 of 5 slices", "5 of 5 slices"]
    caplog.clear()
    list(in_batches(range(300), 4))
    assert len(caplog.messages) == 10
    assert caplog.messages[-1] == "300 of 300 slices"


def test_wrapped_network_is_taken(lungnet, volumes):
    expected = infer(SlicesInferer(), volumes, lungnet)
    assert torch.equal(infer(SlicesInferer(), volumes, nn.DataParallel(lungnet)), expected)
