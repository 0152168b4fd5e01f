import importlib.util
import json
import re
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pulmozoo.handlers.frozen_encoder import frozen_parameters
from pulmozoo.losses.pneumothorax import PneumothoraxLoss
from pulmozoo.networks.pneumothorax import PneumothoraxUNet, split_logits
from pulmozoo.weights import convert
from seeded import seeded_input, seeded_state_dict

GOLDEN = Path(__file__).parents[1] / "golden"
SHELF = Path(__file__).parents[3] / "shared" / "parity"
NARROW = 0.125
FULL = {"aspp": True, "hypercolumns": True, "scse": True}
CASES = {"baseline": {}, "aspp_hypercolumns_scse": FULL}
# Fact sheet, section 2: ASPP, hypercolumns, scSE; parameters, those of the decoder, those that stage 1 trains, GMACs of
# a 256 x 256 film; then mean, deviation, first and central pixel of the mask logits and the class logit of a 64 x 64
# film through box filters.
ARCHITECTURES = [
    ((0, 0, 0), (26928450, 890305, 5660802), 8.3006, (17.722898, 8.593872, 0.817242, 32.442356, 226.842712)),
    ((0, 0, 1), (27691806, 1653661, 6424158), 8.9141, (3396.277055, 1678.494112, 149.758789, 6301.562500, 226.842712)),
    ((0, 1, 0), (26940738, 902593, 5673090), 8.5019, (89.153890, 27.126244, 16.707523, 131.362274, 226.842712)),
    ((0, 1, 1), (27704094, 1665949, 6436446), 9.1154, (1774.115134, 763.868336, 156.610382, 3070.182617, 226.842712)),
    ((1, 0, 0), (26175810, 742849, 4908162), 8.2168, (25.051125, 12.225068, 1.115711, 46.060722, 586.313843)),
    ((1, 0, 1), (26569998, 1137037, 5302350), 8.7464, (5272.299319, 2607.810071, 226.167007, 9787.869141, 586.313843)),
    ((1, 1, 0), (26188098, 755137, 4920450), 8.4181, (137.354842, 41.329812, 25.383142, 201.345718, 586.313843)),
    ((1, 1, 1), (26582286, 1149325, 5314638), 8.9477, (2767.140747, 1190.238220, 238.686783, 4786.346680, 586.313843)),
]


def count(*modules: nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def shapes_only(**options: Any) -> PneumothoraxUNet:
    """The network without memory: only its shapes are real."""
    with torch.device("meta"):
        return PneumothoraxUNet(**options).eval()


def options_of(switches: tuple[int, int, int]) -> dict[str, bool]:
    return dict(zip(("aspp", "hypercolumns", "scse"), map(bool, switches), strict=True))


architectures = pytest.mark.parametrize(
    ("options", "parameters", "gmacs", "filtered"),
    [(options_of(switches), *expected) for switches, *expected in ARCHITECTURES],
    ids=["+".join(name for name, on in options_of(row[0]).items() if on) or "baseline" for row in ARCHITECTURES],
)


@pytest.fixture(scope="module")
def narrow() -> PneumothoraxUNet:
    torch.manual_seed(0)
    return PneumothoraxUNet(width=NARROW).eval()


# Numbers of the fact sheet


@architectures
def test_parameters_are_those_of_the_authors_logs(options, parameters, gmacs, filtered):
    network = shapes_only(**options)
    decoder = count(network.decoder, network.last, network.mask_head)
    frozen = sum(parameter.numel() for parameter in frozen_parameters(network.encoder))
    assert (count(network), decoder, count(network) - frozen) == parameters
    assert count(network.encoder) == 21_284_672
    assert count(network.encoder) - frozen == 17_024  # the encoder's batch norms
    assert count(network.centre) == (4_131_840 if options["aspp"] else 4_720_640)
    assert count(network.class_head) == (16_449 if options["aspp"] else 32_833)


def test_parameters_of_each_part_of_the_decoder():
    network = shapes_only()
    assert [count(block) for block in network.decoder] == [479_488, 147_712, 110_848, 110_848]
    assert (count(network.last), count(network.mask_head)) == (41_344, 65)


def test_place_map_of_one_channel_is_smaller():
    """C + 1 numbers instead of C * C + C in each of the eight modules."""
    channels = [768, 192, 128, 128, *[64] * 4]
    fewer = sum(c * c + c - (c + 1) for c in channels)
    assert count(shapes_only(scse=True)) - count(shapes_only(scse=True, sse_channels=1)) == fewer == 675_832


@architectures
def test_operations_of_a_film(options, parameters, gmacs, filtered):
    network = shapes_only(**options)
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, 256, 256, device="meta"))
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, rel=1e-3)


def box_filter(network: PneumothoraxUNet) -> PneumothoraxUNet:
    """All convolutions average, all biases are 0, all batch norms change nothing."""
    network = network.to_empty(device="cpu")
    for name, tensor in network.state_dict().items():
        is_scale = name.endswith("running_var") or (name.endswith("weight") and tensor.ndim == 1)
        tensor.fill_(1 / tensor[0].numel() if tensor.ndim > 1 else is_scale)
    return network


@architectures
def test_box_filter(options, parameters, gmacs, filtered):
    film = (torch.arange(3 * 64 * 64) * 7919 % 101 / 101).reshape(1, 3, 64, 64)
    with torch.no_grad():
        mask, there = split_logits(box_filter(shapes_only(**options))(film))
    values = (mask.mean(), mask.std(), mask[0, 0, 0], mask[0, 32, 32], there[0])
    assert [value.item() for value in values] == pytest.approx(filtered, rel=1e-4)


# What goes in and comes out


@pytest.mark.parametrize("options", [{}, FULL, FULL | {"sse_channels": 1}], ids=["baseline", "all", "one place map"])
def test_mask_and_class_of_each_film(options):
    torch.manual_seed(0)
    network = PneumothoraxUNet(width=NARROW, **options).eval().double()
    film = torch.rand(2, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        logits, second = network(film), network(film[1:])
    assert logits.shape == (2, 2, 64, 96)
    mask, there = split_logits(logits)
    assert (mask.shape, there.shape) == ((2, 64, 96), (2,))
    assert torch.equal(logits[:, 1], there[:, None, None].expand(2, 64, 96))
    assert there[0] != there[1]
    assert torch.allclose(logits[1:], second)


@pytest.mark.parametrize(("size", "fitting"), [((40, 64), (64, 64)), ((64, 33), (64, 64)), ((5, 100), (32, 128))])
def test_wrong_film_size_names_the_next_that_works(narrow, size, fitting):
    message = f"film sizes must be divisible by 32, got {size}: pad to {fitting}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        narrow(torch.zeros(1, 3, *size))
    assert narrow(torch.zeros(1, 3, *fitting)).shape == (1, 2, *fitting)


def test_wrong_number_of_place_maps_is_named():
    with pytest.raises(ValueError, match="sse_channels must be 'all' or 1, got 2"):
        shapes_only(scse=True, sse_channels=2)


def test_width_scales_every_level_to_a_multiple_of_eight():
    network = shapes_only(width=0.3, aspp=True, hypercolumns=True)
    assert network.encoder.channels == (16, 16, 40, 80, 152)  # 19.2, 38.4, 76.8, 153.6
    assert network.centre.join[0].out_channels == 80  # 76.8
    assert [block.convs[0].in_channels for block in network.decoder] == [80 + 80, 16 + 40, 16 + 16, 16 + 16]
    assert (network.last[0].in_channels, network.mask_head.in_channels) == (4 * 16, 16)
    assert network.class_head[0].weight.shape[:2] == (8, 160)


@pytest.mark.parametrize("options", [{}, FULL, FULL | {"sse_channels": 1}], ids=["baseline", "all", "one place map"])
def test_every_parameter_learns(options):
    torch.manual_seed(0)
    network = PneumothoraxUNet(width=NARROW, **options)
    label = torch.rand(2, 1, 64, 96) > 0.9
    PneumothoraxLoss()(network(torch.rand(2, 3, 64, 96)), label).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_first_weights():
    torch.manual_seed(0)
    network = PneumothoraxUNet(aspp=True, width=0.5)
    expected = {
        "encoder.layer3.1.conv1": sqrt(2 / (9 * 128)),  # Kaiming normal by fan-out
        "decoder.0.convs.0": sqrt(2 / (9 * 32)),
        "centre.branches.2.0": sqrt(2 / (9 * 256)),  # by fan-in
        "class_head.0": 1 / sqrt(3 * 256),  # PyTorch's own: uniform up to 1 / sqrt(fan-in)
    }
    for name, deviation in expected.items():
        assert network.get_submodule(name).weight.std().item() == pytest.approx(deviation, rel=0.03), name
    assert shapes_only().centre[0].weight.shape == (512, 512, 3, 3)
    standard = PneumothoraxUNet(width=0.5).centre[0].weight.std().item()
    assert standard == pytest.approx(1 / sqrt(3 * 9 * 256), rel=0.03)


# Against the authors' program


def golden(name: str) -> dict[str, Any]:
    return json.loads((GOLDEN / f"pneumothorax_{name}.json").read_text())


def answers(state: dict[str, Tensor], film: Tensor, options: dict[str, bool]) -> dict[str, Tensor]:
    """Our network's answer with weights under their published names."""
    network = shapes_only(**options)
    network.load_state_dict(convert("pneumothorax_cxr_segmentation", state, network), assign=True)
    with torch.no_grad():
        mask, there = split_logits(network(film))
    return {"mask_logits": mask, "class_logit": there}


@pytest.mark.parametrize(("name", "options"), CASES.items(), ids=CASES)
def test_network_answers_like_the_authors_program(name, options):
    recorded = golden(name)
    state = seeded_state_dict(recorded["checkpoint"], recorded["seed"], recorded["gains"])
    ours = answers(state, seeded_input("image", recorded["inputs"]["image"], recorded["seed"]), options)
    assert set(recorded["outputs"]) == set(ours)
    for output, expected in recorded["outputs"].items():
        assert list(ours[output].shape) == expected["shape"]
        allowed = recorded["tolerance"] * expected["std"] if ours[output].numel() > 16 else 1e-5
        difference = ours[output].flatten()[expected["index"]] - torch.tensor(expected["value"])
        assert difference.abs().max().item() <= allowed, output


@pytest.mark.parametrize(("name", "options"), CASES.items(), ids=CASES)
def test_network_agrees_in_every_pixel(name, options):
    if not (SHELF / f"pneumothorax_{name}.npz").exists():
        pytest.skip(f"the full expected outputs are not at {SHELF}; the sampled ones in tests/golden were checked")
    spec = importlib.util.spec_from_file_location("parity_shelf", SHELF / "seeded.py")
    shelf = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(shelf)
    case = shelf.load_case(f"pneumothorax_{name}", SHELF)
    for output, ours in answers(case.state_dict, case.inputs["image"], options).items():
        assert case.error(output, ours) <= 1, output
