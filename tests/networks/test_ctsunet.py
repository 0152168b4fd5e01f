import importlib.util
import json
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from pulmozoo.losses.ctsunet import CTSULoss
from pulmozoo.networks.ctsunet import (
    MARGIN,
    CTSUNet,
    centre_crop,
    check_patch_shape,
    check_scan_shape,
    hard_starts,
    patch_positions,
    probabilities,
    scan_positions,
    squared_error,
    window,
    window_starts,
)
from pulmozoo.weights import convert
from pulmozoo.weights.ctsunet import released_network
from seeded import seeded_input, seeded_state_dict

GOLDEN = Path(__file__).parents[1] / "golden"
SHELF = Path(__file__).parents[3] / "shared" / "parity"
SHAPE = (32, 48, 64)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def shapes_only(**options: Any) -> CTSUNet:
    """The full network without memory: only its shapes are real."""
    with torch.device("meta"):
        return CTSUNet(**options)


@pytest.fixture(scope="module")
def tiny() -> CTSUNet:
    torch.manual_seed(0)
    return CTSUNet(width=0.1).eval()


# Parameters (fact sheet, section 2)


@pytest.mark.parametrize(
    ("options", "stage1", "stage2"),
    [
        ({}, 3_848_447, 9_237_671),
        ({"slot_norm": True}, 3_848_447, 9_237_671),
        ({"released_widths": True}, 3_848_447, 9_185_799),
        ({"non_local": False}, 3_813_023, 9_184_711),
        ({"non_local": False, "released_widths": True}, 3_813_023, 12_945_862 - 3_813_023),
        ({"geometry": False}, 3_848_191, 9_237_415),
        ({"geometry": False, "released_widths": True}, 3_848_191, 13_033_734 - 3_848_191),
    ],
    ids=lambda value: "+".join(value) or "paper" if isinstance(value, dict) else None,
)
def test_parameters_are_those_of_the_paper(options, stage1, stage2):
    network = shapes_only(**options)
    assert (count(network.scan_unet), count(network.patch_unet)) == (stage1, stage2)
    assert count(network) == stage1 + stage2


@pytest.mark.parametrize(
    ("released", "stage", "down", "bridge", "non_local", "up", "heads"),
    [
        (False, "scan_unet", (10880, 46800, 304512), 1327872, 35424, (1769984, 290496, 62304), (150, 25)),
        (False, "patch_unet", (36432, 186912, 747072), 2987136, 52960, (3982080, 995712, 249024), (294, 49)),
        (True, "patch_unet", (26032, 166176, 747072), 2987136, 52960, (3982080, 995712, 228288), (294, 49)),
    ],
    ids=["stage 1", "stage 2", "stage 2 released"],
)
def test_parameters_of_each_part(released, stage, down, bridge, non_local, up, heads):
    unet = getattr(shapes_only(released_widths=released), stage)
    assert tuple(map(count, unet.down)) == down
    assert count(unet.bridge) == bridge
    assert count(unet.non_local) == non_local
    assert tuple(map(count, unet.up)) == up
    assert (count(unet.lobe_head), count(unet.border_head)) == heads


def test_width_scales_every_level_to_a_multiple_of_four():
    scan, patch = (shapes_only(width=0.4).get_submodule(f"{stage}_unet.bridge.3") for stage in ("scan", "patch"))
    assert (scan.in_channels, scan.out_channels) == (52, 104)  # 0.4 * 128 = 51.2, 0.4 * 256 = 102.4
    assert (patch.in_channels, patch.out_channels) == (76, 152)  # 0.4 * 192 = 76.8, 0.4 * 384 = 153.6


def test_convolutions_start_with_kaiming_normal_and_heads_with_a_small_bias(tiny):
    convolution = CTSUNet(width=0.5).patch_unet.bridge[3]
    assert convolution.bias is None
    assert convolution.weight.std().item() == pytest.approx(sqrt(2 / (27 * convolution.in_channels)), rel=0.01)
    assert torch.equal(tiny.scan_unet.lobe_head.bias, torch.full((6,), 0.01))


# Sizes


@pytest.mark.parametrize(("size", "bridge", "out"), [(92, 4, 4), (116, 7, 28), (124, 8, 36), (132, 9, 44)])
def test_stage_2_loses_44_voxels_on_each_side(size, bridge, out):
    network = shapes_only(non_local=False)  # no autocast on the meta device
    patch = torch.zeros(2, 8, size, 100, 108, device="meta")
    levels = network.patch_unet.levels(patch)
    assert network.patch_unet.bridge(F.max_pool3d(levels[-1], 2)).shape == (2, 384, bridge, 5, 6)
    assert network.stage2(patch, (0, 0, 0), (256, 256, 256)).shape == (2, 7, out, 12, 20)
    assert out == size - 2 * MARGIN


def test_stage_2_with_attention_takes_unequal_sizes(tiny):
    with torch.no_grad():
        logits = tiny.stage2(torch.rand(2, 8, 92, 100, 108), torch.tensor([[0, 0, 0], [4, 8, 16]]), (120, 136, 152))
    assert logits.shape == (2, 7, 4, 12, 20)


@pytest.mark.parametrize(
    ("size", "fitting"), [(96, "92 or 100"), (120, "116 or 124"), (84, "92 or 100"), (133, "132 or 140")]
)
def test_wrong_patch_size_names_the_next_that_work(tiny, size, fitting):
    with pytest.raises(ValueError, match=rf"got \(100, {size}, 92\): instead of {size} use {fitting}$"):
        tiny.stage2(torch.zeros(1, 8, 100, size, 92), (0, 0, 0), (256, 256, 256))
    for fits in fitting.split(" or "):
        check_patch_shape([int(fits)] * 3)


def test_wrong_scan_size_names_the_next_that_works(tiny):
    with pytest.raises(ValueError, match=r"divisible by 16, got \(40, 48, 5\): pad to \(48, 48, 16\)"):
        tiny(torch.zeros(1, 1, 40, 48, 5))
    check_scan_shape((48, 48, 16))


def test_centre_crop_starts_at_the_rounded_up_half():
    x = torch.arange(7.0).expand(1, 1, 7, 7, 7)
    assert centre_crop(x, (7, 7, 4))[0, 0, 0, 0].tolist() == [2, 3, 4, 5]  # ceil(3 / 2) = 2
    assert centre_crop(x, (7, 7, 3))[0, 0, 0, 0].tolist() == [2, 3, 4]


# What comes out


def test_whole_answer_is_stage_2_on_the_scan_in_a_frame_of_zeros(tiny):
    image = torch.rand(1, 1, *SHAPE)
    with torch.no_grad():
        answer = tiny(image)
        framed = torch.zeros(1, 8, 124, 140, 156)  # 44 on each side, and 4 more at the end
        framed[:, :1, 44:76, 44:92, 44:108] = image
        framed[:, 1:, 44:76, 44:92, 44:108] = probabilities(tiny.scan_logits(image))
        expected = tiny.stage2(framed, (0, 0, 0), (120, 136, 152))[:, :, :32, :48, :64]
    assert answer.shape == (1, 7, *SHAPE)
    assert torch.equal(answer, expected)


def test_stage_1_sees_the_scan_at_half_resolution(tiny):
    image = torch.rand(1, 1, *SHAPE)
    with torch.no_grad():
        half = F.interpolate(image, (16, 24, 32), mode="trilinear", align_corners=True)
        logits = tiny.stage1(half)
        assert logits.shape == (1, 7, 16, 24, 32)
        corners = tiny.scan_logits(image)[:, :, ::31, ::47, ::63]
    assert torch.allclose(corners, logits[:, :, ::15, ::23, ::31], atol=1e-5)  # align_corners keeps the corners


@pytest.mark.parametrize("shape", [(16, 16, 16), (16, 32, 48), (32, 16, 48)], ids=str)
def test_smallest_scans_have_a_bridge_of_one_voxel_along_an_axis(tiny, shape):
    with torch.no_grad():
        assert tiny.scan_logits(torch.rand(1, 1, *shape)).shape == (1, 7, *shape)


def test_probabilities_by_hand():  # softmax of log 3 against five zeros: 3 / 8
    logits = torch.tensor([np.log(3), 0, 0, 0, 0, 0, np.log(3)], dtype=torch.float32).reshape(1, 7, 1, 1, 1)
    assert probabilities(logits).flatten().tolist() == pytest.approx([3 / 8, *[1 / 8] * 5, 3 / 4])


# Positions


def test_scan_positions_differ_by_axis():
    z, y, x = scan_positions((2, 3, 1), torch.device("cpu"))[0]
    assert z[:, 0, 0].tolist() == [-0.5, 0.5]
    assert y[0, :, 0].tolist() == [-0.5, 0.0, 0.5]
    assert x.unique().tolist() == [-0.5]  # an axis of one voxel does not divide by zero
    assert z.std(dim=(1, 2)).max() == y.std(dim=(0, 2)).max() == 0


def test_patch_positions_by_hand():
    start = torch.tensor([[66.0, 0.0, 33.0], [0.0, 66.0, 0.0]])
    position = patch_positions((7, 4, 5), (116, 92, 100), start, (200, 134, 68))
    assert position.shape == (2, 3, 7, 4, 5)
    z, y, x = position[0]
    # Bridge voxels lie between 33.5 and (patch - 33.5) of the patch: 99.5 / 199, 33.5 / 133 and 66.5 / 67 of the scan.
    assert (z[:, 1, 2] + 0.5).tolist() == pytest.approx(np.linspace(99.5 / 199, 148.5 / 199, 7))
    assert (y[3, :, 2] + 0.5).tolist() == pytest.approx(np.linspace(33.5 / 133, 58.5 / 133, 4))
    assert (x[3, 1, :] + 0.5).tolist() == pytest.approx(np.linspace(66.5 / 67, 99.5 / 67, 5))
    assert (position[1, :, 0, 0, 0] + 0.5).tolist() == pytest.approx([33.5 / 199, 99.5 / 133, 33.5 / 67])


@pytest.mark.parametrize("geometry", [False, True])
def test_only_the_positions_tell_the_axes_apart(geometry):
    torch.manual_seed(0)
    network = CTSUNet(width=0.1, geometry=geometry).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv3d):  # blind to a swap of depth and height
                module.weight.copy_((module.weight + module.weight.transpose(2, 3)) / 2)
        image = torch.rand(1, 1, 24, 32, 40)
        swapped = network.stage1(image.transpose(2, 3)).transpose(2, 3)
        difference = (network.stage1(image) - swapped).abs().max()
    assert difference > 1e-3 if geometry else difference < 1e-5


# Windows and training


@pytest.mark.parametrize(
    ("length", "size", "starts"),
    [
        (256, 44, [0, 44, 88, 132, 176, 212]),
        (200, 44, [0, 44, 88, 132, 156]),
        (160, 44, [0, 44, 88, 116]),
        (88, 44, [0, 44]),
        (32, 44, [0]),
    ],
)
def test_windows_cover_an_axis_and_end_with_it(length, size, starts):
    assert window_starts(length, size) == starts


def test_squared_error_by_hand():  # even odds: (5/6)^2 and five times (1/6)^2, over six classes: 5/36
    error = squared_error(torch.zeros(2, 7, 2, 3, 4), torch.full((2, 1, 2, 3, 4), 3))
    assert error.shape == (2, 2, 3, 4)
    assert error.unique().tolist() == pytest.approx([5 / 36])
    sure = torch.zeros(1, 7, 1, 1, 1)
    sure[:, 4] = 50
    assert squared_error(sure, torch.full((1, 1, 1, 1, 1), 4.0)).item() == pytest.approx(0, abs=1e-12)


def test_small_share_takes_the_windows_where_the_error_is():
    error = torch.zeros(2, 12, 20, 32)
    error[0, 5, 13, 27], error[1, 9, 0, 8] = 1, 1
    # Windows of 12: 0 along depth, 0 and 8 along height, 0, 12 and 20 along width.
    assert hard_starts(error, 12, 2, share=0.01) == [[(0, 8, 20)] * 2, [(0, 0, 0)] * 2]


def test_share_of_one_draws_from_everywhere():
    torch.manual_seed(0)
    drawn = hard_starts(torch.rand(1, 12, 20, 32), 12, 60, share=1.0)[0]
    assert set(drawn) == {(0, y, x) for y in (0, 8) for x in (0, 12, 20)}
    half = hard_starts(torch.arange(12 * 20 * 32.0).reshape(1, 12, 20, 32), 12, 60, share=0.5)[0]
    assert set(half) == {(0, 8, x) for x in (0, 12, 20)}  # the larger values lie at larger heights


def test_no_window_is_drawn_twice_while_others_are_left():
    drawn = hard_starts(torch.rand(1, 12, 20, 32), 12, 6, share=1.0)[0]
    assert len(set(drawn)) == 6


def test_training_step_gives_logits_and_labels():
    network = CTSUNet(width=0.1)
    image, label = torch.rand(2, 1, *SHAPE), torch.randint(6, (2, 1, *SHAPE))
    with torch.no_grad():
        step = network(image, label, patches=2, patch=92, share=0.2)
        assert {key: tuple(value.shape) for key, value in step.items()} == {
            "scan_logits": (2, 7, *SHAPE),
            "patch_logits": (4, 7, 4, 4, 4),
            "patch_label": (4, 1, 4, 4, 4),
        }
        assert list(network(image, label, patches=0)) == ["scan_logits"]


def test_patches_lie_where_their_labels_do(tiny):
    stack, label = torch.rand(2, 8, *SHAPE), torch.randint(6, (2, 1, *SHAPE))
    starts = [[(20, 36, 52), (0, 12, 24)], [(8, 0, 4), (20, 24, 0)]]
    with torch.no_grad():
        step = tiny.patch_step(stack, label, starts, 100)
        framed = torch.zeros(2, 8, 120, 136, 152)
        framed[:, :, 44:76, 44:92, 44:108] = stack
        for index, (scan, (z, y, x)) in enumerate(zip((0, 0, 1, 1), starts[0] + starts[1], strict=True)):
            patch = framed[scan : scan + 1, :, z : z + 100, y : y + 100, x : x + 100]
            logits = tiny.stage2(patch, (z, y, x), (120, 136, 152))
            assert torch.allclose(step["patch_logits"][index], logits[0], atol=1e-5)
            assert torch.equal(step["patch_label"][index], window(label[scan], (z, y, x), 12))


def test_axis_shorter_than_a_patch_is_filled_at_its_end(tiny):
    stack, label = torch.rand(1, 8, 16, 32, 48), torch.randint(1, 6, (1, 1, 16, 32, 48))
    with torch.no_grad():
        step = tiny.patch_step(stack, label, [[(0, 4, 20)]], 116)
        framed = torch.zeros(1, 8, 116, 120, 136)  # depth holds 16 voxels of the 28 that come out
        framed[:, :, 44:60, 44:76, 44:92] = stack
        expected = tiny.stage2(framed[:, :, :, 4:, 20:], (0, 4, 20), (116, 120, 136))
    assert torch.allclose(step["patch_logits"], expected, atol=1e-5)
    assert torch.equal(step["patch_label"][0, :, :16], label[0, :, :, 4:32, 20:48])
    assert not step["patch_label"][:, :, 16:].any()


def test_every_trainable_parameter_learns_from_a_training_step():
    torch.manual_seed(0)
    network = CTSUNet(width=0.1)
    label = torch.randint(6, (1, 1, *SHAPE))
    CTSULoss(cross_entropy=1.0)(network(torch.rand(1, 1, *SHAPE), label, patches=1, patch=100), label).backward()
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            # phi's bias adds the same to all neighbours, which softmax ignores.
            assert parameter.grad.any() or name.endswith("non_local.phi.bias"), name
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert len(frozen) == 12
    assert all(".unused_norms." in name for name in frozen)


# Against the authors' program


def box_filter(network: CTSUNet) -> CTSUNet:
    """All convolutions and linear layers average, all biases are 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.Linear):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network.eval()


def striped(*shape: int) -> Tensor:
    return ((torch.arange(np.prod(shape)) * 7919) % 101 / 101).reshape(shape)


def summary(logits: Tensor, centre: int) -> list[float]:
    """Mean, deviation, first and central voxel of the lobe logits."""
    lobes = logits[:, :6]
    first = lobes[0, 0]
    return [value.item() for value in (lobes.mean(), lobes.std(), first[0, 0, 0], first[centre, centre, centre])]


@pytest.mark.parametrize(
    ("slot_norm", "expected"),
    [(True, [0.525088, 0.215034, 0.024296, 0.875350]), (False, [0.607336, 0.254204, 0.025805, 1.019763])],
)
def test_box_filter_stage_1(slot_norm, expected):
    with torch.no_grad():
        logits = box_filter(CTSUNet(slot_norm=slot_norm)).stage1(striped(1, 1, 32, 32, 32))
    assert summary(logits, 16) == pytest.approx(expected, abs=2e-6)
    assert torch.allclose(logits[:, 6], logits[:, 0])


@pytest.mark.parametrize(
    ("released", "expected"),
    [(True, [1.655527, 0.000175, 1.655073, 1.655673]), (False, [1.526653, 0.000235, 1.526045, 1.526848])],
)
def test_box_filter_stage_2(released, expected):
    network = box_filter(CTSUNet(released_widths=released, slot_norm=released))
    with torch.no_grad():
        logits = network.stage2(striped(1, 8, 92, 92, 92), (0, 0, 0), (256, 256, 256))
    assert summary(logits, 2) == pytest.approx(expected, rel=5e-6, abs=2e-6)  # CPUs add in different orders


def golden(name: str) -> dict[str, Any]:
    return json.loads((GOLDEN / f"ctsunet_{name}.json").read_text())


def weights(case: dict[str, Any]) -> dict[str, Tensor]:
    return seeded_state_dict(case["checkpoint"], case["seed"], case["gains"])


def image(case: dict[str, Any]) -> Tensor:
    return seeded_input("image", case["inputs"]["image"], case["seed"])


@pytest.fixture(scope="module")
def released_outputs() -> dict[tuple[str, str], Tensor]:
    """What our network answers in the three golden cases, by case and output."""
    network = released_network().eval()
    outputs: dict[tuple[str, str], Tensor] = {}

    def keep(case: str, logits: Tensor, prefix: str = "") -> None:
        outputs[case, f"{prefix}lobe_logits"], outputs[case, f"{prefix}border_logits"] = logits.split([6, 1], dim=1)

    def keep_non_local(case: str, stage: nn.Module) -> RemovableHandle:
        return stage.non_local.register_forward_hook(lambda _, __, out: outputs.update({(case, "non_local"): out}))

    one, two, both = golden("stage1"), golden("stage2"), golden("cascade")
    stages = [{f"unet{number}.{name}": w for name, w in weights(c).items()} for number, c in ((1, one), (2, two))]
    with torch.no_grad():
        network.load_state_dict(convert("lung_lobe_ct_segmentation", stages[0] | stages[1]))
        hooks = [keep_non_local("stage1", network.scan_unet), keep_non_local("stage2", network.patch_unet)]
        keep("stage1", network.stage1(image(one)))
        keep("stage2", network.stage2(image(two), two["notes"]["patch_start"], two["notes"]["padded_scan_shape"]))
        for hook in hooks:
            hook.remove()

        network.load_state_dict(convert("lung_lobe_ct_segmentation", weights(both)))
        scan = image(both)
        half = F.interpolate(scan, [n // 2 for n in scan.shape[2:]], mode="trilinear", align_corners=True)
        keep("cascade", network.stage1(half), prefix="stage1_")
        padded = F.pad(torch.cat([scan, probabilities(network.scan_logits(scan))], dim=1), [MARGIN] * 6)
        start, size = both["notes"]["patch_start"], both["notes"]["patch_size"]
        keep("cascade", network.stage2(window(padded[0], start, size)[None], start, padded.shape[2:]))
    return outputs


@pytest.mark.parametrize(
    ("case", "output"),
    [(case, output) for case in ("stage1", "stage2", "cascade") for output in golden(case)["outputs"]],
)
def test_released_network_answers_like_the_authors_program(released_outputs, case, output):
    recorded = golden(case)
    expected, ours = recorded["outputs"][output], released_outputs[case, output]
    assert list(ours.shape) == expected["shape"]
    allowed = recorded["tolerance"] * expected["std"]
    if (case, output) == ("cascade", "border_logits"):
        # With a deviation of 0.012 around a mean of 0.67, 1e-4 deviations (1.2e-6) are less than float32 noise: over
        # all voxels we differ by 1.6 to 1.9 times that on this machine (2 to 6 with other instruction sets), and the
        # expected values themselves lie 2.4e-6 = 2.0 times that from our float64 result.
        allowed = 5e-6
    difference = ours.flatten()[expected["index"]] - torch.tensor(expected["value"])
    assert difference.abs().max().item() <= allowed


def test_stage_1_agrees_in_every_voxel(released_outputs):
    if not (SHELF / "ctsunet_stage1.npz").exists():
        pytest.skip(f"the full expected outputs are not at {SHELF}; the sampled ones in tests/golden were checked")
    spec = importlib.util.spec_from_file_location("parity_shelf", SHELF / "seeded.py")
    shelf = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(shelf)
    case = shelf.load_case("ctsunet_stage1", SHELF)
    assert len(case.outputs) == 3
    for name in case.outputs:
        assert case.error(name, released_outputs["stage1", name]) <= 1, name
