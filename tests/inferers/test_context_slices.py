import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor

from pulmozoo.bundle.errors import BadInput
from pulmozoo.inferers.context_slices import NO_LESION, ContextSlicesInferer, StacksInferer, stack_indices
from pulmozoo.networks.srnet import SRNet
from pulmozoo.networks.unet2d import UNet2d


@pytest.fixture(scope="module")
def srnet() -> SRNet:
    torch.manual_seed(0)
    return SRNet().eval()


@pytest.fixture(scope="module")
def volume() -> Tensor:
    """Six slices of a plane that no pooling fits; the first holds no lung."""
    volume = torch.rand(1, 1, 6, 13, 18, generator=torch.Generator().manual_seed(0))
    volume[:, :, 0] = 0
    return volume


def infer(inferer: ContextSlicesInferer, image: Tensor, network: torch.nn.Module) -> Tensor:
    with torch.no_grad():
        return inferer(image, network)


def test_stacks_by_hand():
    """Target 4 of 8: four slices before, three after; beyond the ends the last slice is repeated."""
    assert stack_indices([10], depth=8, slices=20).tolist() == [[6, 7, 8, 9, 10, 11, 12, 13]]
    assert stack_indices([0, 5], depth=8, slices=6).tolist() == [[0, 0, 0, 0, 0, 1, 2, 3], [1, 2, 3, 4, 5, 5, 5, 5]]
    assert stack_indices([3, 4], depth=1, slices=6).tolist() == [[3], [4]]
    assert stack_indices([10], depth=8, slices=15, step=2).tolist() == [[2, 4, 6, 8, 10, 12, 14, 14]]


def test_the_first_block_answers_in_the_fast_order_and_type(srnet, volume):
    """A tensor with one channel that is merely `contiguous` would turn all that it is joined with around."""
    kinds = set()

    def note(block, inputs, output):
        kinds.add((output.dtype, output.is_contiguous(memory_format=torch.channels_last_3d)))

    handle = srnet.encoder[0].register_forward_hook(note)
    infer(ContextSlicesInferer(batch=2, amp=True), volume, srnet)
    infer(StacksInferer(amp=True), torch.rand(2, 1, 8, 16, 16), srnet)
    handle.remove()
    assert kinds == {(torch.bfloat16, True)}


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_equals_slice_by_slice(srnet, volume, batch):
    result = infer(ContextSlicesInferer(batch=batch), MetaTensor(volume), srnet)
    assert result.shape == volume.shape
    assert type(result) is Tensor
    padded = torch.zeros(1, 1, 6, 16, 24)
    padded[..., :13, :18] = volume
    with torch.no_grad():
        for target in range(1, 6):
            stack = torch.cat([padded[:, :, min(max(target + k, 0), 5)][:, :, None] for k in range(-4, 4)], dim=2)
            assert torch.allclose(result[:, :, target], srnet(stack)[:, :, 0, :13, :18], atol=1e-5)


def test_slices_without_lung_have_no_lesion(srnet, volume):
    result = infer(ContextSlicesInferer(), volume, srnet)
    assert (result[:, :, 0] == NO_LESION).all()
    assert (result[:, :, 1:] != NO_LESION).all()
    with pytest.raises(BadInput, match="no slice holds lung"):
        infer(ContextSlicesInferer(), torch.zeros_like(volume), srnet)


def test_volumes_of_a_batch_do_not_mix(srnet, volume):
    both = torch.cat([volume, volume.flip(2)])
    result = infer(ContextSlicesInferer(batch=3), both, srnet)
    assert torch.allclose(result[1:], infer(ContextSlicesInferer(batch=3), both[1:], srnet), atol=1e-5)


def test_networks_without_context(volume):
    torch.manual_seed(0)
    flat = SRNet(depth=1).eval()
    result = infer(ContextSlicesInferer(depth=1), volume, flat)
    with torch.no_grad():
        padded = torch.nn.functional.pad(volume, [0, 6, 0, 3])
        assert torch.allclose(result[:, :, 3], flat(padded[:, :, 3:4])[:, :, 0, :13, :18], atol=1e-5)


def test_planes_of_a_unet_are_filled_up_to_16(volume):
    """The 2D U-Net takes stacks of one slice, though its weights are those of planes."""
    torch.manual_seed(0)
    unet = UNet2d(base=4).eval()
    result = infer(ContextSlicesInferer(depth=1, multiple=16), volume, unet)
    with torch.no_grad():
        padded = torch.nn.functional.pad(volume, [0, 14, 0, 3])
        assert torch.allclose(result[:, :, 5], unet(padded[:, :, 5])[..., :13, :18], atol=1e-5)


def test_bfloat16_is_close(srnet, volume):
    single, low = (infer(ContextSlicesInferer(amp=amp), volume, srnet) for amp in (False, True))
    assert low.dtype == torch.float32
    assert not torch.equal(low, single)
    assert (low - single).abs().max() < 0.05 * single[:, :, 1:].abs().max()


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_stacks_that_are_cut_already(srnet, batch):
    stacks = torch.rand(3, 1, 8, 16, 24, generator=torch.Generator().manual_seed(0))
    result = infer(StacksInferer(batch), MetaTensor(stacks), srnet)
    assert type(result) is Tensor
    with torch.no_grad():
        assert torch.allclose(result, srnet(stacks), atol=1e-5)
