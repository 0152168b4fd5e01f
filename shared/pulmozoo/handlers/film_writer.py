"""What a run leaves of a chest film: mask, DICOM SEG, numbers, picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from ..bundle.errors import BadInput
from .dicom_seg import PALETTE, read_film, write_label_seg
from .film_overlay import film_overlay_png
from .results_writer import ResultsWriter


class FilmWriter(ResultsWriter):
    """Write ``<scan>/<scan>_seg.png`` with its numbers and overlay; for a film that came as DICOM a SEG too.

    ``data["pred"]`` is ``(X, Y)``, ``data["probabilities"]`` ``(2, X, Y)``.
    The mask holds label numbers and shows them in colour (a palette PNG). Probability maps are grey PNGs,
    ``<scan>_<label>_probability.png``, 255 stands for 1. Other arguments are those of
    :class:`.results_writer.ResultsWriter`.
    """

    source_key = "film"

    def __init__(self, *args: Any, output_ext: str = ".png", **more: Any) -> None:
        super().__init__(*args, output_ext=output_ext, **more)

    def maps(self, scan: str, *, dicom: bool) -> dict[str, str]:
        names = {"labels": f"{scan}_{self.output_postfix}{self.output_ext}"}
        if dicom and self.dicom_seg:
            names["dicom_seg"] = f"{scan}_{self.output_postfix}.dcm"
        if self.probability_maps:
            names |= {kind: f"{scan}_{kind}.png" for kind in self.probability_kinds()}
        return names

    def check_source(self, image: Path, *, dicom: bool) -> None:
        if self.output_ext != ".png" or self.output_dtype != "uint8":
            raise BadInput(f"masks of films cannot be {self.output_dtype} in {self.output_ext}: choose uint8 and .png")
        super().check_source(image, dicom=dicom)

    def draw(self, data: Mapping[str, Any], drafts: Mapping[str, Path], made_with: Mapping[str, Any]) -> None:
        labels = data["pred"][None]
        save_labels(labels, drafts["labels"])
        if "dicom_seg" in drafts:
            source = read_film(Path(data["film"].meta["filename_or_obj"]))
            write_label_seg(labels[..., None], source, drafts["dicom_seg"], self.label_names, made_with)
        kinds = [kind for kind in self.probability_kinds() if kind in drafts]
        for kind, probability in zip(kinds, data["probabilities"] if kinds else (), strict=True):
            grey(probability).save(drafts[kind])
        film_overlay_png(data["film"], labels, drafts["overlay"], self.named_labels())


def save_labels(labels: Tensor, path: Path) -> None:
    """Write ``(1, X, Y)`` label numbers as a PNG in the colours of the overlays, background black."""
    image = Image.fromarray(rows(labels[0]).astype(np.uint8))
    image.putpalette([value for colour in ((0, 0, 0), *PALETTE) for value in colour])
    image.save(path, format="PNG")


def grey(probability: Tensor) -> Image.Image:
    """``(X, Y)`` from 0 to 1 as a grey image."""
    return Image.fromarray(np.rint(rows(probability) * 255).astype(np.uint8))


def rows(pixels: Tensor) -> np.ndarray:
    """``(X, Y)`` as an array of rows."""
    return np.asarray(pixels.cpu()).T
