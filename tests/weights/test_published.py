import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pulmozoo.networks.ctsunet import CTSUNet
from pulmozoo.weights import convert
from pulmozoo.weights.ctsunet import our_name, released_network

BUNDLE = "lung_lobe_ct_segmentation"
GOLDEN = Path(__file__).parents[1] / "golden" / "ctsunet_cascade.json"
HEAD = "unet2.outs.0.bias"


@pytest.fixture(scope="module")
def network() -> CTSUNet:
    with torch.device("meta"):  # only names and shapes count here
        return released_network()


@pytest.fixture
def published() -> dict[str, Tensor]:
    """The published checkpoint's names and shapes, in its order."""
    shapes = json.loads(GOLDEN.read_text())["checkpoint"]
    return {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("unet1.ds_modules.0.conv_blocks.0.0.weight", "scan_unet.down.0.0.weight"),
        ("unet1.ds_modules.2.conv_blocks.1.1.running_var", "scan_unet.down.2.4.running_var"),
        ("unet2.bg.conv_blocks.1.0.weight", "patch_unet.bridge.3.weight"),
        ("unet2.us_modules.0.conv_blocks.0.1.bias", "patch_unet.up.0.1.bias"),
        ("unet1.outs.0.weight", "scan_unet.lobe_head.weight"),
        ("unet1.outs.1.bias", "scan_unet.border_head.bias"),
        ("unet2.middle_psa.theta.weight", "patch_unet.non_local.theta.weight"),
        ("unet2.middle_psa.geo_theta.weight", "patch_unet.non_local.geometry_theta.weight"),
        ("unet2.middle_psa.geo_phi.bias", "patch_unet.non_local.geometry_phi.bias"),
        ("unet2.middle_psa.G.bias", "patch_unet.non_local.value.bias"),
        ("unet2.middle_psa.r.0.weight", "patch_unet.non_local.back.weight"),
        ("unet2.middle_psa.bns.2.weight", "patch_unet.non_local.unused_norms.2.weight"),
        ("unet2.middle_psa.bn.running_mean", "patch_unet.non_local.norm.running_mean"),
    ],
)
def test_names_of_the_lobe_checkpoint(name, ours):
    assert our_name(name) == ours


def test_every_tensor_of_the_checkpoint_finds_its_place(published, network):
    converted = convert(BUNDLE, published | {HEAD: torch.arange(6.0)}, network)
    assert list(converted) == list(network.state_dict())
    assert len(converted) == len(published) == 222
    assert converted["patch_unet.lobe_head.bias"].tolist() == [0, 1, 2, 3, 4, 5]
    released_network().load_state_dict(converted)


def test_default_network_is_the_released_one(published, network):
    assert list(convert(BUNDLE, published)) == list(network.state_dict())


def test_tensor_without_a_place_is_named(published, network):
    with pytest.raises(ValueError, match=f"holds unet3.outs.0.bias, which has no place in the network of {BUNDLE}"):
        convert(BUNDLE, published | {"unet3.outs.0.bias": torch.zeros(6)}, network)


def test_wrong_shape_is_named(published, network):
    with pytest.raises(ValueError, match=rf"{HEAD} must have shape \(6,\) to fit .*, got \(7,\)"):
        convert(BUNDLE, published | {HEAD: torch.zeros(7)}, network)
    with torch.device("meta"):
        paper = CTSUNet()
    with pytest.raises(ValueError, match=r"unet2.ds_modules.0.conv_blocks.1.0.weight must have shape \(48, 24, 3"):
        convert(BUNDLE, published, paper)


def test_missing_tensor_is_named(published, network):
    del published[HEAD]
    with pytest.raises(ValueError, match=f"lacks patch_unet.lobe_head.bias, which the network of {BUNDLE} needs"):
        convert(BUNDLE, published, network)


def test_unknown_bundle_is_told_which_are_known():
    with pytest.raises(ValueError, match=f"known for .*{BUNDLE}.*, got 'lobes'"):
        convert("lobes", {})
