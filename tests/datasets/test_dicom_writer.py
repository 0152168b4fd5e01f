"""A series that is written is read back: the same HU, the same place."""

import numpy as np
import pydicom
import pytest

from pulmozoo.bundle.errors import BadInput
from pulmozoo.datasets.dicom_series import read_series
from pulmozoo.datasets.dicom_writer import write_series

SHAPE = (5, 7, 4)
CT_HU = np.arange(140, dtype=np.int16).reshape(SHAPE) * 28 - 1024
PLACE = np.array([[-0.7, 0, 0, 31.25], [0, -0.9, 0, 12.5], [0, 0, 2.5, -140.125], [0, 0, 0, 1]])


def turned(degrees):
    """The same grid turned about the first axis."""
    angle = np.radians(degrees)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn @ PLACE


@pytest.mark.parametrize("affine", [PLACE, turned(8), turned(90), np.diag([-1.0, -1, 1, 1]) @ PLACE])
def test_what_is_written_is_read_back(tmp_path, affine):
    write_series(tmp_path, CT_HU, affine, "one", 2.0, "test")
    ct_hu, found = read_series(tmp_path)
    np.testing.assert_array_equal(ct_hu, CT_HU)
    np.testing.assert_allclose(found, affine, atol=1e-6)


def test_padding_is_kept_and_named(tmp_path):
    padded = CT_HU.copy()
    padded[0] = -3024
    write_series(tmp_path, padded, PLACE, "one", 2.0, "test")
    np.testing.assert_array_equal(read_series(tmp_path)[0], padded)
    header = pydicom.dcmread(tmp_path / "0001.dcm")
    assert header.PixelPaddingValue == -2000  # as stored: what is read back after the intercept is added
    assert (header.PatientID, header.SliceThickness, header.Modality) == ("one", 2.0, "CT")


def test_the_same_scan_is_the_same_series_and_another_is_not(tmp_path):
    for name, ct_hu in (("first", CT_HU), ("again", CT_HU), ("other", CT_HU + 1)):
        write_series(tmp_path / name, ct_hu, PLACE, "one", 2.0, "test")
    first, again, other = (pydicom.dcmread(tmp_path / name / "0001.dcm") for name in ("first", "again", "other"))
    assert first.SOPInstanceUID == again.SOPInstanceUID
    assert first.SeriesInstanceUID == again.SeriesInstanceUID != other.SeriesInstanceUID
    instances = {pydicom.dcmread(file).SOPInstanceUID for file in (tmp_path / "first").iterdir()}
    assert len(instances) == SHAPE[2]


def test_left_handed_axes_are_refused(tmp_path):
    with pytest.raises(BadInput, match="the voxel axes are left-handed: expected right-handed ones for DICOM"):
        write_series(tmp_path, CT_HU, np.diag([-1.0, 1, 1, 1]) @ PLACE, "one", 2.0, "test")
    assert not list(tmp_path.iterdir())
