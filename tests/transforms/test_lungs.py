from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage

from pulmozoo.transforms.lungs import Lungsd, lungs_from_ct

DATA = Path(__file__).parents[3] / "shared" / "data"
SPACING_MM = (1.9, 1.1, 4.0)
LEFT, RIGHT = 1, 2


def ellipsoid(grid, center_mm, radii_mm) -> np.ndarray:
    return sum(((g - c) / r) ** 2 for g, c, r in zip(grid, center_mm, radii_mm, strict=True)) < 1


def chest() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """CT in HU, true lungs and affine of a chest: x to the right, y to the front, z up, the origin in the middle.

    The right lung is the larger one; a trachea with two bronchi that open into the lungs; room air, a table with a
    hollow, gas in the bowel, and a nodule of 8 mm at the pleura of the right lung, which belongs to the lung.
    """
    shape = (190, 240, 75)
    affine = np.diag([*SPACING_MM, 1.0])
    affine[:3, 3] = [-s * (n - 1) / 2 for s, n in zip(SPACING_MM, shape, strict=True)]
    grid = [
        (np.arange(n) * s + o).reshape([-1 if a == i else 1 for a in range(3)])
        for i, (n, s, o) in enumerate(zip(shape, SPACING_MM, affine[:3, 3], strict=True))
    ]
    x, y, z = grid
    noise = np.random.default_rng(0).normal(0, 15, shape)
    ct = np.full(shape, -1000.0)
    ct[((x / 165) ** 2 + (y / 110) ** 2 < 1)[..., 0]] = 30
    ct[:, (y[0, :, 0] < -113) & (y[0, :, 0] > -116)] = 100
    lungs = np.zeros(shape, dtype=np.uint8)
    lungs[ellipsoid(grid, (-75, 0, 0), (55, 80, 110))] = LEFT
    lungs[ellipsoid(grid, (75, 0, 0), (62, 82, 115))] = RIGHT
    ct[lungs > 0] = -860
    vessel = ellipsoid(grid, (75, 10, 0), (20, 5, 6))
    nodule = ellipsoid(grid, (134, 0, 0), (5, 4, 5))
    ct[vessel | nodule] = 40
    ct[(x**2 + y**2 < 9**2) & (z > 0)] = -995
    ct[(y**2 + (z - 5) ** 2 < 7**2) & (abs(x) < 25)] = -995
    ct[ellipsoid(grid, (-40, 50, -125), (30, 25, 20))] = -990
    return (ct + noise).astype(np.float32), lungs, affine


@pytest.fixture(scope="module")
def phantom():
    return chest()


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def reoriented(volume: np.ndarray, affine: np.ndarray, codes: str) -> tuple[np.ndarray, np.ndarray]:
    change = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(affine), nib.orientations.axcodes2ornt(codes)
    )
    return nib.orientations.apply_orientation(volume, change), affine @ nib.orientations.inv_ornt_aff(
        change, volume.shape
    )


def load(*parts: str) -> tuple[np.ndarray, np.ndarray]:
    path = DATA.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"real scan {path} is not here; the data folder is not part of the repository")
    image = nib.load(path)
    return np.asarray(image.dataobj), image.affine


def test_chest_gives_both_lungs(phantom):
    ct, truth, affine = phantom
    lungs = lungs_from_ct(ct, affine)
    assert lungs.dtype == np.uint8
    assert lungs.shape == ct.shape
    assert dice(lungs == LEFT, truth == LEFT) > 0.98
    assert dice(lungs == RIGHT, truth == RIGHT) > 0.98


def at(affine: np.ndarray, *mm: float) -> tuple[int, ...]:
    return tuple(np.rint(np.linalg.inv(affine) @ [*mm, 1])[:3].astype(int))


def test_vessels_and_pleural_nodule_are_lung_but_not_airway_gas_and_table(phantom):
    ct, _, affine = phantom
    lungs = lungs_from_ct(ct, affine)
    assert lungs[at(affine, 75, 10, 0)] == RIGHT
    assert lungs[at(affine, 132, 0, 0)] == RIGHT
    assert lungs[at(affine, 0, 0, 60)] == 0
    assert lungs[at(affine, 0, 0, 5)] == 0
    assert lungs[at(affine, -40, 50, -125)] == 0
    assert lungs[at(affine, 0, -125, 0)] == 0


def test_consolidation_at_the_pleura_is_kept_by_a_wider_closing(phantom):
    ct, truth, affine = phantom
    grid = [
        (np.arange(n) * step + first).reshape([-1 if axis == i else 1 for axis in range(3)])
        for i, (n, step, first) in enumerate(zip(ct.shape, SPACING_MM, affine[:3, 3], strict=True))
    ]
    solid = ellipsoid(grid, (130, 0, 0), (16, 14, 14)) & (truth == RIGHT)
    ill = np.where(solid, 40, ct).astype(np.float32)
    usual, wide = (lungs_from_ct(ill, affine, *closing) for closing in ((), (18.0,)))
    assert (usual == RIGHT)[solid].mean() < 0.5
    assert (wide == RIGHT)[solid].mean() > 0.85
    assert dice(wide > 0, truth > 0) > 0.95


@pytest.mark.parametrize("codes", ["LPS", "SAR", "PIL", "ASL"])
def test_lungs_do_not_depend_on_axis_order_and_direction(phantom, codes):
    ct, _, affine = phantom
    expected, _ = reoriented(lungs_from_ct(ct, affine), affine, codes)
    assert np.array_equal(lungs_from_ct(*reoriented(ct, affine, codes)), expected)


def test_tilted_grid_gives_the_same_lungs(phantom):
    ct, truth, affine = phantom
    angle = np.deg2rad(12)
    tilt = np.eye(4)
    tilt[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    assert dice(lungs_from_ct(ct, tilt @ affine) > 0, truth > 0) > 0.98


def test_lungs_that_touch_are_parted(phantom):
    ct, truth, affine = phantom
    joined = ct.copy()
    bridge = (slice(*sorted((at(affine, -25, 0, 0)[0], at(affine, 25, 0, 0)[0]))), slice(165, 180), slice(36, 42))
    joined[bridge] = -860
    lungs = lungs_from_ct(joined, affine)
    assert dice(lungs == LEFT, truth == LEFT) > 0.96
    assert dice(lungs == RIGHT, truth == RIGHT) > 0.96


@pytest.mark.parametrize(
    "crop",
    [np.s_[:, :, 25:50], np.s_[30:160, 30:220, 10:60], np.s_[20:170, 65:, :], np.s_[12:178, 20:220, :]],
    ids=["top and bottom", "both sides", "back", "body with corners of air"],
)
def test_lungs_cut_by_the_field_of_view_survive(phantom, crop):
    ct, truth, affine = phantom
    lungs = lungs_from_ct(ct[crop], affine)
    assert dice(lungs == LEFT, truth[crop] == LEFT) > 0.95
    assert dice(lungs == RIGHT, truth[crop] == RIGHT) > 0.95


def test_fill_outside_the_scanners_circle_is_not_lung(phantom):
    ct, truth, affine = phantom
    x, y = np.ogrid[: ct.shape[0], : ct.shape[1]]
    outside = ((x - 94.5) * SPACING_MM[0]) ** 2 + ((y - 119.5) * SPACING_MM[1]) ** 2 > 120**2
    filled = ct.copy()
    filled[outside] = -3024
    lungs = lungs_from_ct(filled, affine)
    assert not lungs[outside].any()
    assert dice(lungs > 0, (truth > 0) & ~outside[..., None]) > 0.95


@pytest.mark.parametrize("side", [LEFT, RIGHT])
def test_single_lung_keeps_its_side(phantom, side):
    ct, truth, affine = phantom
    other = ndimage.binary_dilation(truth == 3 - side, iterations=2)
    one = np.where(other, 30, ct)
    lungs = lungs_from_ct(one, affine)
    assert set(np.unique(lungs)) == {0, side}
    assert dice(lungs == side, truth == side) > 0.95


@pytest.mark.parametrize("side", [LEFT, RIGHT])
def test_field_of_view_around_one_lung_tells_its_side(phantom, side):
    ct, truth, _ = phantom
    half = np.s_[:92] if side == LEFT else np.s_[98:]
    lungs = lungs_from_ct(ct[half], np.diag([*SPACING_MM, 1]))  # without a useful origin
    assert dice(lungs == side, truth[half] == side) > 0.95


@pytest.mark.parametrize("hu", [-1000.0, 40.0], ids=["room air", "tissue"])
def test_no_lungs_give_zeros(hu):
    lungs = lungs_from_ct(torch.full((20, 30, 10), hu), torch.eye(4))
    assert lungs.shape == (20, 30, 10)
    assert not lungs.any()


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"\(X, Y, Z\), got \(1, 4, 4, 4\)"):
        lungs_from_ct(np.zeros((1, 4, 4, 4)), np.eye(4))
    with pytest.raises(ValueError, match=r"\(4, 4\), got \(3, 3\)"):
        lungs_from_ct(np.zeros((4, 4, 4)), np.eye(3))
    with pytest.raises(ValueError, match=r"MetaTensor \(1, X, Y, Z\), got Tensor"):
        Lungsd()({"ct_hu": torch.zeros(1, 4, 4, 4)})
    ct = MetaTensor(torch.zeros(1, 4, 4, 4))
    with pytest.raises(ValueError, match="lobes must have the shape of ct_hu"):
        Lungsd()({"ct_hu": ct, "lobes": torch.zeros(1, 4, 4, 5)})


def test_dictionary_form_takes_the_mask_then_the_lobes_then_the_ct(phantom):
    ct, truth, affine = phantom
    sample = {"ct_hu": MetaTensor(torch.from_numpy(ct)[None], affine=torch.from_numpy(affine))}
    lobes = torch.zeros(sample["ct_hu"].shape)
    lobes[0, 0, 0, :6] = torch.arange(6)
    mask = torch.zeros(sample["ct_hu"].shape, dtype=torch.bool)
    mask[0, 5] = True
    bare = Lungsd()(sample)["lungs"]
    assert isinstance(bare, MetaTensor)
    assert bare.dtype == torch.uint8
    assert torch.equal(bare.affine, sample["ct_hu"].affine)
    assert dice(bare[0].numpy() > 0, truth > 0) > 0.98
    from_lobes = Lungsd()({**sample, "lobes": lobes})["lungs"]
    assert from_lobes[0, 0, 0, :6].tolist() == [0, 1, 1, 2, 2, 2]
    assert from_lobes.dtype == torch.uint8
    given = Lungsd(output_key="out")({**sample, "lobes": lobes, "lung_mask": mask})["out"]
    assert torch.equal(given.as_tensor(), mask.to(torch.uint8))


def test_real_right_lung():
    ct, affine = load("elastix-3dct-lung", "ct.nii.gz")
    truth, _ = load("elastix-3dct-lung", "mask_baseline.nii.gz")
    lungs = lungs_from_ct(ct, affine)
    assert not (lungs == LEFT).any()
    assert dice(lungs == RIGHT, truth > 0) > 0.98  # 0.990


def test_real_lung_bases_without_bowel():
    ct, affine = load("totalsegmentator-example", "ct.nii.gz")
    labels, _ = load("totalsegmentator-example", "totalsegmentator_117.nii.gz")
    lungs = lungs_from_ct(ct, affine)
    assert dice(lungs == LEFT, np.isin(labels, (10, 11))) > 0.85
    assert dice(lungs == RIGHT, np.isin(labels, (12, 13, 14))) > 0.9


@pytest.mark.parametrize(
    ("parts", "left_ml", "right_ml"),
    [
        (("lung-pet-ct-dx-a0001", "ct_kernel_B.nii.gz"), 2356, 3247),
        (("lung-pet-ct-dx-a0001", "ct_kernel_L.nii.gz"), 2351, 3230),
        (("pyradiomics-lung1", "ct.nii.gz"), 1114, 1794),
    ],
    ids=["smooth kernel", "sharp kernel", "left hilar mass"],
)
def test_real_whole_lungs_keep_their_volume(parts, left_ml, right_ml):
    """Volumes as first measured, when the outlines were looked at and fitted."""
    ct, affine = load(*parts)
    lungs = lungs_from_ct(ct, affine)
    voxel_ml = abs(np.linalg.det(affine[:3, :3])) / 1000
    assert (lungs == LEFT).sum() * voxel_ml == pytest.approx(left_ml, rel=0.005)
    assert (lungs == RIGHT).sum() * voxel_ml == pytest.approx(right_ml, rel=0.005)
