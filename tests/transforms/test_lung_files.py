from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from pulmozoo.bundle.errors import BadInput
from pulmozoo.transforms.lung_files import LungFilesd

SHAPE, SPACING_MM = (12, 10, 8), (2.0, 2.5, 3.0)
AFFINE = np.diag([-2.0, -2.5, 3.0, 1.0])


@pytest.fixture
def sample() -> dict:
    return {"ct_hu": MetaTensor(torch.zeros(1, *SHAPE), affine=torch.from_numpy(AFFINE)), "scan": "a"}


@pytest.fixture
def labels() -> np.ndarray:
    volume = np.zeros(SHAPE, dtype=np.uint8)
    volume[2:5, 3:8, 1:6], volume[7:11, 3:8, 2:6] = 1, 2
    return volume


def save(path: Path, labels: np.ndarray, affine: np.ndarray = AFFINE, axes: str | None = None) -> Path:
    image = nib.Nifti1Image(labels, affine)
    if axes:
        own = nib.orientations.io_orientation(affine)
        image = image.as_reoriented(nib.orientations.ornt_transform(own, nib.orientations.axcodes2ornt(axes)))
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


def test_without_files_nothing_is_added(sample):
    assert LungFilesd()(sample).keys() == sample.keys()


@pytest.mark.parametrize("place", ["masks/a.nii.gz", "masks/a/a_seg.nii.gz", "masks/a.nii"])
def test_a_mask_is_found_by_the_id_of_the_scan(sample, labels, tmp_path, place):
    save(tmp_path / place, labels)
    found = LungFilesd(lung_masks=tmp_path / "masks")(sample)
    assert found["lung_mask"].dtype == torch.uint8
    assert np.array_equal(found["lung_mask"][0].numpy(), labels)
    assert "lobes" not in found


@pytest.mark.parametrize("axes", ["RAS", "SRA", "PIL"])
def test_other_axes_are_turned_to_those_of_the_ct(sample, labels, tmp_path, axes):
    path = save(tmp_path / "lobes.nii.gz", labels, axes=axes)
    found = LungFilesd(lobe_labels=path)(sample)
    assert np.array_equal(found["lobes"][0].numpy(), labels)
    assert torch.allclose(found["lobes"].affine, sample["ct_hu"].affine)


def test_a_path_in_the_sample_goes_before_the_folder(sample, labels, tmp_path):
    path = save(tmp_path / "own.nii.gz", labels)
    found = LungFilesd(lung_masks=tmp_path / "nowhere")({**sample, "lung_mask": str(path)})
    assert np.array_equal(found["lung_mask"][0].numpy(), labels)


def shifted(mm: float) -> np.ndarray:
    affine = AFFINE.copy()
    affine[0, 3] += mm
    return affine


@pytest.mark.parametrize(
    ("affine", "cut", "fits"),
    [
        (AFFINE, 1, False),
        (np.diag([-2.0, -2.5, 3.3, 1.0]), 0, False),
        (shifted(1.2), 0, False),
        (shifted(0.8), 0, True),
    ],
    ids=["fewer voxels", "other spacing", "more than half a voxel off", "less than half a voxel off"],
)
def test_a_mask_on_another_grid(sample, labels, tmp_path, affine, cut, fits):
    path = save(tmp_path / "mask.nii.gz", labels[cut:], affine)
    if fits:
        assert LungFilesd(lung_masks=path)(sample)["lung_mask"].shape == (1, *SHAPE)
        return
    with pytest.raises(BadInput, match=r"mask.nii.gz .* lies on another grid than the CT .*: expected one grid"):
        LungFilesd(lung_masks=path)(sample)


def test_a_scan_without_its_mask(sample, labels, tmp_path):
    save(tmp_path / "b.nii.gz", labels)
    with pytest.raises(BadInput, match=r"has no mask of a: expected a file, or a folder with a.nii.gz or .*a_seg.nii"):
        LungFilesd(lung_masks=tmp_path)(sample)


def test_a_mask_that_is_no_volume(sample, tmp_path):
    (tmp_path / "mask.nii.gz").write_bytes(b"no volume")
    with pytest.raises(BadInput, match=r"mask.nii.gz"):
        LungFilesd(lung_masks=tmp_path / "mask.nii.gz")(sample)
