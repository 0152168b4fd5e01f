import importlib.util
import json
from math import log, sqrt
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pulmozoo.networks.dram import (
    DRAM,
    at_map_size,
    check_scan_shape,
    grade_logits,
    lung_means,
    padded_shortcut,
    subtype_densities,
)
from pulmozoo.weights import convert
from seeded import seeded_input, seeded_state_dict

GOLDEN = Path(__file__).parents[1] / "golden"
SHELF = Path(__file__).parents[3] / "shared" / "parity"
BUNDLE = "emphysema_subtype_ct_grading"
KINDS = [(depth, regression) for regression in (True, False) for depth in (18, 34, 50)]
SHAPE = (32, 48, 64)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def shapes_only(**options: Any) -> DRAM:
    """The full network without memory: only its shapes are real."""
    with torch.device("meta"):
        return DRAM(**options)


# Size (fact sheet, section 2)


@pytest.mark.parametrize(
    ("depth", "regression", "parameters", "gmac"),
    [
        (18, True, 34_480_098, 1146.410),
        (34, True, 64_789_730, 1660.095),
        (50, True, 47_858_402, 1699.599),
        (18, False, 34_480_329, 1146.641),
        (34, False, 64_789_961, 1660.326),
        (50, False, 47_858_633, 1699.830),
    ],
)
def test_parameters_and_multiply_adds_are_those_of_the_paper(depth, regression, parameters, gmac):
    network = shapes_only(depth=depth, regression=regression).eval()
    assert count(network) == parameters
    with FlopCounterMode(display=False) as counter:
        maps = network(torch.zeros(1, 1, 128, 224, 288, device="meta"))
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmac, abs=0.001)
    assert maps.shape == (1, 2 if regression else 9, 64, 112, 144)


def test_parameters_of_each_part():
    network = shapes_only()
    assert tuple(map(count, network.stem)) == (21_952, 128, 0)
    assert tuple(map(count, network.layers)) == (664_320, 3_319_808, 20_355_072, 38_934_528)
    assert tuple(map(count, (network.up1, network.up2, network.up3))) == (1_106_304, 332_160, 55_392)
    assert count(network.cle_head) + count(network.pse_head) == 66


def test_width_scales_every_layer():
    network = shapes_only(depth=18, width=0.25)
    assert [layer[0].out_channels for layer in network.layers] == [16, 32, 64, 128]
    assert (network.up1[0].in_channels, network.up1[0].out_channels, network.cle_head.in_channels) == (144, 16, 8)
    assert [layer[0].out_channels for layer in shapes_only(depth=50, width=0.25).layers] == [64, 128, 256, 512]


def test_convolutions_start_with_kaiming_normal_by_fan_out():
    torch.manual_seed(0)
    convolution = DRAM(depth=18).layers[1][0].body[0]
    assert convolution.bias is None
    assert convolution.weight.std().item() == pytest.approx(sqrt(2 / (27 * 128)), rel=0.01)


def test_unknown_depth_is_told_the_known_ones():
    with pytest.raises(ValueError, match="depth must be one of 18, 34, 50, got 101"):
        DRAM(depth=101)


@pytest.fixture(scope="module")
def tiny() -> DRAM:
    torch.manual_seed(0)
    return DRAM(depth=18, width=0.1).eval()


def test_wrong_size_names_the_next_that_works(tiny):
    with pytest.raises(ValueError, match=r"divisible by 8, got \(40, 44, 3\): resize or pad to \(40, 48, 8\)"):
        tiny(torch.zeros(1, 1, 40, 44, 3))
    check_scan_shape((40, 48, 8))


@pytest.mark.parametrize("shape", [(8, 8, 8), (8, 24, 40)], ids=str)
def test_maps_have_half_the_size_of_any_scan(tiny, shape):
    with torch.no_grad():
        assert tiny(torch.rand(2, 1, *shape)).shape == (2, 2, *(size // 2 for size in shape))


# Shortcuts


def test_shortcut_by_hand():  # every second voxel, then channels of zeros
    x = torch.arange(2.0 * 3 * 4 * 5).reshape(1, 2, 3, 4, 5)
    shortcut = padded_shortcut(x, channels=5, stride=2)
    assert shortcut.shape == (1, 5, 2, 2, 3)
    assert shortcut[0, 0].flatten().tolist() == [0, 2, 4, 10, 12, 14, 40, 42, 44, 50, 52, 54]
    assert torch.equal(shortcut[0, 1], shortcut[0, 0] + 60)
    assert not shortcut[0, 2:].any()


@pytest.mark.parametrize("detached", [False, True])
def test_detached_shortcut_changes_gradients_alone(tiny, detached):
    """With the body of the first strided block silent, the input of that block learns by the shortcut only."""
    network = DRAM(depth=18, width=0.1, detached_shortcut=detached).eval()
    network.load_state_dict(tiny.state_dict())
    image = torch.rand(1, 1, 16, 24, 32)
    with torch.no_grad():
        assert torch.equal(network(image), tiny(image))
        network.layers[1][0].body[4].weight.zero_()
    quarter = torch.rand(1, network.layers[0][0].out_channels, 8, 8, 8, requires_grad=True)
    network.layers[1](quarter).sum().backward()
    assert bool(quarter.grad.any()) is not detached


@pytest.mark.parametrize("depth", [18, 50])
def test_every_parameter_learns(depth):
    torch.manual_seed(0)
    network = DRAM(depth=depth, width=0.1, detached_shortcut=True)
    network(torch.rand(2, 1, 16, 24, 32)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.isfinite().all(), name
        # A bias ahead of batch norm in training is taken off again, up to rounding.
        assert parameter.grad.any() or name.endswith(".bias"), name


# Pooling


def test_mask_takes_the_first_of_two_voxels():
    mask = torch.zeros(1, 1, 4, 4, 6, dtype=torch.uint8)
    mask[..., 0::2, 2:, 3:] = 2
    small = at_map_size(mask, torch.zeros(1, 2, 2, 2, 3))
    assert small.dtype == torch.uint8
    assert small[0, 0].tolist() == [[[0, 0, 0], [0, 0, 2]]] * 2


def test_lung_means_by_hand():
    maps = torch.zeros(2, 2, 2, 2, 3)
    maps[0, 0, 0, 0], maps[0, 1] = torch.tensor([0.2, 0.4, 0.9]), 0.5
    maps[1, 0, 1, 1, 2] = 1.0
    lungs = torch.zeros(2, 1, 4, 4, 6)
    lungs[0, :, 0, 0, :4] = 1  # two voxels of the maps
    lungs[1, :, 2:] = 2  # one of the two slices, six voxels
    assert torch.allclose(lung_means(maps, lungs), torch.tensor([[0.3, 0.5], [1 / 6, 0.0]]))


def test_empty_lung_is_told_and_not_divided_by():
    lungs = torch.ones(2, 1, 4, 4, 4)
    lungs[1] = 0
    with pytest.raises(ValueError, match="the lung mask is empty, so no share of the lungs is defined: check"):
        lung_means(torch.rand(2, 2, 2, 2, 2), lungs)


def test_densities_by_hand():
    """Regression: the sigmoid of its two maps. Classification: 1 - softmax of grade 0, here 1 - 4/9 and 1 - 1/3."""
    regression = torch.tensor([0.0, log(3)]).reshape(1, 2, 1, 1, 1)
    assert subtype_densities(regression).flatten().tolist() == pytest.approx([0.5, 0.75])
    classification = torch.zeros(1, 9, 1, 1, 1)
    classification[0, 0] = log(4)
    assert subtype_densities(classification).flatten().tolist() == pytest.approx([5 / 9, 2 / 3])


def test_grades_are_means_over_the_whole_crop():
    logits = torch.arange(9.0).reshape(1, 9, 1, 1, 1).repeat(2, 1, 2, 3, 4)
    logits[1, :, 0] += 2
    cle, pse = grade_logits(logits)
    assert cle.tolist() == [[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6]]
    assert pse.tolist() == [[6, 7, 8], [7, 8, 9]]


# Against the authors' program


def golden(depth: int, regression: bool) -> dict[str, Any]:
    return json.loads((GOLDEN / f"{case_name(depth, regression)}.json").read_text())


def case_name(depth: int, regression: bool) -> str:
    return f"dram_resnet{depth}_{'reg' if regression else 'cls'}"


def pooled_outputs(logits: Tensor, lungs: Tensor, regression: bool) -> dict[str, Tensor]:
    """What the published program returns: maps and their means of both subtypes."""
    if regression:
        maps = logits.sigmoid()
        (cle_map, pse_map), (cle, pse) = maps.split(1, dim=1), lung_means(maps, lungs).unbind(dim=1)
    else:
        (cle_map, pse_map), (cle, pse) = logits.split([6, 3], dim=1), grade_logits(logits)
    return {"cle_map": cle_map, "pse_map": pse_map, "cle_pooled": cle, "pse_pooled": pse}


def box_filter(network: DRAM) -> DRAM:
    """All convolutions average, all biases are 0, batch norm does nothing."""
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm3d):
            module.reset_parameters()
    return network


class Answers(NamedTuple):
    """Outputs of a parity case, and for regression the logits of the same network as a box filter."""

    depth: int
    regression: bool
    outputs: dict[str, Tensor]
    box_logits: Tensor | None


@pytest.fixture(scope="module", params=KINDS, ids=[case_name(*kind) for kind in KINDS])
def answers(request) -> Answers:
    depth, regression = request.param
    case = golden(depth, regression)
    network = shapes_only(depth=depth, regression=regression).eval()
    state = seeded_state_dict(case["checkpoint"], case["seed"], case["gains"])
    network.load_state_dict(convert(BUNDLE, state, network), assign=True)
    image, lungs = (seeded_input(name, shape, case["seed"]) for name, shape in case["inputs"].items())
    striped = ((torch.arange(32 * 48 * 64) * 7919) % 101 / 101).reshape(1, 1, *SHAPE)
    with torch.no_grad():
        outputs = pooled_outputs(network(image), lungs > 0.3, regression)
        return Answers(depth, regression, outputs, box_filter(network)(striped) if regression else None)


def test_network_answers_like_the_authors_program(answers):
    case = golden(answers.depth, answers.regression)
    for name, expected in case["outputs"].items():
        ours = answers.outputs[name]
        assert list(ours.shape) == expected["shape"], name
        allowed = case["tolerance"] * expected["std"] if ours.numel() > 16 else 1e-5
        difference = ours.flatten()[expected["index"]] - torch.tensor(expected["value"])
        assert difference.abs().max().item() <= allowed, name


def test_network_agrees_in_every_voxel(answers):
    name = case_name(answers.depth, answers.regression)
    if not (SHELF / f"{name}.npz").exists():
        pytest.skip(f"the full expected outputs are not at {SHELF}; the sampled ones in tests/golden were checked")
    spec = importlib.util.spec_from_file_location("parity_shelf", SHELF / "seeded.py")
    shelf = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(shelf)
    case = shelf.load_case(name, SHELF)
    assert set(case.outputs) == set(answers.outputs)
    for output, ours in answers.outputs.items():
        assert case.error(output, ours) <= 1, output


BOX_MAPS = {  # mean, deviation, first, central voxel, mean of the first half along the last axis
    18: [0.661088, 0.067911, 0.507896, 0.769421, 0.658825],
    34: [0.949816, 0.080336, 0.545181, 0.999908, 0.948337],
    50: [0.998770, 0.009630, 0.745738, 1.000000, 0.998704],
}
BOX_LOGITS = {  # mean, first, central voxel
    18: [0.682805, 0.031585, 1.205044],
    34: [4.704171, 0.181220, 9.293109],
    50: [22.618866, 1.076008, 40.004284],
}


def corner_and_middle(values: Tensor) -> list[float]:
    return values[0, 0, [0, 8], [0, 12], [0, 16]].tolist()


@pytest.mark.parametrize("answers", KINDS[:3], indirect=True, ids=["18", "34", "50"])
def test_box_filter(answers):
    """All channels of a head are the same then, so the logits of regression are those of classification too."""
    half = torch.zeros(1, 1, *SHAPE)
    half[..., :32] = 1
    for logits in answers.box_logits.split(1, dim=1):
        maps = logits.sigmoid()
        ours = [logits.mean().item(), *corner_and_middle(logits)]
        assert ours == pytest.approx(BOX_LOGITS[answers.depth], rel=5e-6, abs=2e-6)
        ours = [maps.mean().item(), maps.std().item(), *corner_and_middle(maps), lung_means(maps, half).item()]
        assert ours == pytest.approx(BOX_MAPS[answers.depth], rel=5e-6, abs=2e-6)
