import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pulmozoo.networks.pneumothorax import PneumothoraxUNet
from pulmozoo.weights import convert
from pulmozoo.weights.pneumothorax import our_name, paper_network

BUNDLE = "pneumothorax_cxr_segmentation"
GOLDEN = Path(__file__).parents[1] / "golden"


def published(case: str) -> dict[str, Tensor]:
    """The names and shapes of a published network, in its order."""
    shapes = json.loads((GOLDEN / f"pneumothorax_{case}.json").read_text())["checkpoint"]
    return {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}


def shapes_only(**options: bool) -> PneumothoraxUNet:
    with torch.device("meta"):
        return PneumothoraxUNet(**options)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("encoder.layer2.0.downsample.1.running_var", "encoder.layer2.0.downsample.1.running_var"),
        ("center.block.0.block.0.weight", "centre.0.weight"),
        ("center.block.1.block.1.running_mean", "centre.4.running_mean"),
        ("center.aspp1.atrous_conv.weight", "centre.branches.0.0.weight"),
        ("center.aspp4.bn.bias", "centre.branches.3.1.bias"),
        ("center.global_avg_pool.1.weight", "centre.whole.0.weight"),
        ("center.global_avg_pool.2.weight", "centre.whole.1.weight"),
        ("center.conv1.weight", "centre.join.0.weight"),
        ("center.bn1.running_var", "centre.join.1.running_var"),
        ("decoder.layer1.block.1.block.0.weight", "decoder.0.convs.3.weight"),
        ("decoder.layer3.attention1.cSE.1.bias", "decoder.2.attend_joined.squeeze.bias"),
        ("decoder.layer4.attention2.cSE.3.weight", "decoder.3.attend_out.excite.weight"),
        ("decoder.layer4.attention2.sSE.0.weight", "decoder.3.attend_out.place.weight"),
        ("decoder.global_layer.2.running_mean", "last.2.running_mean"),
        ("decoder.final_conv.bias", "mask_head.bias"),
        ("logit.1.weight", "class_head.1.weight"),
    ],
)
def test_names_of_the_published_program(name, ours):
    assert our_name(name) == ours


@pytest.mark.parametrize(
    ("case", "options"),
    [("baseline", {}), ("aspp_hypercolumns_scse", {"aspp": True, "hypercolumns": True, "scse": True})],
)
def test_every_tensor_finds_its_place(case, options):
    state, network = published(case), shapes_only(**options)
    converted = convert(BUNDLE, state, network)
    assert list(converted) == list(network.state_dict())
    assert len(converted) == len(state)


def test_default_network_is_the_papers_baseline():
    with torch.device("meta"):
        names = list(paper_network().state_dict())
    assert list(convert(BUNDLE, published("baseline"))) == names == list(shapes_only().state_dict())


def test_weights_of_another_variant_are_told_apart():
    with pytest.raises(ValueError, match=rf"holds decoder.layer1.attention1.* no place in the network of {BUNDLE}"):
        convert(BUNDLE, published("aspp_hypercolumns_scse"), shapes_only(aspp=True, hypercolumns=True))
    with pytest.raises(ValueError, match=r"decoder.global_layer.0.weight must have shape .64, 64, 1, 1.* got .64, 256"):
        convert(BUNDLE, published("aspp_hypercolumns_scse"), shapes_only(aspp=True, scse=True))
