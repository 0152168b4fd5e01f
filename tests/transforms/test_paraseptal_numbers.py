import json

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from pulmozoo.transforms.paraseptal_numbers import (
    ParaseptalNumbersd,
    largest_parts,
    pleura_distance_mm,
    slice_warning,
)

LOBES = {"0": "background", "1": "left upper lobe", "2": "left lower lobe"}


def scan(axes: tuple[int, int, int] = (0, 1, 2), *, flip: bool = False) -> dict[str, MetaTensor]:
    """Two lungs of 10 x 10 x 8 voxels of 2 x 2 x 5 mm in L, P, S; lesion: 2 x 3 pixels on slice 4, 1 on slice 6."""
    lungs = torch.zeros(30, 12, 12, dtype=torch.uint8)
    lungs[2:12, 1:11, 2:10], lungs[16:26, 1:11, 2:10] = 2, 1
    lesion = torch.zeros_like(lungs)
    lesion[16:18, 1:4, 4], lesion[20, 5, 6] = 1, 1
    lobes = torch.zeros_like(lungs)
    lobes[16:26, 1:11, 2:10] = 1
    affine = torch.diag(torch.tensor([-2.0, -2.0, 5.0, 1.0], dtype=torch.float64))
    if flip:
        lungs, lesion, lobes = (volume.flip(2) for volume in (lungs, lesion, lobes))
        affine[2] = -affine[2]
    matrix = affine.clone()
    matrix[:, :3] = affine[:, list(axes)]
    volumes = {"ct_hu": lungs.short(), "lungs": lungs, "pred": lesion, "lobes": lobes}
    return {key: MetaTensor(volume.permute(axes)[None], affine=matrix) for key, volume in volumes.items()}


def numbers_of(data: dict[str, MetaTensor]) -> dict[str, object]:
    result: dict[str, object] = ParaseptalNumbersd(max_slice_mm=5.0, lobe_names=LOBES)(data)["result"]
    return result


def test_numbers_by_hand():
    numbers = numbers_of(scan())
    assert numbers["lungs_volume_ml"] == 2 * 800 * 0.02
    assert numbers["paraseptal_volume_ml"] == pytest.approx(7 * 0.02)
    assert numbers["paraseptal_percent"] == pytest.approx(100 * 7 / 1600, abs=1e-3)
    assert numbers["left_lung_paraseptal_percent"] == pytest.approx(100 * 7 / 800, abs=1e-3)
    assert numbers["right_lung_paraseptal_percent"] == 0
    assert numbers["left_upper_lobe_paraseptal_percent"] == numbers["left_lung_paraseptal_percent"]
    assert numbers["left_lower_lobe_paraseptal_percent"] is None
    assert (numbers["lung_slices"], numbers["lesion_slices"]) == (8, 2)
    assert numbers["areas_cm2"] == [0, 0, 0, 0, 0.24, 0, 0.04, 0, 0, 0, 0, 0]
    assert (numbers["largest_area_cm2"], numbers["largest_area_slice"]) == (0.24, 4)
    assert (numbers["lesions"], numbers["largest_lesion_ml"]) == (2, 0.12)
    assert numbers["slice_warning"] is None
    json.dumps(numbers, allow_nan=False)


@pytest.mark.parametrize("axes", [(2, 0, 1), (1, 2, 0)])
def test_the_stored_axes_do_not_matter(axes):
    assert numbers_of(scan(axes)) == numbers_of(scan())


def test_areas_follow_the_order_in_which_the_scan_is_stored():
    expected, flipped = numbers_of(scan()), numbers_of(scan(flip=True))
    assert flipped["areas_cm2"] == expected["areas_cm2"][::-1]
    assert flipped["largest_area_slice"] == 7
    moved = ("areas_cm2", "largest_area_slice")
    assert {k: v for k, v in flipped.items() if k not in moved} == {k: v for k, v in expected.items() if k not in moved}


def test_a_scan_without_lesion():
    data = scan()
    data["pred"] = data["pred"] * 0
    del data["lobes"]
    numbers = numbers_of(data)
    assert (numbers["paraseptal_percent"], numbers["lesions"], numbers["largest_lesion_ml"]) == (0, 0, 0)
    assert (numbers["largest_area_slice"], numbers["pleura_distance_mm"]) == (None, None)
    assert not any("lobe" in name for name in numbers)


def test_lesions_that_touch_at_a_corner_are_one():
    lesion = np.zeros((4, 4, 4), dtype=bool)
    lesion[0, 0, 0] = lesion[1, 1, 1] = lesion[3, 3, 3] = True
    assert largest_parts(lesion, 0.5) == {"lesions": 2, "largest_lesion_ml": 1.0}


@pytest.mark.parametrize("fine", [1, 3])
def test_distance_to_the_pleura_by_hand(fine):
    """The middle of a cube of 9 voxels of 2 mm lies 10 mm from the next voxel outside; finer voxels change little."""
    lungs = np.ones((9 * fine,) * 3, dtype=bool)
    lesion = np.zeros_like(lungs)
    lesion[4 * fine : 5 * fine, 4 * fine : 5 * fine, 4 * fine : 5 * fine] = True
    distance = pleura_distance_mm(lesion, lungs, (2.0 / fine,) * 3)
    assert distance == pytest.approx(10.0, abs=0 if fine == 1 else 1.0)
    assert pleura_distance_mm(lesion & False, lungs, (2.0,) * 3) is None


def test_slices_further_apart_than_the_network_has_seen_are_told():
    assert slice_warning(5.0, 5.0) is None
    assert "slices 7.5 mm apart: the network has seen 5 mm at most" in str(slice_warning(7.5, 5.0))
