"""One picture of a label map on its CT: three planes, plain above and coloured below, with a legend."""

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path

import nibabel as nib
import numpy as np
from monai.data import MetaTensor
from PIL import Image, ImageDraw, ImageFont

Palette = Sequence[tuple[int, int, int]]

WINDOW_HU = (-1000.0, 400.0)
OPACITY = 0.35

# Okabe and Ito, "Color Universal Design" (2008), then two of Paul Tol's muted scheme; label 10 begins anew.
PALETTE: Palette = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (213, 94, 0),
    (204, 121, 167),
    (0, 114, 178),
    (153, 153, 51),
    (136, 34, 85),
)

_PANEL_PX = (520, 400)  # widest and tallest panel; the volume's own proportions decide which limit counts
_GAP_PX = 8
_LINE_PX = 24
_FONT_PX = 15
_INK = (230, 230, 230)

# Axis across the picture and down it, after both were turned to run from right to left, front to back, top to bottom.
PLANES = {"axial": (0, 1), "coronal": (0, 2), "sagittal": (1, 2)}
_MARKS = {"axial": ("R", "A"), "coronal": ("R", "S"), "sagittal": ("A", "S")}


def overlay_png(
    ct_hu: MetaTensor, labels: MetaTensor, path: str | PathLike[str], label_names: Mapping[int, str]
) -> None:
    """Write an axial, a coronal and a sagittal slice as PNG: the CT above, the labels on it below, a legend at the end.

    Each slice is the one of its direction that shows most (:func:`fullest_slice`). Patient
    right is on the left, front and head are up, proportions are those in mm; an oblique grid is shown along its
    closest anatomical axes. The title is the file name in the meta data of the CT, if there is one.

    Args:
        ct_hu: ``(1, X, Y, Z)`` CT in Hounsfield units, with affine.
        labels: small integers of the same shape and affine, 0 is background.
        path: the picture; missing folders are made.
        label_names: what the legend says, by label; a label that is found but not named shows its number.

    Raises ValueError if the two are not on one grid.
    """
    image, marks, spacing_mm = canonical_pair(ct_hu, labels)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    three_planes(image, [marks], spacing_mm, marks, title_of(ct_hu), label_names).save(target, format="PNG")


def truth_and_prediction(
    ct_hu: MetaTensor, truth: MetaTensor, prediction: MetaTensor, title: str, label_names: Mapping[int, str]
) -> Image.Image:
    """A picture as :func:`overlay_png` draws it, of two label maps, in the slices in which they differ most.

    The CT is above, the truth on it in the middle, the prediction below.
    """
    image, true, spacing_mm = canonical_pair(ct_hu, truth)
    _, predicted, _ = canonical_pair(ct_hu, prediction)
    return three_planes(image, [true, predicted], spacing_mm, true != predicted, title, label_names)


def three_planes(
    image: np.ndarray,
    maps: Sequence[np.ndarray],
    spacing_mm: np.ndarray,
    shown: np.ndarray,
    title: str,
    label_names: Mapping[int, str],
) -> Image.Image:
    """A slice in each direction of what :func:`canonical_pair` gives: the CT above, each label map on it below.

    The slices are those that show most of ``shown`` (:func:`fullest_slice`).
    """
    centers = [fullest_slice(shown, axis) for axis in range(3)]
    rows: list[list[Image.Image]] = [[] for _ in range(len(maps) + 1)]
    seen = set(label_names)
    for plane, axes in PLANES.items():
        through = 3 - sum(axes)
        size = panel_size([image.shape[a] * spacing_mm[a] for a in axes])
        grey = windowed(view(image, through, centers[through]), size)
        rows[0].append(marked(grey, plane))
        for row, marks in zip(rows[1:], maps, strict=True):
            slice_labels = enlarged(view(marks, through, centers[through]), size)
            seen.update(_labels_in(slice_labels))
            row.append(marked(coloured(grey, slice_labels), plane))
    legend = {value: label_names.get(value, str(value)) for value in sorted(seen - {0})}
    return sheet(rows, title, legend)


def canonical_pair(ct_hu: MetaTensor, labels: MetaTensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """CT and labels with axes to the right, to the front and up, and the voxel size (3,) in mm."""
    if ct_hu.ndim != 4 or ct_hu.shape[0] != 1 or labels.shape != ct_hu.shape:
        raise ValueError(
            f"CT and labels must have one shape (1, X, Y, Z), got {tuple(ct_hu.shape)} and {tuple(labels.shape)}"
        )
    affine = ct_hu.affine.cpu().numpy()
    if not np.allclose(affine, labels.affine.cpu().numpy(), atol=1e-2):
        raise ValueError("CT and labels must lie on one grid, but their affines differ")
    to_ras = nib.orientations.io_orientation(affine)
    image, marks = (
        nib.orientations.apply_orientation(t.as_tensor()[0].detach().cpu().numpy(), to_ras) for t in (ct_hu, labels)
    )
    ras_affine = affine @ nib.orientations.inv_ornt_aff(to_ras, ct_hu.shape[1:])
    return image, marks, np.linalg.norm(ras_affine[:3, :3], axis=0)


def fullest_slice(labels: np.ndarray, axis: int) -> int:
    """Index along ``axis`` of the slice that shows most, many labels and much of each; the middle one if all is 0.

    The sum of the square roots of the labels' areas is largest there. ``labels`` are small integers, or true and false.
    """
    across = tuple(a for a in range(3) if a != axis)
    shown = np.zeros(labels.shape[axis])
    for label in range(1, int(labels.max()) + 1):
        shown += np.sqrt(np.count_nonzero(labels == label, axis=across))
    return int(shown.argmax()) if shown.any() else labels.shape[axis] // 2


def view(volume: np.ndarray, through: int, index: int) -> np.ndarray:
    """Slice ``(height, width)`` as it is looked at: every canonical axis runs against the direction of reading."""
    return np.take(volume, index, axis=through)[::-1, ::-1].T


def panel_size(extent_mm: list[float]) -> tuple[int, int]:
    """Width and height in pixels of a panel for a slice of that width and height."""
    scale = min(limit / mm for limit, mm in zip(_PANEL_PX, extent_mm, strict=True))
    return max(1, round(extent_mm[0] * scale)), max(1, round(extent_mm[1] * scale))


def windowed(ct_hu: np.ndarray, size: tuple[int, int], window_hu: tuple[float, float] = WINDOW_HU) -> np.ndarray:
    """Slice in grey ``(height, width, 3)`` uint8, interpolated to ``size``; the window's ends are black and white."""
    low, high = window_hu
    scaled = np.clip((ct_hu.astype(np.float32) - low) / (high - low), 0, 1) * 255
    resized = Image.fromarray(scaled).resize(size, Image.Resampling.BILINEAR)
    return np.repeat(np.rint(np.asarray(resized)).astype(np.uint8)[..., None], 3, axis=2)


def enlarged(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Label slice ``(height, width)`` int64, nearest neighbour, at ``size``."""
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * old / new).astype(int), old - 1)
        for new, old in zip(size[::-1], labels.shape, strict=True)
    )
    return np.rint(labels[np.ix_(rows, columns)]).astype(np.int64)


def _colour(label: int, palette: Palette) -> tuple[int, int, int]:
    """Fixed colour of a label, so that pictures can be compared."""
    return palette[(label - 1) % len(palette)]


def coloured(grey: np.ndarray, labels: np.ndarray, palette: Palette = PALETTE) -> np.ndarray:
    """Labels laid over the slice: a tint inside, the full colour on the outline."""
    picture = grey.astype(np.float32)
    padded = np.pad(labels, 1, mode="edge")
    neighbours = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    outline = np.any([n != labels for n in neighbours], axis=0)
    for label in _labels_in(labels):
        region = labels == label
        colour = np.array(_colour(label, palette), dtype=np.float32)
        picture[region] += OPACITY * (colour - picture[region])
        picture[region & outline] = colour
    return np.rint(picture).astype(np.uint8)


def _labels_in(labels: np.ndarray) -> Iterable[int]:
    """The labels that occur, without background."""
    return (int(value) for value in np.unique(labels) if value != 0)


def marked(picture: np.ndarray, plane: str) -> Image.Image:
    """The panel with the letters of its left and its upper edge."""
    panel = Image.fromarray(picture)
    draw = ImageDraw.Draw(panel)
    left, top = _MARKS[plane]
    draw.text((4, panel.height // 2), left, fill=_INK, font=font(), anchor="lm", stroke_width=2, stroke_fill=(0, 0, 0))
    draw.text((panel.width // 2, 4), top, fill=_INK, font=font(), anchor="mt", stroke_width=2, stroke_fill=(0, 0, 0))
    return panel


def font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """Pillow's own font, so that no file of the machine is needed."""
    return ImageFont.load_default(size=_FONT_PX)


def title_of(ct_hu: MetaTensor) -> str:
    """File name of the scan, or nothing."""
    name = ct_hu.meta.get("filename_or_obj")
    return Path(name).name if isinstance(name, str | PathLike) else ""


def axial_sheet(
    image: np.ndarray,
    marks: np.ndarray,
    spacing_mm: np.ndarray,
    indices: Sequence[int],
    window_hu: tuple[float, float],
    title: str,
    legend: Mapping[int, str],
    palette: Palette = PALETTE,
) -> Image.Image:
    """Axial slices of what :func:`canonical_pair` gives: the CT above, the labels on it below."""
    size = panel_size([image.shape[axis] * float(spacing_mm[axis]) for axis in (0, 1)])
    plain, tinted = [], []
    for index in indices:
        grey = windowed(view(image, 2, index), size, window_hu)
        plain.append(marked(grey, "axial"))
        tinted.append(marked(coloured(grey, enlarged(view(marks, 2, index), size), palette), "axial"))
    return sheet([plain, tinted], title, legend, palette)


def sheet(
    rows: list[list[Image.Image]], title: str, legend: Mapping[int, str], palette: Palette = PALETTE
) -> Image.Image:
    """Panels on black in rows, the title above and the legend below, on as many lines as it needs."""
    widths = [sum(panel.width for panel in row) + _GAP_PX * (len(row) + 1) for row in rows]
    heights = [max(panel.height for panel in row) for row in rows]
    width = max(*widths, 400)
    entries = _legend_places(legend, width)
    top = _LINE_PX if title else _GAP_PX
    legend_top = top + sum(heights) + len(rows) * _GAP_PX
    lines = entries[-1][1] + 1 if entries else 0
    sheet = Image.new("RGB", (width, legend_top + lines * _LINE_PX))
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP_PX, _LINE_PX // 2), title, fill=_INK, font=font(), anchor="lm")
    for row, height in zip(rows, heights, strict=True):
        left = _GAP_PX
        for panel in row:
            sheet.paste(panel, (left, top + (height - panel.height) // 2))
            left += panel.width + _GAP_PX
        top += height + _GAP_PX
    for left, line, label, text in entries:
        middle = legend_top + line * _LINE_PX + _LINE_PX // 2
        draw.rectangle((left, middle - 6, left + 12, middle + 6), fill=_colour(label, palette))
        draw.text((left + 18, middle), text, fill=_INK, font=font(), anchor="lm")
    return sheet


def _legend_places(legend: Mapping[int, str], width: int) -> list[tuple[int, int, int, str]]:
    """Left edge, line, label and text of each entry, broken into lines of ``width`` pixels."""
    places: list[tuple[int, int, int, str]] = []
    left, line = _GAP_PX, 0
    for label, text in legend.items():
        needed = 18 + int(font().getlength(text)) + 2 * _GAP_PX
        if left > _GAP_PX and left + needed > width:
            left, line = _GAP_PX, line + 1
        places.append((left, line, label, text))
        left += needed
    return places
