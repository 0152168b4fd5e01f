"""From a scan in any axes to slices of its lungs, and labels back on it."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from pulmozoo.bundle.errors import BadInput
from pulmozoo.transforms.pattern_slices import (
    AnnotationSlicesd,
    LabelOnCTd,
    PatternSlicesd,
    PatternsOnScand,
    RandLungCropd,
)

SHAPE, SPACING_MM = (40, 36, 12), (2.0, 2.5, 6.0)  # axes L, P, S
WINDOW_HU = (-1000, 200)
AXES = ["LPS", "RAS", "SPL", "AIR"]


def volumes():
    """HU that tell the place, lungs of unequal size, and labels 1 to 3 by height."""
    x, y, z = torch.meshgrid(*(torch.arange(n) for n in SHAPE), indexing="ij")
    ct = (-1000 + 20 * x + 5 * y + 10 * z).to(torch.int16)
    lungs = torch.zeros(SHAPE, dtype=torch.uint8)
    lungs[24:36, 8:30, 2:10], lungs[4:16, 6:28, 1:11] = 1, 2
    label = torch.where(z < 5, 1, torch.where(z < 8, 2, 3)).to(torch.uint8) * (lungs > 0)
    return ct, lungs, label


def stored(volume: torch.Tensor, axes: str) -> nib.Nifti1Image:
    affine = np.diag([-SPACING_MM[0], -SPACING_MM[1], SPACING_MM[2], 1.0])
    affine[:3, 3] = (35, 40, -30)
    image = nib.Nifti1Image(volume.numpy(), affine)
    there = nib.orientations.axcodes2ornt(axes)
    return image.as_reoriented(nib.orientations.ornt_transform(nib.orientations.io_orientation(affine), there))


@pytest.fixture(params=AXES)
def scan(request, tmp_path):
    """Sample and truth in some axes; the label is a file, as a datalist names it."""
    ct, lungs, label = (stored(volume, request.param) for volume in volumes())
    nib.save(label, tmp_path / "label.nii.gz")
    on = {
        key: MetaTensor(torch.from_numpy(np.ascontiguousarray(image.dataobj))[None], affine=image.affine)
        for key, image in (("ct_hu", ct), ("lungs", lungs), ("truth", label))
    }
    return {**on, "label": str(tmp_path / "label.nii.gz")}


def test_slices_hold_the_lungs_and_their_margin(scan):
    image = PatternSlicesd(WINDOW_HU, margin=3)(scan)["image"]
    ct, lungs, _ = volumes()
    # The slices of the lungs, and three pixels more around them in each slice.
    assert image.shape == (2, 10, 30, 38)
    expected = (ct[1:39, 3:33, 1:11].float() + 1000) / 1200
    assert torch.allclose(image[0], expected.permute(2, 1, 0), atol=1e-5)
    assert torch.equal(image[1], lungs[1:39, 3:33, 1:11].permute(2, 1, 0).float())


def test_pixels_of_a_given_size_and_slices_as_they_are(scan):
    image = PatternSlicesd(WINDOW_HU, pixel_mm=5.0, margin=2)(scan)["image"]
    step = image.affine[:3, :3].norm(dim=0)
    assert image.shape[1] == 10
    assert step[0].item() == pytest.approx(6.0)
    assert step[1:].tolist() == pytest.approx([5.0, 5.0], rel=0.1)
    assert set(image[1].unique().tolist()) == {0, 1, 2}


@pytest.mark.parametrize("pixel_mm", [None, 3.0])
def test_there_and_back(scan, pixel_mm):
    """Logits that know the truth give it back on the scan's own grid; all of the lung has a label."""
    data = PatternSlicesd(WINDOW_HU, pixel_mm=pixel_mm, margin=3)(scan)
    label = AnnotationSlicesd()(data)["label"][0]
    pred = torch.nn.functional.one_hot(label.long(), 4)[..., 1:].movedim(-1, 0).float() * 9
    back = PatternsOnScand()({**data, "pred": pred})["pred"]
    truth = scan["truth"].as_tensor()
    assert back.shape == truth.shape
    assert torch.allclose(back.affine, scan["ct_hu"].affine)
    assert torch.equal(back.as_tensor() > 0, scan["lungs"].as_tensor() > 0)
    assert torch.equal(back.as_tensor(), truth)


def test_annotated_slices_alone_are_kept(scan, tmp_path):
    _, _, label = volumes()
    label[:, :, 6:], label[:20] = 0, 0  # the left lung, slices 2 to 5
    label[0, 0, 9] = 2  # outside the lungs
    axes = "".join(nib.aff2axcodes(scan["ct_hu"].affine.numpy()))
    nib.save(stored(label, axes), tmp_path / "some.nii.gz")
    data = AnnotationSlicesd()({**PatternSlicesd(WINDOW_HU, margin=3)(scan), "label": str(tmp_path / "some.nii.gz")})
    assert data["image"].shape == (2, 4, 30, 38)
    assert data["label"].shape == (1, 4, 30, 38)
    assert data["crops"] == [(index, 1) for index in range(4)]
    crop = RandLungCropd(margin=2).set_random_state(0)(data)
    assert crop["image"].shape == (1, 26, 16)
    assert crop["label"].shape == (2, 26, 16)
    assert torch.equal(crop["label"][0] > 0, crop["label"][1] > 0)


def test_every_annotated_lung_is_drawn(scan):
    data = AnnotationSlicesd()(PatternSlicesd(WINDOW_HU, margin=3)(scan))
    assert len(data["crops"]) == 18
    draw = RandLungCropd(margin=1)
    draw.set_random_state(0)
    shapes = {tuple(draw(data)["image"].shape) for _ in range(40)}
    assert shapes == {(1, 24, 14)}
    places = {float(draw(data)["image"][0, 0, 0]) for _ in range(120)}
    assert len(places) == 18


def test_labels_without_an_annotation_are_refused(scan, tmp_path):
    nothing = nib.Nifti1Image(np.zeros(scan["ct_hu"].shape[1:], dtype=np.uint8), scan["ct_hu"].affine.numpy())
    nib.save(nothing, tmp_path / "nothing.nii.gz")
    with pytest.raises(BadInput, match=r"nothing.nii.gz: nothing is annotated in the lungs"):
        AnnotationSlicesd()({**PatternSlicesd(WINDOW_HU)(scan), "label": str(tmp_path / "nothing.nii.gz")})


def test_a_label_is_read_onto_the_ct(scan):
    assert torch.equal(LabelOnCTd()(scan)["label"].as_tensor(), scan["truth"].as_tensor())
