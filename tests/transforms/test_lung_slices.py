from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from pulmozoo.bundle.errors import BadInput
from pulmozoo.transforms.lung_slices import AnnotatedSlicesd, LesionOnScand, LungSlicesd, slices_shape

SPACING = (2.0, 3.0, 4.0)  # along x, y, z
LUNG = (slice(3, 15), slice(2, 14), slice(4, 14))
LESION = (slice(3, 7), slice(5, 9), slice(6, 9))


def scan_data() -> dict[str, MetaTensor]:
    """A dark lung in tissue, with a darker lesion, in the axes L, P, S."""
    ct = torch.full((1, 20, 18, 16), 40, dtype=torch.int16)
    lungs = torch.zeros_like(ct, dtype=torch.uint8)
    ct[0][LUNG], lungs[0][LUNG] = -850, 1
    ct[0][LESION] = -1000
    affine = torch.diag(torch.tensor([-SPACING[0], -SPACING[1], SPACING[2], 1.0], dtype=torch.float64))
    return {key: MetaTensor(volume, affine=affine) for key, volume in (("ct_hu", ct), ("lungs", lungs))}


def turned_data(axcodes: str) -> dict[str, MetaTensor]:
    """The same patient stored along other axes."""
    turned = {}
    for key, volume in scan_data().items():
        image = nib.Nifti1Image(volume.numpy()[0], volume.affine.numpy())
        own = nib.orientations.io_orientation(image.affine)
        image = image.as_reoriented(nib.orientations.ornt_transform(own, nib.orientations.axcodes2ornt(axcodes)))
        turned[key] = MetaTensor(np.ascontiguousarray(image.dataobj)[None], affine=image.affine)
    return turned


@pytest.mark.parametrize(
    ("pixel_mm", "slice_mm", "expected"),
    [
        (None, None, (11, 13, 13)),
        (2.0, None, (11, 10, 10)),  # 12 gaps of 1.5 mm are 9 of 2 mm
        (None, 2.0, (6, 13, 13)),  # 10 gaps of 1 mm are 5 of 2 mm
        (None, 0.5, (11, 13, 13)),  # thicker slices stay
    ],
)
def test_shape_of_the_grid_by_hand(pixel_mm, slice_mm, expected):
    assert slices_shape((11, 13, 13), (1.0, 1.5, 1.5), pixel_mm, slice_mm) == expected


def test_a_coronal_scan_needs_a_pixel_size():
    with pytest.raises(BadInput, match=r"pixels of 5 x 0.8 mm, since it was taken in sagittal or coronal slices"):
        slices_shape((100, 30, 100), (0.8, 5.0, 0.8), None, None)
    assert slices_shape((100, 31, 101), (0.8, 5.0, 0.8), 2.0, None) == (100, 76, 41)


def test_native_slices_are_the_lungs_and_nothing_else():
    image = LungSlicesd((-1024, 0))(scan_data())["image"]
    assert image.shape == (1, 10, 12, 12)
    expected = np.full((10, 12, 12), (1024 - 850) / 1024)
    expected[2:5, 3:7, 0:4] = (1024 - 1000) / 1024
    assert np.allclose(image[0].numpy(), expected, atol=1e-6)
    first = image.affine[:3, 3].tolist()  # centre of the first voxel: x 3, y 2, z 4
    assert first == pytest.approx([-3 * 2.0, -2 * 3.0, 4 * 4.0])


def test_what_lies_outside_the_lungs_is_zero():
    data = scan_data()
    data["lungs"][0, 8:, 8:] = 0
    image = LungSlicesd((-1024, 0), pixel_mm=2.5, slice_mm=6.0)(data)
    assert image["image"].shape == image["lung"].shape == (1, 7, 14, 10)
    assert ((image["image"] > 0) == image["lung"]).all()
    assert not image["lung"][0, :, 9:, 6:].any()


@pytest.mark.parametrize("axcodes", ["RAS", "SLP", "LAI", "PSR"])
def test_the_stored_axes_do_not_matter(axcodes):
    slices = LungSlicesd((-1024, 0), pixel_mm=2.5)
    expected, image = slices(scan_data())["image"], slices(turned_data(axcodes))["image"]
    assert torch.allclose(image.as_tensor(), expected.as_tensor(), atol=1e-5)
    assert torch.allclose(image.affine, expected.affine)


@pytest.mark.parametrize("axcodes", ["LPS", "RAI", "SLP"])
@pytest.mark.parametrize(("pixel_mm", "slice_mm"), [(None, None), (1.5, 8.0)])
def test_an_answer_comes_back_to_its_place(axcodes, pixel_mm, slice_mm):
    data = LungSlicesd((-1024, 0), pixel_mm=pixel_mm, slice_mm=slice_mm)(turned_data(axcodes))
    dark = (data["image"] < 0.1) & data["lung"]
    data["pred"] = torch.where(dark, 8.0, -8.0)
    labels = LesionOnScand(probabilities_key="shares")(data)
    on_scan, shares = labels["pred"], labels["shares"]
    assert on_scan.dtype == shares.dtype == torch.uint8
    assert on_scan.shape == data["ct_hu"].shape
    assert torch.equal(on_scan.affine, data["ct_hu"].affine)
    truth = data["ct_hu"] == -1000
    overlap = 2 * (truth & (on_scan > 0)).sum() / (truth.sum() + on_scan.sum())
    assert overlap == 1 if slice_mm is None else overlap > 0.6
    assert (on_scan[data["lungs"] == 0] == 0).all()
    assert torch.equal(shares >= 128, on_scan > 0)


def test_the_threshold_counts_itself():
    data = LungSlicesd((-1024, 0))(scan_data())
    data["pred"] = torch.zeros_like(data["image"])
    assert LesionOnScand(threshold=0.5)(data)["pred"].sum() == 12 * 12 * 10
    assert LesionOnScand(threshold=0.51)(data)["pred"].sum() == 0


def with_label(folder: Path, axcodes: str = "LPS") -> dict[str, object]:
    data = turned_data(axcodes)
    label = (data["ct_hu"][0] == -1000).numpy().astype(np.uint8)
    nib.save(nib.Nifti1Image(label, data["ct_hu"].affine.numpy()), folder / "label.nii.gz")
    return {**data, "label": str(folder / "label.nii.gz")}


@pytest.mark.parametrize(("axcodes", "slices"), [("LPS", [4, 7, 8]), ("RAI", [11, 8, 7]), ("SPL", [4, 7, 8])])
def test_annotated_slices_by_hand(tmp_path, axcodes, slices):
    """Slice 4 of the scan is slice 0 of the lungs and holds no lesion; 7 and 8 hold 4 x 4 pixels of it."""
    data = {**LungSlicesd((-1024, 0))(with_label(tmp_path, axcodes)), "slices": slices}
    found = AnnotatedSlicesd()(data)
    assert found["targets"] == [0, 3, 4]
    assert found["label"].shape == (1, 3, 12, 12)
    assert found["label"].sum(dim=(0, 2, 3)).tolist() == [0, 16, 16]
    assert found["label"][0, 1, 3:7, 0:4].all()


def test_targets_on_joined_slices(tmp_path):
    """Ten slices of 4 mm become seven of 6 mm: slice 3 of the lungs lies at 12 mm, on slice 2."""
    data = LungSlicesd((-1024, 0), pixel_mm=1.5, slice_mm=6.0)(with_label(tmp_path))
    found = AnnotatedSlicesd()({**data, "slices": [7]})
    assert found["targets"] == [2]
    assert found["label"].shape == (1, 1, *data["image"].shape[2:])
    assert found["label"].float().mean() == pytest.approx(16 / 144, rel=0.15)


def test_without_a_list_all_slices_are_annotated(tmp_path):
    found = AnnotatedSlicesd()(LungSlicesd((-1024, 0))(with_label(tmp_path)))
    assert found["targets"] == list(range(10))
    assert found["label"].sum() == 4 * 4 * 3


def test_annotated_slices_without_lung_are_refused(tmp_path):
    data = {**LungSlicesd((-1024, 0))(with_label(tmp_path)), "slices": [0, 15]}
    with pytest.raises(BadInput, match="no annotated slice holds lung"):
        AnnotatedSlicesd()(data)
