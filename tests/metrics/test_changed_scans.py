import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from pulmozoo.metrics.changed_scans import flipped, noisy, resampled, write_changed
from pulmozoo.transforms.reading import read_ct

SHAPE, SPACING_MM = (20, 30, 9), (1.0, 2.0, 5.0)


@pytest.fixture
def ct_hu() -> MetaTensor:
    """A slope along the last axis, 10 HU a mm, from -1000."""
    affine = torch.diag(torch.tensor([-1.0, -2.0, 5.0, 1.0], dtype=torch.float64))
    affine[:3, 3] = torch.tensor([3.0, 4.0, 5.0])
    values = (torch.arange(9) * 50 - 1000).to(torch.int16).expand(1, *SHAPE).contiguous()
    return MetaTensor(values, affine=affine)


def at(volume: MetaTensor, index: tuple[int, int, int]) -> tuple[list[float], int]:
    """Where a voxel lies in the patient, in mm, and its HU."""
    place = volume.affine @ torch.tensor([*index, 1.0], dtype=torch.float64)
    return place[:3].tolist(), int(volume.as_tensor()[(0, *index)])


def test_a_flip_moves_nothing_in_the_patient(ct_hu):
    turned = flipped(ct_hu)
    assert turned.shape == ct_hu.shape
    for index in ((0, 0, 0), (3, 5, 2)):
        x, y, z = (n - 1 - i for n, i in zip(SHAPE, index, strict=True))
        assert at(turned, (x, y, z)) == at(ct_hu, index)


def test_noise_has_its_size_and_does_not_change(ct_hu):
    added = (noisy(ct_hu).as_tensor() - ct_hu.as_tensor())[..., 4:].float()  # further up nothing is cut at -1024
    assert abs(added.std() - 40) < 1.5
    assert noisy(ct_hu).min() == -1024
    assert torch.equal(noisy(ct_hu).as_tensor(), noisy(ct_hu).as_tensor())


def test_resampling_keeps_the_slope_and_the_ends(ct_hu):
    cubic = resampled(ct_hu)
    assert tuple(cubic.shape) == (1, 11, 30, 21)  # 19, 58 and 40 mm between the outer voxels in steps of about 2 mm
    assert at(cubic, (0, 0, 0))[0] == at(ct_hu, (0, 0, 0))[0]
    assert at(cubic, (10, 29, 20))[0] == pytest.approx(at(ct_hu, (19, 29, 8))[0])
    assert at(cubic, (4, 4, 10)) == (pytest.approx([3 - 7.6, 4 - 8, 5 + 20]), -800)


def test_changed_scans_are_written_once(ct_hu, tmp_path):
    scan = tmp_path / "in" / "chest.nii.gz"
    scan.parent.mkdir()
    nib.save(nib.Nifti1Image(ct_hu.as_tensor()[0].numpy(), ct_hu.affine.numpy()), scan)
    folders = write_changed(scan.parent, tmp_path / "out")
    assert list(folders) == ["noise", "resampled", "flipped"]
    written = {name: folder / "chest.nii.gz" for name, folder in folders.items()}
    assert at(read_ct(written["flipped"]), (19, 29, 8)) == at(ct_hu, (0, 0, 0))
    before = written["noise"].stat().st_mtime_ns
    written["flipped"].unlink()
    write_changed(scan.parent, tmp_path / "out")
    assert written["flipped"].exists()
    assert written["noise"].stat().st_mtime_ns == before
    assert np.array_equal(read_ct(written["noise"]).numpy(), noisy(ct_hu).numpy())
