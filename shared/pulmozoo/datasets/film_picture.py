"""Read one chest film from a PNG or JPEG file."""

from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from ..bundle.errors import BadInput
from .stored_film import UNKNOWN_SPACING, StoredFilm, check_film_size, stretched

COLOUR_SPREAD = 40  # of 255: a tint, or the noise that JPEG puts into grey, differs less between the channels
COLOUR_SHARE = 0.1  # coloured marks and letters cover less


def read_picture(path: Path) -> StoredFilm:
    """Read a PNG or JPEG: grey of 1, 8 or 16 bit, palette, RGB or RGBA (over black) whose channels agree.

    16 bits are stretched between percentiles, since writers fill them to different heights.

    Raises BadInput for what is no such picture, is of a wrong size, damaged or coloured.
    """
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            check_film_size(*image.size)
            image.load()
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
            brightness = _brightness(image)
    except Image.UnidentifiedImageError as error:
        raise BadInput("it is no PNG or JPEG picture: expected a chest film; export it again") from error
    except Image.DecompressionBombError as error:
        raise BadInput(f"it is too large for a film ({error}): make it smaller first") from error
    except BadInput:
        raise
    except (OSError, SyntaxError, ValueError) as error:
        raise BadInput(f"it is truncated or damaged ({error}): copy or export it again") from error
    note = "the picture is stored turned (its EXIF orientation is not 1) and was read as it is stored"
    return StoredFilm(brightness, warnings=(UNKNOWN_SPACING, note) if turned else (UNKNOWN_SPACING,))


def _brightness(image: Image.Image) -> np.ndarray:
    """``(rows, columns)`` float32 in 0..1."""
    if image.mode.startswith(("I", "F")):
        return stretched(np.asarray(image).astype(np.float32))
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L")).astype(np.float32) / 255
    black = Image.new("RGBA", image.size, "black")
    shown = Image.alpha_composite(black, image.convert("RGBA")).convert("RGB")
    red, green, blue = (np.asarray(channel) for channel in shown.split())
    highest, lowest = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    coloured = np.count_nonzero(highest - lowest > COLOUR_SPREAD) / red.size
    if coloured > COLOUR_SHARE:
        raise BadInput(
            f"it is a colour picture ({coloured:.0%} of its pixels are coloured): expected a grey chest film; "
            "export the film itself"
        )
    return (red.astype(np.float32) + green + blue) / (3 * 255)
