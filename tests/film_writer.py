"""Make small chest films and write them as files, for tests."""

import io
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

MARKER = (slice(2, 6), slice(70, 76))  # rows, columns: top right, so that a flip or a swap shows


def chest_film(rows: int = 96, columns: int = 80) -> np.ndarray:
    """``(rows, columns)`` uint8: a body of 160, lungs of 40 beside a middle of 200, air of 10 and a marker of 255."""
    y, x = np.mgrid[0:rows, 0:columns]
    across, down = (x + 0.5) / columns, (y + 0.5) / rows
    film = np.full((rows, columns), 160, dtype=np.uint8)
    film[np.abs(across - 0.5) < 0.12] = 200
    for center in (0.28, 0.72):
        film[((across - center) / 0.15) ** 2 + ((down - 0.45) / 0.33) ** 2 < 1] = 40
    film[(np.abs(across - 0.5) > 0.47) | (down < 0.02)] = 10
    film[MARKER] = 255
    return film


def write_picture(path: Path, film: np.ndarray, mode: str = "L") -> Path:
    """Write uint8 ``(rows, columns)`` as a picture of a mode, grey in all its channels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(film).convert(mode).save(path)
    return path


def write_dicom_film(path: Path, stored: np.ndarray, **tags: object) -> Path:
    """Write stored values ``(rows, columns)`` as a digital radiograph, 8 or 16 bits allocated by their type.

    Tags by keyword come on top; None leaves one out.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    data = _header(stored)
    data.PixelData = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
    return _save(data, path, tags)


def write_compressed_film(path: Path, stored: np.ndarray, stream: bytes, syntax: str, **tags: object) -> Path:
    """Write a film whose pixels are one compressed stream of a transfer syntax."""
    data = _header(stored)
    data.file_meta.TransferSyntaxUID = syntax
    data.PixelData = encapsulate([stream])
    data["PixelData"].is_undefined_length = True
    return _save(data, path, tags)


def jpeg_baseline(stored: np.ndarray) -> bytes:
    """uint8 ``(rows, columns)`` as a JPEG of high quality."""
    stream = io.BytesIO()
    Image.fromarray(stored).save(stream, format="JPEG", quality=98)
    return stream.getvalue()


def jpeg_lossless(stored: np.ndarray, bits: int) -> bytes:
    """Unsigned ``(rows, columns)`` as lossless JPEG with predictor 1 (ITU-T T.81, H.1.2) and codes of five bits."""
    rows, columns = stored.shape
    values = stored.astype(np.int64)
    expected = np.empty_like(values)
    expected[:, 1:] = values[:, :-1]
    expected[1:, 0] = values[:-1, 0]
    expected[0, 0] = 2 ** (bits - 1)
    coded = "".join(_lossless_word(int(difference)) for difference in (values - expected).ravel())
    coded += "1" * (-len(coded) % 8)
    body = int(coded, 2).to_bytes(len(coded) // 8, "big").replace(b"\xff", b"\xff\x00")
    lengths = bytes([0, 0, 0, 0, 17, *bytes(11)])
    return b"".join(
        [
            b"\xff\xd8",
            _segment(0xC3, bytes([bits]) + rows.to_bytes(2, "big") + columns.to_bytes(2, "big") + b"\x01\x01\x11\x00"),
            _segment(0xC4, b"\x00" + lengths + bytes(range(17))),
            _segment(0xDA, b"\x01\x01\x00\x01\x00\x00"),
            body,
            b"\xff\xd9",
        ]
    )


def _lossless_word(difference: int) -> str:
    """Category in five bits, then the difference in as many bits as the category says."""
    category = abs(difference).bit_length()
    if category == 0:
        return "00000"
    rest = difference if difference > 0 else difference + 2**category - 1
    return f"{category:05b}{rest:0{category}b}"


def _segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


def _header(stored: np.ndarray) -> Dataset:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = DigitalXRayImageStorageForPresentation, generate_uid()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.StudyInstanceUID, data.SeriesInstanceUID = generate_uid(), generate_uid()
    data.PatientID, data.PatientName, data.Modality, data.BodyPartExamined = "test", "Test", "DX", "CHEST"
    data.Rows, data.Columns = stored.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    bits = stored.dtype.itemsize * 8
    data.BitsAllocated, data.BitsStored, data.HighBit = bits, bits, bits - 1
    data.PixelRepresentation = int(stored.dtype.kind == "i")
    return data


def _save(data: Dataset, path: Path, tags: dict[str, object]) -> Path:
    for keyword, value in tags.items():
        if value is None:
            delattr(data, keyword)
        else:
            setattr(data, keyword, value)
    data.save_as(path, enforce_file_format=True)
    return path
