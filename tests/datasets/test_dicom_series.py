import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, RLELossless, SegmentationStorage

from dicom_writer import edit, write_ct_series, write_enhanced_ct
from pulmozoo.bundle.errors import BadInput
from pulmozoo.datasets import dicom_series
from pulmozoo.datasets.dicom_series import read_series

ANGLE = np.radians(20)
TURN = np.array([[1, 0, 0], [0, np.cos(ANGLE), -np.sin(ANGLE)], [0, np.sin(ANGLE), np.cos(ANGLE)]])


def affine_of(directions: np.ndarray) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = directions @ np.diag([0.7, 0.9, 2.5])
    affine[:3, 3] = [-31.5, 12.25, -140.5]
    return affine


AXES = {
    "LPS": affine_of(np.diag([-1.0, -1.0, 1.0])),
    "RAS": affine_of(np.eye(3)),
    "LPI": affine_of(np.diag([-1.0, -1.0, -1.0])),
    "sagittal": affine_of(np.eye(3)[[2, 0, 1]]),
    "oblique": affine_of(TURN),
}


@pytest.fixture
def ct_hu() -> np.ndarray:
    """Every voxel its own value, so that a swapped or flipped axis shows."""
    return np.arange(9 * 10 * 11, dtype=np.int16).reshape(9, 10, 11) - 1024


@pytest.fixture
def series(tmp_path, ct_hu):
    return write_ct_series(tmp_path / "ct", ct_hu, AXES["LPS"], series_uid="1.2.3")


def in_world(array: np.ndarray, affine: np.ndarray) -> nib.Nifti1Image:
    return nib.as_closest_canonical(nib.Nifti1Image(array.astype(np.float32), affine))


@pytest.mark.parametrize("name", AXES)
@pytest.mark.parametrize("enhanced", [False, True], ids=["classic", "enhanced"])
def test_round_trip_gives_the_same_hu_at_the_same_place(tmp_path, ct_hu, name, enhanced):
    path = tmp_path / "ct.dcm" if enhanced else tmp_path / "ct"
    (write_enhanced_ct if enhanced else write_ct_series)(path, ct_hu, AXES[name])
    array, affine = read_series(path)
    assert array.dtype == np.float32
    assert array.shape == ct_hu.shape
    came, wanted = in_world(array, affine), in_world(ct_hu, AXES[name])
    np.testing.assert_array_equal(came.get_fdata(), wanted.get_fdata())
    np.testing.assert_allclose(came.affine, wanted.affine, atol=1e-6)


def test_axes_that_run_as_dicom_wants_come_back_as_they_were(series, ct_hu):
    array, affine = read_series(series[0].parent)
    np.testing.assert_array_equal(array, ct_hu)
    np.testing.assert_allclose(affine, AXES["LPS"], atol=1e-9)


def test_slope_is_applied(series):
    for file in series:
        edit(file, RescaleSlope="0.5", RescaleIntercept="10")
    array, _ = read_series(series[0].parent)
    assert array[1, 0, 0] == 0.5 * 110 + 10  # stored: 1 + 109, as voxel (1, 0, 0) is HU -914 and the intercept -1024


def test_run_length_encoding_is_decoded(series, ct_hu):
    for file in series:
        data = pydicom.dcmread(file)
        data.compress(RLELossless)
        data.save_as(file)
    np.testing.assert_array_equal(read_series(series[0].parent)[0], ct_hu)


def test_positions_rounded_to_a_tenth_are_even(tmp_path, ct_hu):
    affine = AXES["LPS"] @ np.diag([1, 1, 0.25, 1])  # 0.625 mm
    for file in write_ct_series(tmp_path, ct_hu, affine):
        edit(file, ImagePositionPatient=[round(number, 1) for number in pydicom.dcmread(file).ImagePositionPatient])
    assert read_series(tmp_path)[1][2, 2] == pytest.approx(0.625, abs=0.01)


def test_several_series_are_listed_and_one_is_picked(series, ct_hu):
    folder = series[0].parent
    write_ct_series(folder, ct_hu[:, :, :8] + 7, AXES["LPS"], series_uid="1.2.4", description="lung")
    listed = r"1\.2\.3 \(11 slices, CT chest 5 mm\); 1\.2\.4 \(8 slices, CT lung\)"
    with pytest.raises(BadInput, match=rf"several CT series, pick one with --series UID: {listed}"):
        read_series(folder)
    with pytest.raises(BadInput, match=rf"has no series 9\.9; it has {listed}"):
        read_series(folder, "9.9")
    np.testing.assert_array_equal(read_series(folder, "1.2.4")[0], ct_hu[:, :, :8] + 7)


def test_scouts_reports_and_other_modalities_are_left_out(series, ct_hu):
    folder = series[0].parent
    scout, report = write_ct_series(folder, ct_hu[:, :, :2], AXES["sagittal"], series_uid="1.2.5")
    edit(scout, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    edit(report, SOPClassUID=SegmentationStorage, ImagePositionPatient=None, Modality="SEG")
    write_ct_series(folder, ct_hu, AXES["LPS"], series_uid="1.2.6", modality="PT")
    np.testing.assert_array_equal(read_series(folder)[0], ct_hu)


def test_another_modality_is_named(tmp_path, ct_hu):
    write_ct_series(tmp_path, ct_hu, AXES["LPS"], modality="MR")
    with pytest.raises(BadInput, match=r"expected modality CT, found MR \(11 files\)"):
        read_series(tmp_path)


def test_missing_slices_are_counted_and_placed(series):
    for index in (4, 5):
        series[index].unlink()
    # z of slice k is -140.5 + 2.5 k: the gap lies between slices 3 and 6
    with pytest.raises(
        BadInput, match=r"2 missing slices, between z = -133\.0 and -125\.5 mm: expected one every 2\.5"
    ):
        read_series(series[0].parent)


def test_doubled_positions_are_named(series):
    series[3].with_name("copy.dcm").write_bytes(series[3].read_bytes())
    with pytest.raises(BadInput, match=r"1 slices at a position that another one has, first at z = -133\.0 mm"):
        read_series(series[0].parent)


def test_uneven_slices_are_named(series):
    edit(series[5], ImagePositionPatient=[31.5, -12.25, -140.5 + 5.4 * 2.5])
    with pytest.raises(BadInput, match=r"unevenly spaced slices \(1\.50 to 3\.50 mm\)"):
        read_series(series[0].parent)


def test_gantry_tilt_is_not_supported(series):
    for index, file in enumerate(series):
        edit(file, ImagePositionPatient=[31.5, -12.25 + index * 0.5, -140.5 + 2.5 * index])
    with pytest.raises(BadInput, match=r"shift sideways by 5\.0 mm \(11\.3 degrees, as with a tilted gantry\)"):
        read_series(series[0].parent)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"PixelSpacing": None}, "lacks PixelSpacing"),
        ({"ImageOrientationPatient": None}, "lacks ImageOrientationPatient"),
        ({"ImagePositionPatient": None}, "lacks ImagePositionPatient"),
        ({"PixelSpacing": [0, 0.7]}, r"PixelSpacing 0.0 x 0.7: expected mm above 0"),
        ({"PixelSpacing": [0.9, 0.8]}, "mixes slices of different spacing"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, 1]}, "mixes slices of different orientation"),
        ({"Rows": 5, "PixelData": bytes(90)}, "mixes slices of different size"),
        ({"SamplesPerPixel": 3}, r"is a colour image \(3 samples a pixel\)"),
        ({"PixelData": bytes(20)}, "truncated or damaged pixel data"),
    ],
)
def test_a_broken_slice_is_named(series, values, said):
    edit(series[2], **values)
    with pytest.raises(BadInput, match=said):
        read_series(series[0].parent)


def test_a_truncated_file_is_named(series):
    series[2].write_bytes(series[2].read_bytes()[:-80])
    with pytest.raises(BadInput, match=rf"{series[2].name} (has truncated|cannot be read)"):
        read_series(series[0].parent)


def test_a_file_that_is_no_dicom_is_named(series):
    series[2].write_bytes(b"not DICOM")
    with pytest.raises(BadInput, match=rf"{series[2].name} cannot be read as DICOM"):
        read_series(series[0].parent)


def test_pixels_that_cannot_be_decoded_name_the_compression_and_the_extra(series):
    data = pydicom.dcmread(series[2])
    data.file_meta.TransferSyntaxUID = JPEG2000Lossless
    data.PixelData = encapsulate([b"no JPEG at all"])
    data["PixelData"].is_undefined_length = True
    data.save_as(series[2])
    with pytest.raises(BadInput, match=r"(?s)compressed as JPEG 2000 .*Lossless.* pip install 'pulmozoo\[dicom\]'"):
        read_series(series[0].parent)


def test_one_slice_is_no_volume(series):
    with pytest.raises(BadInput, match="has 1 CT slice: expected a volume"):
        read_series(series[0])


def test_the_missing_extra_is_named(series, monkeypatch):
    monkeypatch.setattr(dicom_series, "has_pydicom", False)
    with pytest.raises(BadInput, match=r"DICOM needs the dicom extra: pip install 'pulmozoo\[dicom\]'"):
        read_series(series[0].parent)
