import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from conftest import tilted
from pulmozoo.transforms.grid import LabelsOnScand, ToWorkingGridd
from pulmozoo.transforms.upright import is_oblique, upright_affine, upright_box

SPL = np.array([[0.0, 0, -1], [0, -1, 0], [1, 0, 0]])  # directions of the first, second and third voxel axis in RAS


def affine_of(directions: np.ndarray, spacing_mm: tuple[float, ...], origin: tuple[float, ...]) -> torch.Tensor:
    affine = torch.eye(4, dtype=torch.float64)
    affine[:3, :3] = torch.from_numpy(directions * spacing_mm)
    affine[:3, 3] = torch.tensor(origin)
    return affine


@pytest.fixture
def oblique() -> MetaTensor:
    """A ball of 24 mm around (10, -20, 30) mm, brighter where x < 0, in a scan tilted by 20 degrees."""
    affine = affine_of(tilted(20) @ SPL, (3.0, 2.0, 2.5), (0, 0, 0))
    shape = (34, 48, 42)
    affine[:3, 3] = torch.tensor([10.0, -20, 30]) - affine[:3, :3] @ ((torch.tensor(shape) - 1) / 2).double()
    voxels = torch.stack(torch.meshgrid(*(torch.arange(n) for n in shape), indexing="ij"), dim=-1).double()
    x, y, z = (voxels @ affine[:3, :3].T + affine[:3, 3]).unbind(dim=-1)
    ball = ((x - 10) ** 2 + (y + 20) ** 2 + (z - 30) ** 2 < 24**2).float()
    return MetaTensor((ball + (ball > 0) * (x < 0))[None], affine=affine)


def test_angles_from_two_degrees_are_oblique():
    for degrees, expected in ((0, False), (1.9, False), (2.1, True), (15, True), (88.5, False), (90, False)):
        assert is_oblique(affine_of(tilted(degrees) @ SPL, (3, 1, 2), (0, 0, 0))) == expected


def test_sheared_slices_are_oblique():
    affine = affine_of(SPL, (3, 1, 1), (0, 0, 0))
    affine[1, 0] = 0.6  # each slice 0.6 mm further to the front: a gantry tilted by 11 degrees
    assert is_oblique(affine)


def test_box_of_an_upright_volume_is_its_own():
    affine = affine_of(SPL, (3, 1, 2), (5, -7, 11))
    first, extents = upright_box(affine, (4, 6, 9))
    assert extents.tolist() == pytest.approx([9, 5, 16])
    assert torch.allclose(upright_affine(first, extents, (4, 6, 9)), affine)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("grid", [{"spacing_mm": 2.0}, {"in_plane": 60}, {"shape": [64, 64, 64]}])
def test_an_oblique_scan_stands_upright_on_the_working_grid(oblique, grid, antialias):
    turned = ToWorkingGridd("image", grid, antialias=antialias)({"image": oblique})["image"]
    directions = turned.affine[:3, :3] / turned.affine[:3, :3].norm(dim=0)
    assert np.allclose(directions, SPL)
    weight = turned.as_tensor()[0]
    voxels = torch.stack(torch.meshgrid(*(torch.arange(n) for n in weight.shape), indexing="ij"), dim=-1).double()
    inside = (weight > 0.5).double()
    centre = (voxels * inside[..., None]).sum(dim=(0, 1, 2)) / inside.sum()
    assert np.allclose(turned.affine[:3, :3] @ centre + turned.affine[:3, 3], [10, -20, 30], atol=1.0)
    volume_ml = inside.sum() * turned.affine[:3, :3].det().abs() / 1000
    assert volume_ml == pytest.approx(4 / 3 * np.pi * 2.4**3, rel=0.05)
    assert weight[:, :, int(centre[2]) + 8 :].max() == pytest.approx(2)  # the mark is at the left


def test_labels_come_back_to_the_oblique_grid(oblique):
    to_grid = ToWorkingGridd("image", {"spacing_mm": 2.0}, label_keys="label")
    on_grid = to_grid({"image": oblique.clone(), "label": oblique.clone().to(torch.uint8)})
    truth = on_grid["label"].as_tensor()[0].long()
    shares = torch.nn.functional.one_hot(truth, 3).movedim(-1, 0).float()
    data = {"pred": shares, "image": on_grid["image"], "ct_hu": oblique}
    found = LabelsOnScand("pred", "ct_hu", channels=3)(data)["pred"]
    assert found.shape == oblique.shape
    assert torch.equal(found.affine, oblique.affine)
    for label in (1, 2):
        mine, yours = found.as_tensor() == label, oblique.as_tensor() == label
        assert 2 * (mine & yours).sum() / (mine.sum() + yours.sum()) > 0.95
