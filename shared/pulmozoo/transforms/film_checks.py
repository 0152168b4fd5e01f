"""Is this a chest film? What cannot be one stops; what does not look like one gets a warning."""

import torch
from monai.data import MetaTensor
from torch import Tensor
from torch.nn import functional as F

from ..bundle.errors import BadInput
from ..datasets.stored_film import check_film_size

# Measured on 43 frontal films (the 42 of NIH and the DICOM film of the shelf): symmetry 0.40 to 0.98, darkness 0.01 to
# 0.47, less than 0.1 on one only. The same films inverted: darkness below 0, all of them. Lateral projections of two
# chest CT: symmetry -0.27 and 0.07. Of 21 pictures of other things (scikit-image's) 16 fail; an abdomen passes.
MIN_SYMMETRY = 0.3
MIN_DARKNESS = 0.0
_SIDE = 64  # of the thumbnail
# Rows and columns of it: the lungs, what is between them, and the belly.
LUNGS = (slice(18, 40), slice(8, 26)), (slice(18, 40), slice(38, 56))
_BETWEEN, _BELLY = (slice(18, 40), slice(27, 37)), (slice(48, 60), slice(16, 48))


def check_film(film: Tensor) -> None:
    """Raise BadInput unless this is ``(1, X, Y)`` with brightness 0..1 that is not the same everywhere."""
    if film.ndim != 3 or film.shape[0] != 1:
        raise BadInput(f"the image has shape {tuple(film.shape)}: expected one grey film (1, X, Y)")
    check_film_size(*film.shape[1:])
    lowest, highest = (float(value) for value in torch.aminmax(film))  # NaN wins over every number
    if not (lowest >= 0 and highest <= 1):
        raise BadInput(f"the values {lowest:g} to {highest:g} are no brightness: expected 0 (black) to 1 (white)")
    if lowest == highest:
        raise BadInput(
            f"every pixel has the brightness {lowest:g}: expected a chest film; is it empty, or its window wrong?"
        )


def film_warnings(film: MetaTensor) -> list[str]:
    """What the user should know about a film ``(1, X, Y)`` before trusting any number, a sentence each."""
    warnings = []
    if film.meta.get("view") == "LATERAL":
        warnings.append("the file says that it is a lateral view: the network knows frontal films only")
    symmetry, darkness = frontal_looks(film.as_tensor())
    if symmetry < MIN_SYMMETRY or darkness < MIN_DARKNESS:
        warnings.append(
            "it does not look like a frontal chest film, two lungs that are darker than what is between and below them "
            f"(symmetry {symmetry:.2f}, expected {MIN_SYMMETRY} or more; darkness {darkness:.2f}, expected "
            f"{MIN_DARKNESS} or more): is it a lateral view, inverted, or no chest?"
        )
    return warnings


def frontal_looks(film: Tensor) -> tuple[float, float]:
    """How symmetric a film ``(1, X, Y)`` is, and how much darker its lungs are than what is between and below them.

    Both on a thumbnail of 64 x 64 with its brightness stretched to 0..1. Symmetry is the correlation of the film with
    its mirror image about the best of several vertical lines near the middle, -1 to 1. Darkness compares the means of
    boxes where the lungs, what is between them and the belly usually are, -1 to 1.
    """
    small = stretched_thumbnail(film)
    symmetry = max(_mirror_correlation(small[8:56], shift) for shift in range(-12, 13, 2))
    lungs, around = (sum(small[box].mean() for box in boxes) / 2 for boxes in (LUNGS, (_BETWEEN, _BELLY)))
    return symmetry, float(around - lungs)


def stretched_thumbnail(film: Tensor) -> Tensor:
    """A film ``(1, X, Y)`` as 64 rows and columns, its brightness stretched to 0..1."""
    small = F.adaptive_avg_pool2d(film.float(), _SIDE)[0].T
    low, high = torch.quantile(small, torch.tensor([0.02, 0.98]))
    return ((small - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)


def _mirror_correlation(picture: Tensor, shift: int) -> float:
    """Correlation of a picture with its mirror image about the vertical line ``shift / 2`` columns off the middle."""
    part = picture[:, max(0, shift) : picture.shape[1] + min(0, shift)]
    both = torch.stack([part.flatten(), part.flip(1).flatten()])
    return float(torch.corrcoef(both)[0, 1].nan_to_num())
