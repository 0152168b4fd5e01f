import gzip
import logging
from functools import partial
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage

from conftest import write_nifti
from dicom_writer import write_ct_series
from pulmozoo.bundle.errors import BadInput
from pulmozoo.transforms import reading
from pulmozoo.transforms.reading import LoadImageCTd, check_ct, read_ct

AFFINE = np.array([[-0.75, 0, 0, 31.5], [0, -0.875, 0, 12.25], [0, 0, 2.5, -140.5], [0, 0, 0, 1]])

nifti = partial(write_nifti, affine=AFFINE)


def thorax(shape: tuple[int, ...] = (9, 10, 11)) -> np.ndarray:
    """Air at -1000 HU around a body of 40 HU, one corner marked so that a swapped or flipped axis shows."""
    ct_hu = np.full(shape, -1000, dtype=np.int16)
    ct_hu[2:-2, 2:-2, 2:-2] = 40
    ct_hu[0, 1, 2] = 500
    return ct_hu


def write_itk(path: Path, array: np.ndarray, is_vector: bool = False) -> Path:
    """Save ``(x, y, z)`` on the grid of AFFINE; ITK wants the axes reversed."""
    image = itk.image_from_array(np.ascontiguousarray(array.T), is_vector=is_vector)
    if array.ndim == 3:
        image.SetSpacing([0.75, 0.875, 2.5])
        image.SetOrigin([-31.5, -12.25, -140.5])
    itk.imwrite(image, str(path))
    return path


def said(path: Path) -> str:
    with pytest.raises(BadInput) as caught:
        read_ct(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.fixture
def paths(tmp_path):
    """One CT in each format."""
    write_ct_series(tmp_path / "dicom", thorax(), AFFINE)
    volumes = [nifti(tmp_path / name, thorax()) for name in ("a.nii", "a.nii.gz", "A.NII")]
    return [
        tmp_path / "dicom",
        *volumes,
        *(write_itk(tmp_path / name, thorax()) for name in ("a.mha", "a.mhd", "a.nrrd")),
    ]


def test_every_format_gives_the_same_scan(paths):
    for path in paths:
        ct_hu = read_ct(path)
        assert ct_hu.dtype == torch.int16
        np.testing.assert_array_equal(ct_hu[0].numpy(), thorax(), err_msg=path.name)
        np.testing.assert_allclose(ct_hu.affine.numpy(), AFFINE, atol=1e-6)
        np.testing.assert_allclose(np.asarray(ct_hu.meta["original_affine"]), AFFINE, atol=1e-6)
        assert ct_hu.meta["filename_or_obj"] == str(path)
        assert tuple(ct_hu.meta["spatial_shape"]) == (9, 10, 11)


def test_meta_is_what_load_image_gives(paths):
    for path in paths[1:]:
        wanted = LoadImage(image_only=True, ensure_channel_first=True)(path)
        ct_hu = read_ct(path)
        assert ct_hu.meta.keys() == wanted.meta.keys()
        assert torch.equal(ct_hu.affine, wanted.affine)
        assert torch.equal(ct_hu.as_tensor(), wanted.as_tensor())
    assert {"affine", "original_affine", "spatial_shape", "space", "original_channel_dim", "filename_or_obj"} <= (
        read_ct(paths[0]).meta.keys()
    )


@pytest.mark.parametrize("dtype", [">i2", np.int32, np.uint16, np.float32, np.float64])
def test_stored_types_scale_and_rounding(tmp_path, dtype):
    header = nib.Nifti1Header(endianness=">" if dtype == ">i2" else "<")
    header.set_data_dtype(dtype)
    image = nib.Nifti1Image((thorax() + 1024).astype(dtype), AFFINE, header)
    image.header.set_slope_inter(1, -1024.4)
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_array_equal(read_ct(tmp_path / "a.nii")[0].numpy(), thorax())


def test_padding_and_overflow_are_clamped(tmp_path):
    ct = thorax().astype(np.int32)
    ct[0, 0, :4] = [-2000, -3024, -32768, 40000]
    assert read_ct(nifti(tmp_path / "a.nii", ct))[0, 0, 0, :4].tolist() == [-1024, -1024, -1024, 32767]


def test_a_fourth_axis_of_one_is_dropped(tmp_path):
    for path in (
        nifti(tmp_path / "a.nii", thorax()[..., None]),
        write_itk(tmp_path / "a.mha", thorax()[..., None]),
    ):
        assert read_ct(path).shape == (1, 9, 10, 11)


def test_neither_sform_nor_qform_is_said_in_the_log(tmp_path, caplog):
    path = nifti(tmp_path / "a.nii", thorax(), sform_code=0, qform_code=0)
    with caplog.at_level(logging.WARNING, logger=reading.__name__):
        ct_hu = read_ct(path)
    assert "axes are taken as left, anterior, superior" in caplog.text
    assert nib.aff2axcodes(ct_hu.affine.numpy()) == ("L", "A", "S")


def test_files_that_cannot_be_read(tmp_path):
    noise = np.random.default_rng(0).integers(-1000, 500, (20, 21, 22)).astype(np.int16)
    packed = nifti(tmp_path / "whole.nii.gz", noise).read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(packed[: len(packed) // 2])
    (tmp_path / "cut.nii").write_bytes(gzip.decompress(packed)[:9000])
    (tmp_path / "damaged.nii.gz").write_bytes(packed[:5000] + b"\xff" * 2000 + packed[7000:])
    mha = write_itk(tmp_path / "whole.mha", thorax())
    (tmp_path / "cut.mha").write_bytes(mha.read_bytes()[:900])
    for name in ("garbage.nii", "garbage.nii.gz", "garbage.mha", "garbage.dcm", "garbage.png"):
        (tmp_path / name).write_bytes(b"no image " * 200)
    assert "does not exist: expected a CT file" in said(tmp_path / "nowhere.nii")
    assert "is truncated or damaged" in said(tmp_path / "cut.nii.gz")
    assert "is truncated or damaged" in said(tmp_path / "damaged.nii.gz")
    assert "cannot be read as a CT image" in said(tmp_path / "cut.nii")
    assert "cannot be read as a CT image" in said(tmp_path / "cut.mha")
    assert "cannot be read as a CT image" in said(tmp_path / "garbage.nii")
    assert "cannot be read as a CT image" in said(tmp_path / "garbage.nii.gz")
    assert "no image that ITK knows" in said(tmp_path / "garbage.mha")
    assert "no image that ITK knows" in said(tmp_path / "garbage.png")
    assert "cannot be read as DICOM" in said(tmp_path / "garbage.dcm")


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((9, 10), r"has 2 axes \(9 x 10\)"),
        ((9, 10, 11, 2), r"has 4 axes \(9 x 10 x 11 x 2\)"),
        ((9, 10, 7), "9 x 10 x 7 voxels: expected at least 8 along each axis"),
        ((7, 10, 11), "expected at least 8"),
        ((9, 0, 11), "is empty"),
    ],
)
def test_shapes_that_are_no_volume(tmp_path, shape, reason):
    with pytest.raises(BadInput, match=reason):
        read_ct(nifti(tmp_path / "a.nii", np.zeros(shape, np.int16)))
    if 0 not in shape:
        with pytest.raises(BadInput, match=reason):
            read_ct(write_itk(tmp_path / "a.mha", np.zeros(shape, np.int16)))


def test_colour_images(tmp_path):
    rgb = np.zeros((9, 10, 11), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    assert "colour image (RGB)" in said(nifti(tmp_path / "a.nii", rgb))
    vector = write_itk(tmp_path / "a.mha", np.zeros((3, 9, 10, 11), np.uint8), is_vector=True)
    assert "colour or vector image (3 values a voxel)" in said(vector)


def test_the_voxels_are_not_loaded_when_the_header_is_wrong(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "NibabelReader", None)
    assert "axes" in said(nifti(tmp_path / "a.nii", np.zeros((9, 10, 11, 3), np.int16)))


@pytest.mark.parametrize("spacing", [0, -0.9, np.nan, np.inf], ids=str)
def test_spacings_that_nibabel_would_repair(tmp_path, spacing):
    path = nifti(tmp_path / "a.nii", thorax(), pixdim=[1, 0.7, spacing, 2.5, 1, 1, 1, 1])
    assert f"voxel spacing is 0.7 x {spacing:g} x 2.5: expected mm above 0" in said(path)


@pytest.mark.parametrize(("header", "said_as"), [("0 0.875 2.5", "0"), ("-0.75 0.875 2.5", "-0.75")])
def test_spacings_that_itk_would_repair(tmp_path, header, said_as):
    path = write_itk(tmp_path / "a.mha", thorax())
    path.write_bytes(
        path.read_bytes().replace(b"ElementSpacing = 0.75 0.875 2.5", f"ElementSpacing = {header}".encode())
    )
    assert f"voxel spacing is {said_as} x 0.875 x 2.5: expected mm above 0" in said(path)


def test_a_spacing_that_is_not_written(tmp_path):
    path = write_itk(tmp_path / "a.mha", thorax())
    path.write_bytes(path.read_bytes().replace(b"ElementSpacing = 0.75 0.875 2.5\n", b""))
    assert "the header gives no voxel spacing" in said(path)


@pytest.mark.parametrize("scale", [0.001, 1000], ids=["metres", "micrometres"])
def test_spacings_in_another_unit(tmp_path, scale):
    path = nifti(tmp_path / "a.nii", thorax(), affine=np.diag([0.7, 0.9, 2.5, 1]) @ np.diag([scale, scale, scale, 1]))
    assert "expected 0.05 to 20.0 mm; is the header in another unit?" in said(path)


def test_axes_that_coincide(tmp_path):
    flat = AFFINE.copy()
    flat[:3, 1] = flat[:3, 0]
    with pytest.raises(BadInput, match="affine is singular"):
        check_ct(thorax()[None], flat)
    flat[:3, 1] = 0
    with pytest.raises(BadInput, match="expected mm above 0"):
        check_ct(thorax()[None], flat)


@pytest.mark.parametrize("third", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers(tmp_path, third):
    ct = thorax().astype(np.float32)
    ct[3, 4, 5:7], ct[0, 0, 0] = np.nan, third
    assert "3 voxels are NaN or infinite" in said(nifti(tmp_path / "a.nii", ct))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda ct: 0 * ct - 1000, "every voxel is -1000"),
        (lambda ct: np.interp(ct, [-1000, 500], [0, 255]).round(), "0 to 255 look like an 8-bit or normalised image"),
        (lambda ct: np.interp(ct, [-1000, 500], [0, 1]), "0 to 1 look like an 8-bit or normalised image"),
        (lambda ct: np.interp(ct, [-1000, 500], [-1, 1]), r"-1 to 1 hold no air \(nothing below -200\)"),
        (lambda ct: ct + 1024, r"24 to 1524 look like a CT stored with an offset: .*subtract 1024"),
        (lambda ct: np.where(ct == 500, -2000, ct + 1024), "24 to 1064 look like a CT stored with an offset"),
        (lambda ct: np.clip(ct, -160, 240), "-160 to 240 hold no air"),
    ],
    ids=["constant", "8-bit", "0..1", "-1..1", "offset", "offset and padding", "windowed"],
)
def test_values_that_are_no_hounsfield_units(change, reason):
    with pytest.raises(BadInput, match=reason):
        check_ct(change(thorax())[None].astype(np.float32), AFFINE)


def test_check_ct_takes_arrays_and_tensors_of_a_ct():
    check_ct(thorax()[None], AFFINE)
    check_ct(torch.from_numpy(thorax()[None]), torch.from_numpy(AFFINE))
    with pytest.raises(BadInput, match=r"shape \(9, 10, 11\): expected one channel"):
        check_ct(thorax(), AFFINE)


def test_the_itk_extra_is_named(tmp_path, monkeypatch):
    path = write_itk(tmp_path / "a.mha", thorax())
    monkeypatch.setattr(reading, "has_itk", False)
    assert "need the itk extra: pip install 'pulmozoo[itk]'" in said(path)


def test_dictionary_form_keeps_the_scan_and_hands_on_a_copy(paths):
    data = LoadImageCTd()({"image": str(paths[1]), "scan": "a"})
    assert data["scan"] == "a"
    assert (data["image"].dtype, data["ct_hu"].dtype) == (torch.float32, torch.int16)
    assert torch.equal(data["image"].as_tensor(), data["ct_hu"].as_tensor().float())
    data["image"].meta["affine"][0, 0] = 7
    data["image"].meta["filename_or_obj"] = "changed"
    assert data["ct_hu"].affine[0, 0] == pytest.approx(-0.75)
    assert data["ct_hu"].meta["filename_or_obj"] == str(paths[1])


def test_dictionary_form_takes_the_series_of_the_sample_first(tmp_path):
    for uid, extra in (("1.2.3", 0), ("1.2.4", 7)):
        write_ct_series(tmp_path, thorax() + np.int16(extra), AFFINE, series_uid=uid)
    load = LoadImageCTd(series="1.2.3")
    assert load({"image": tmp_path})["ct_hu"].max() == 500
    assert load({"image": tmp_path, "series": "1.2.4"})["ct_hu"].max() == 507


def test_dictionary_form_checks_what_is_already_loaded():
    image = MetaTensor(torch.from_numpy(thorax()[None]).float(), affine=torch.from_numpy(AFFINE))
    data = LoadImageCTd()({"image": image})
    assert torch.equal(data["ct_hu"].as_tensor(), image.as_tensor().to(torch.int16))
    with pytest.raises(BadInput, match="offset"):
        LoadImageCTd()({"image": image + 1024})
    with pytest.raises(BadInput, match="'image' is a ndarray: expected a path or a MetaTensor"):
        LoadImageCTd()({"image": thorax()})
