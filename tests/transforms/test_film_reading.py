import io
import logging
import pickle
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor, PILReader, decollate_batch
from PIL import Image
from pydicom.dataset import Dataset as Item
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLosslessSV1, RLELossless

from dicom_writer import write_ct_series
from film_writer import MARKER, chest_film, jpeg_baseline, jpeg_lossless, write_compressed_film, write_dicom_film
from film_writer import write_picture as picture
from pulmozoo.bundle.errors import BadInput
from pulmozoo.datasets.films import find_films
from pulmozoo.transforms.film_checks import MIN_DARKNESS, MIN_SYMMETRY, check_film, film_warnings, frontal_looks
from pulmozoo.transforms.film_reading import LoadFilmd, read_film

SHELF = Path("/work/shared/data")
NO_SHELF = pytest.mark.skipif(not SHELF.is_dir(), reason=f"the real films lie in {SHELF}")
FILM = chest_film()
BRIGHTNESS = FILM.T[None] / 255


def said(path: Path) -> str:
    with pytest.raises(BadInput) as caught:
        read_film(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def warned(path: Path) -> str:
    return str(LoadFilmd()({"image": path})["warnings"])


def assert_is(film: MetaTensor, brightness: np.ndarray, atol: float = 1e-6) -> None:
    assert film.dtype == torch.float32
    np.testing.assert_allclose(film.numpy(), brightness, atol=atol)


# Pictures


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P"])
def test_grey_pictures_of_every_mode_are_the_same_film(tmp_path, mode):
    assert_is(read_film(picture(tmp_path / "film.PNG", FILM, mode)), BRIGHTNESS)


def test_the_axes_are_those_of_monai(tmp_path):
    path = picture(tmp_path / "film.png", FILM)
    theirs, _ = PILReader().get_data(PILReader().read(str(path)))
    assert_is(read_film(path), theirs[None] / 255)


def test_one_bit(tmp_path):
    assert_is(
        read_film(picture(tmp_path / "film.png", (FILM > 100).astype(np.uint8) * 255, "1")), BRIGHTNESS > 100 / 255
    )


def test_sixteen_bits_are_stretched_whatever_part_of_them_is_used(tmp_path):
    films = []
    for factor in (16, 257):
        path = tmp_path / f"{factor}.png"
        Image.fromarray(FILM.astype(np.uint16) * factor).save(path)
        films.append(read_film(path))
    low, high = np.percentile(FILM, (0.5, 99.5))
    for film in films:
        assert_is(film, np.clip((FILM.T[None] - low) / (high - low), 0, 1), atol=1e-5)


@pytest.mark.parametrize(("suffix", "mode"), [(".jpg", "L"), (".JPEG", "RGB")])
def test_jpeg(tmp_path, suffix, mode):
    path = tmp_path / f"film{suffix}"
    Image.fromarray(FILM).convert(mode).save(path, format="JPEG", quality=98)
    assert_is(read_film(path), BRIGHTNESS, atol=0.1)


def test_transparent_pixels_are_black(tmp_path):
    colours = np.stack([FILM, FILM, FILM, np.full_like(FILM, 255)], axis=2)
    colours[50:, :, 3] = 0
    Image.fromarray(colours).save(tmp_path / "film.png")
    assert_is(read_film(tmp_path / "film.png"), np.where(np.arange(96) < 50, BRIGHTNESS, 0))


def test_the_meta_of_a_picture(tmp_path):
    meta = read_film(picture(tmp_path / "film.png", FILM)).meta
    assert (meta["filename_or_obj"], meta["view"], meta["modality"]) == (
        str(tmp_path / "film.png"),
        "unknown",
        "unknown",
    )
    assert "spacing_mm" not in meta
    assert torch.equal(meta["affine"], torch.eye(4, dtype=torch.float64))
    assert meta["warnings"] == "the pixel spacing is unknown, so areas are given in pixels only"


def test_a_picture_that_is_stored_turned_gets_a_warning(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(FILM).save(tmp_path / "film.jpg", exif=exif)
    assert "is stored turned" in warned(tmp_path / "film.jpg")


# DICOM


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("name", ["film.dcm", "1.2.840.113619"])
def test_both_photometric_interpretations_show_the_lungs_dark(tmp_path, photometric, name):
    stored = 255 - FILM if photometric == "MONOCHROME1" else FILM
    path = write_dicom_film(tmp_path / name, stored, PhotometricInterpretation=photometric)
    assert_is(read_film(path), BRIGHTNESS)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["u2", "i2"])
def test_bits_stored_signed_or_not_are_shown_through_the_window(tmp_path, bits, kind):
    top = 2**bits - 1
    lowest = -(2 ** (bits - 1)) if kind == "i2" else 0
    stored = (np.rint(FILM / 255 * top) + lowest).astype(kind)
    tags = {"BitsStored": bits, "HighBit": bits - 1, "WindowWidth": top + 1, "WindowCenter": lowest + (top + 1) / 2}
    assert_is(read_film(write_dicom_film(tmp_path / "film.dcm", stored, **tags)), BRIGHTNESS, atol=1e-3)


def test_bits_above_the_stored_ones_are_not_part_of_the_film(tmp_path):
    stored = FILM.astype(np.uint16) * 4 + 2**12
    path = write_dicom_film(
        tmp_path / "film.dcm", stored, BitsStored=10, HighBit=9, WindowCenter=510.5, WindowWidth=1021
    )
    assert_is(read_film(path), BRIGHTNESS)


@pytest.mark.parametrize(
    ("function", "expected"),
    [  # center 100, width 50, for the stored values 74, 87, 100, 112, 130
        ("LINEAR", [0, (87 - 99.5) / 49 + 0.5, (100 - 99.5) / 49 + 0.5, (112 - 99.5) / 49 + 0.5, 1]),
        ("LINEAR_EXACT", [0, 0.24, 0.5, 0.74, 1]),
        ("SIGMOID", [1 / (1 + np.exp(-4 * x / 50)) for x in (-26, -13, 0, 12, 30)]),
    ],
)
def test_window_functions_by_hand(tmp_path, function, expected):
    film = np.full((64, 64), 100, dtype=np.uint8)
    film[0, :5] = (74, 87, 100, 112, 130)
    tags = {"WindowCenter": [100, 7], "WindowWidth": [50, 3], "VOILUTFunction": function}
    shown = read_film(write_dicom_film(tmp_path / "film.dcm", film, **tags))
    np.testing.assert_allclose(shown[0, :5, 0].numpy(), expected, atol=1e-6)


def test_the_window_is_meant_after_rescaling(tmp_path):
    tags = {"RescaleSlope": 2, "RescaleIntercept": -100, "WindowCenter": 155.5, "WindowWidth": 511}
    path = write_dicom_film(tmp_path / "film.dcm", FILM.astype(np.uint16), BitsStored=8, HighBit=7, **tags)
    assert_is(read_film(path), BRIGHTNESS)


def test_a_voi_lut_goes_before_the_window(tmp_path):
    table = Item()
    table.LUTDescriptor, table.LUTData = [256, 0, 16], (np.arange(255, -1, -1) * 257).tolist()
    table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    tags = {"VOILUTSequence": [table], "WindowCenter": 1, "WindowWidth": 2}
    assert_is(read_film(write_dicom_film(tmp_path / "film.dcm", 255 - FILM, **tags)), BRIGHTNESS)


def test_without_a_window_more_than_eight_bits_are_stretched(tmp_path):
    low, high = np.percentile(FILM, (0.5, 99.5))
    for name, stored in {"a.dcm": FILM * np.uint16(3) + 100, "b.dcm": FILM.astype(np.int16) - 500}.items():
        film = read_film(write_dicom_film(tmp_path / name, stored))
        assert_is(film, np.clip((FILM.T[None] - low) / (high - low), 0, 1), atol=1e-5)


def test_a_film_that_is_almost_all_of_one_value_is_still_shown(tmp_path):
    stored = np.full((96, 80), 7, dtype=np.uint16)
    stored[40, 30] = 9
    film = read_film(write_dicom_film(tmp_path / "film.dcm", stored))
    assert (float(film.sum()), film[0, 30, 40]) == (1, 1)


def test_compressed_films(tmp_path):
    twelve = FILM.astype(np.uint16) * 16
    noisy = twelve + np.random.default_rng(0).integers(0, 16, FILM.shape, dtype=np.uint16)
    window = {"BitsStored": 12, "HighBit": 11, "WindowCenter": 2048, "WindowWidth": 4096}
    lossless = write_compressed_film(
        tmp_path / "lossless.dcm", noisy, jpeg_lossless(noisy, 12), JPEGLosslessSV1, **window
    )
    assert_is(read_film(lossless), noisy.T[None] / 4095)
    baseline = write_compressed_film(tmp_path / "baseline.dcm", FILM, jpeg_baseline(FILM), JPEGBaseline8Bit)
    assert_is(read_film(baseline), np.asarray(Image.open(io.BytesIO(jpeg_baseline(FILM)))).T[None] / 255, atol=0.01)
    stream = io.BytesIO()
    Image.fromarray(FILM).save(stream, format="JPEG2000", no_jp2=True)
    wavelets = write_compressed_film(tmp_path / "wavelets.dcm", FILM, stream.getvalue(), JPEG2000Lossless)
    assert_is(read_film(wavelets), BRIGHTNESS)


def test_run_length_encoded_film(tmp_path):
    path = write_dicom_film(tmp_path / "film.dcm", FILM)
    data = pydicom.dcmread(path)
    data.compress(RLELossless)
    data.save_as(path)
    assert_is(read_film(path), BRIGHTNESS)


SPACED = {"PixelSpacing": [4.0, 3.5]}  # rows first: 96 rows make 38.4 cm, 80 columns 28 cm


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (SPACED, (3.5, 4.0)),
        ({"ImagerPixelSpacing": [4.0, 3.5]}, (3.5, 4.0)),
        ({"PixelSpacing": [4.0, 3.5], "ImagerPixelSpacing": [4.4, 3.9]}, (3.5, 4.0)),
        ({"PixelSpacing": ""}, None),
        ({"PixelSpacing": [0, 0]}, None),
    ],
    ids=["pixel", "imager", "calibrated first", "empty", "zero"],
)
def test_spacing(tmp_path, tags, expected):
    film = read_film(write_dicom_film(tmp_path / "film.dcm", FILM, **tags))
    assert film.meta.get("spacing_mm") == expected
    assert film.affine.diagonal()[:2].tolist() == list(expected or (1, 1))
    assert ("pixel spacing is unknown" in film.meta["warnings"]) == (expected is None)


@pytest.mark.parametrize("step", [0.1, 20.0])
def test_a_spacing_that_no_plate_has_is_not_believed(tmp_path, step):
    film = read_film(write_dicom_film(tmp_path / "film.dcm", FILM, PixelSpacing=[step, step]))
    assert "spacing_mm" not in film.meta
    assert f"{80 * step / 10:.1f} x {96 * step / 10:.1f} cm" in film.meta["warnings"]


@pytest.mark.parametrize(
    ("position", "view"), [("PA", "PA"), ("AP", "AP"), ("LL", "LATERAL"), ("LATERAL", "LATERAL"), ("LLO", "unknown")]
)
def test_view_and_modality(tmp_path, position, view):
    path = write_dicom_film(tmp_path / "film.dcm", FILM, ViewPosition=position, **SPACED)
    film = read_film(path)
    assert (film.meta["view"], film.meta["modality"]) == (view, "DX")
    assert warned(path) == (
        "the file says that it is a lateral view: the network knows frontal films only" if view == "LATERAL" else ""
    )


def test_what_the_file_says_of_its_content_is_told(tmp_path):
    knee = write_dicom_film(tmp_path / "knee.dcm", FILM, BodyPartExamined="KNEE", **SPACED)
    assert warned(knee) == "the file says that it shows KNEE, not the chest"
    mirrored = write_dicom_film(tmp_path / "mirrored.dcm", FILM, PatientOrientation=["R", "F"], **SPACED)
    assert read_film(mirrored).meta["mirrored"]
    assert "stored mirrored" in warned(mirrored)
    usual = write_dicom_film(tmp_path / "usual.dcm", FILM, PatientOrientation=["L", "F"], **SPACED)
    assert not read_film(usual).meta["mirrored"]


# What is no film


def cut(path: Path, share: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def noise(kind: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (96, 80), dtype=np.uint8).astype(kind)


def no_such_file(folder: Path) -> Path:
    return folder / "film.png"


def truncated_dicom(folder: Path) -> Path:
    return cut(write_dicom_film(folder / "film.dcm", FILM), 0.8)


def truncated_lossless_jpeg(folder: Path) -> Path:
    stream = jpeg_lossless(noise(), 8)
    return write_compressed_film(folder / "film.dcm", FILM, stream[: len(stream) // 2], JPEGLosslessSV1)


def cut_lossless_jpeg(folder: Path) -> Path:
    return cut(write_compressed_film(folder / "film.dcm", FILM, jpeg_lossless(noise(), 8), JPEGLosslessSV1), 0.8)


def header_only(folder: Path) -> Path:
    return cut(write_dicom_film(folder / "film.dcm", FILM), 0.05)


def dicom(folder: Path, stored: np.ndarray = FILM, **tags: object) -> Path:
    return write_dicom_film(folder / "film.dcm", stored, **tags)


def multi_frame(folder: Path) -> Path:
    return dicom(folder, np.concatenate([FILM, FILM]), Rows=96, NumberOfFrames=2)


def ct_slice(folder: Path) -> Path:
    return write_ct_series(folder, np.zeros((80, 96, 1), dtype=np.int16), np.eye(4))[0]


def huge_dicom(folder: Path) -> Path:
    return dicom(folder, Rows=20_000, Columns=20_000)


def png(folder: Path, film: np.ndarray) -> Path:
    return picture(folder / "film.png", film)


def huge_png(folder: Path) -> Path:
    """A header of 20,000 x 20,000 pixels with its right checksum, and the beginning of the pixels."""
    head = b"IHDR" + (20_000).to_bytes(4, "big") * 2 + b"\x08\x00\x00\x00\x00"
    chunk = b"\x00\x00\x00\x0d" + head + zlib.crc32(head).to_bytes(4, "big")
    (folder / "film.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + b"\x00\x00\xff\xffIDAT")
    return folder / "film.png"


def truncated_png(folder: Path) -> Path:
    return cut(png(folder, noise()), 0.7)


def truncated_jpeg(folder: Path) -> Path:
    Image.fromarray(noise()).save(folder / "film.jpg")
    return cut(folder / "film.jpg", 0.7)


def colour_photograph(folder: Path) -> Path:
    pixels = np.stack([FILM, 255 - FILM, FILM // 2], axis=2)
    Image.fromarray(pixels).save(folder / "film.png")
    return folder / "film.png"


def text_file(name: str, folder: Path) -> Path:
    (folder / name).write_text("this is no film" * 20)
    return folder / name


def gif(folder: Path) -> Path:
    Image.fromarray(FILM).save(folder / "film.gif")
    return (folder / "film.gif").rename(folder / "film.png")


BAD = {
    "no such file": (no_such_file, "is no file: expected a chest film"),
    "truncated DICOM": (truncated_dicom, "truncated or damaged pixel data"),
    "truncated lossless JPEG": (truncated_lossless_jpeg, "truncated pixel data"),
    "cut lossless JPEG": (cut_lossless_jpeg, "was the file cut short"),
    "header only": (header_only, "(cannot be read|lacks)"),
    "no DICOM": (partial(text_file, "film.dcm"), "cannot be read as DICOM"),
    "multi-frame": (multi_frame, "has 2 frames: expected one film"),
    "palette colour": (partial(dicom, PhotometricInterpretation="PALETTE COLOR"), r"colour image \(PALETTE COLOR\)"),
    "no pixel data": (partial(dicom, PixelData=None), "has no pixel data"),
    "no rows": (partial(dicom, Rows=None), "lacks Rows"),
    "one bit": (partial(dicom, BitsStored=1, HighBit=0), "stores 1 bits a pixel: expected 8 to 16"),
    "CT slice": (ct_slice, "is of modality CT: expected a chest film"),
    "black DICOM": (partial(dicom, stored=np.zeros((96, 80), dtype=np.uint16)), "every pixel has the brightness 0"),
    "window off the film": (partial(dicom, WindowCenter=9000, WindowWidth=10), "or its window wrong"),
    "8 x 8 DICOM": (partial(dicom, stored=FILM[:8, :8]), "has 8 x 8 pixels: expected at least 64 a side"),
    "20,000 x 20,000 DICOM": (huge_dicom, "has 20000 x 20000 pixels: expected at most 8192 a side"),
    "white PNG": (partial(png, film=np.full((96, 80), 255, np.uint8)), "every pixel has the brightness 1"),
    "8 x 8 PNG": (partial(png, film=FILM[:8, :8]), "has 8 x 8 pixels: expected at least 64 a side"),
    "20,000 x 20,000 PNG": (huge_png, "is too large for a film"),
    "truncated PNG": (truncated_png, "is truncated or damaged"),
    "truncated JPEG": (truncated_jpeg, "is truncated or damaged"),
    "colour photograph": (colour_photograph, "is a colour picture"),
    "not an image": (partial(text_file, "film.png"), "is no PNG or JPEG picture"),
    "not a picture of ours": (gif, "is no PNG or JPEG picture"),
    "other suffix": (partial(text_file, "film.txt"), "is neither a picture nor DICOM"),
}


@pytest.mark.parametrize(("build", "sentence"), BAD.values(), ids=BAD)
def test_what_is_no_film_stops_with_one_sentence(tmp_path, build, sentence):
    path = build(tmp_path)
    with pytest.raises(BadInput, match=sentence) as caught:
        read_film(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_dicom_film_cut_anywhere_stops_with_a_sentence(tmp_path):
    whole = write_dicom_film(tmp_path / "film.dcm", FILM).read_bytes()
    for length in range(0, len(whole), 97):
        (tmp_path / "film.dcm").write_bytes(whole[:length])
        said(tmp_path / "film.dcm")


def test_a_huge_picture_below_the_alarm_of_pillow_is_stopped_by_its_header(tmp_path):
    Image.new("L", (9000, 64)).save(tmp_path / "film.png")
    assert "has 9000 x 64 pixels: expected at most 8192" in said(tmp_path / "film.png")


# What does not look like one


def test_a_frontal_film_by_hand():
    """Lungs of 0.25 beside a middle of 1 over a belly of 0.75, the rest 0: (1 + 0.75) / 2 - 0.25."""
    film = torch.zeros(1, 64, 64)
    film[0, 8:56, 18:40] = 0.25
    film[0, 26:38, 18:40] = 1
    film[0, 16:48, 48:60] = 0.75
    assert frontal_looks(film) == (pytest.approx(1), pytest.approx(0.625))
    assert frontal_looks(1 - film)[1] == pytest.approx(-0.625)


@pytest.mark.parametrize("name", ["lateral", "inverted", "noise"])
def test_what_does_not_look_like_a_frontal_film_gets_a_warning(tmp_path, name):
    lateral = np.full((96, 80), 200, dtype=np.uint8)
    lateral[:, 50:] = 10
    lateral[20:70, 15:45] = 90
    noise = np.random.default_rng(0).integers(0, 255, (96, 80), dtype=np.uint8)
    film = {"lateral": lateral, "inverted": 255 - FILM, "noise": noise}[name]
    assert "does not look like a frontal chest film" in warned(picture(tmp_path / "film.png", film))
    assert "does not look like" not in warned(picture(tmp_path / "film.png", FILM))


@NO_SHELF
def test_no_real_frontal_film_gets_that_warning():
    films = [
        read_film(film["image"])
        for name in ("nih-cxr14-subset", "cxr-dicom-mono1")
        for film in find_films(SHELF / name)
    ]
    assert len(films) == 43
    looks = np.array([frontal_looks(film.as_tensor()) for film in films])
    assert looks[:, 0].min() > MIN_SYMMETRY + 0.05
    assert looks[:, 1].min() > MIN_DARKNESS
    assert all(frontal_looks(1 - film.as_tensor())[1] < MIN_DARKNESS for film in films)
    assert not any(film_warnings(film) for film in films)


@NO_SHELF
def test_the_real_dicom_film_is_not_inverted_and_its_spacing_not_believed():
    film = LoadFilmd()({"image": SHELF / "cxr-dicom-mono1" / "cxr.dcm"})["film"]
    assert (film.shape, film.meta["view"], film.meta["modality"]) == ((1, 440, 440), "PA", "CR")
    lungs, middle = film[0, 100:150, 150:250].mean(), film[0, 200:240, 250:300].mean()
    assert lungs + 0.2 < middle
    assert "4.4 x 4.4 cm" in film.meta["warnings"]


# The transform


def test_the_film_stays_when_the_image_is_changed(tmp_path):
    data = LoadFilmd()({"image": str(picture(tmp_path / "film.png", FILM)), "scan": "film"})
    data["image"] += 1
    data["image"].affine[0, 0] = 7
    assert_is(data["film"], BRIGHTNESS)
    assert data["film"].affine[0, 0] == 1
    assert data["scan"] == "film"
    assert 0 < data["image"].meta["reading_seconds"] < 10


def test_batches_of_films_with_different_warnings_come_apart_again(tmp_path):
    first = write_dicom_film(tmp_path / "a.dcm", FILM, **SPACED)
    second = write_dicom_film(tmp_path / "b.dcm", 255 - FILM, PixelSpacing=[4.0, 4.0], BodyPartExamined="KNEE")
    samples = [{"image": str(path)} for path in (first, second)]
    (batch,) = DataLoader(Dataset(samples, LoadFilmd()), batch_size=2)
    apart = decollate_batch(batch)
    assert [len(sample["warnings"].split("\n")) for sample in apart] == [1, 2]
    assert [sample["film"].meta["spacing_mm"] for sample in apart] == [[3.5, 4.0], [4.0, 4.0]]


def test_a_loaded_film_is_taken_as_is():
    film = MetaTensor(torch.from_numpy(BRIGHTNESS).float(), meta={"filename_or_obj": "a.png"})
    data = LoadFilmd()({"image": film})
    assert_is(data["film"], BRIGHTNESS)
    assert data["film"].meta["filename_or_obj"] == "a.png"


@pytest.mark.parametrize(
    ("film", "sentence"),
    [
        (torch.rand(3, 80, 96), r"shape \(3, 80, 96\): expected one grey film"),
        (torch.rand(1, 80, 96) * 255, "are no brightness: expected 0"),
        (torch.full((1, 80, 96), torch.nan), "values nan to nan are no brightness"),
        (torch.zeros(1, 80, 96), "every pixel has the brightness 0"),
        (torch.rand(1, 80, 8), "has 80 x 8 pixels"),
    ],
)
def test_a_loaded_image_that_is_no_film(film, sentence):
    with pytest.raises(BadInput, match=sentence):
        LoadFilmd()({"image": MetaTensor(film)})
    with pytest.raises(BadInput, match=sentence):
        check_film(film)


def test_what_is_neither_path_nor_film():
    with pytest.raises(BadInput, match="'image' is a int: expected a path or a MetaTensor"):
        LoadFilmd()({"image": 3})


def test_the_transform_can_be_sent_to_workers(tmp_path, caplog):
    load = pickle.loads(pickle.dumps(LoadFilmd()))
    with caplog.at_level(logging.WARNING):
        assert load({"image": picture(tmp_path / "film.png", FILM)})["film"].shape == (1, 80, 96)


def test_the_marker_is_top_right(tmp_path):
    film = read_film(picture(tmp_path / "film.png", FILM))
    rows, columns = MARKER
    assert bool((film[0, columns, rows] == 1).all())
