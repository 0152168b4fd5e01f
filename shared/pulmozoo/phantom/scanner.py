"""How one scan is made: kernel, dose, slices, place and field of view, and what goes wrong."""

from dataclasses import dataclass

from ..bundle.errors import BadInput
from .fields import Draws

Triple = tuple[float, float, float]

AIR_HU = -1024
SLICE_MM = (0.5, 10.0)
MAX_NOISE_HU = 90.0


@dataclass(frozen=True)
class Scanner:
    """Every field may be set by hand; the defaults are a scan without artefacts, straight and as wide as its grid.

    Args:
        blur_mm: sd of the Gaussian by which the kernel smooths in the plane: 0.8 is smooth, 0.35 sharp.
        sharpening: overshoot of the kernel at edges, 0 for none, 1.2 for a bone or lung kernel.
        ramp: share of the noise at low frequencies that the kernel takes away, 0 for none.
        noise_hu: sd of the noise in the middle of a usual slice; thick bodies have more, their rims less.
        slice_mm: thickness of a slice; it may exceed the distance between slices.
        motion_mm: how far the heart's border moves to both sides.
        streak_hu: sd of the streaks along x where the body lets few photons through, as at the shoulders.
        cava_hu: density of the superior vena cava and of the streaks around it, where blood is enhanced; 0 for none.
        metal_mm: places of small pieces of metal (x, y, z from the chest's centre), with streaks around them.
        centre_mm: middle of the grid, from the chest's centre.
        turn_degrees: turns of the grid about x, y and z.
        field_mm: diameter of the circle that is reconstructed; none is wider than the grid.
        padding_hu: what stands outside the circle.
    """

    blur_mm: float = 0.6
    sharpening: float = 0.0
    ramp: float = 0.4
    noise_hu: float = 15.0
    slice_mm: float = 1.0
    motion_mm: float = 0.0
    streak_hu: float = 0.0
    cava_hu: float = 0.0
    metal_mm: tuple[Triple, ...] = ()
    centre_mm: Triple = (0.0, 0.0, 0.0)
    turn_degrees: Triple = (0.0, 0.0, 0.0)
    field_mm: float | None = None
    padding_hu: int = AIR_HU

    def __post_init__(self) -> None:
        for name in ("blur_mm", "slice_mm", "field_mm"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise BadInput(f"{name} of a scanner must be above 0 mm, got {value}")
        for name in ("sharpening", "ramp", "noise_hu", "motion_mm", "streak_hu", "cava_hu"):
            if not getattr(self, name) >= 0:
                raise BadInput(f"{name} of a scanner must be at least 0, got {getattr(self, name)}")


def draw_scanner(draws: Draws, spacing_mm: Triple) -> Scanner:
    """Kernel, dose, slices and artefacts of one scan; its grid stays straight, centred and uncut."""
    sharpness = draws.uniform(0, 1)
    thin, thick = SLICE_MM
    overlap = draws.uniform(1, 2) if draws.chance(0.3) else draws.uniform(0.6, 1) if draws.chance(0.15) else 1.0
    slice_mm = min(max(spacing_mm[2] * overlap, thin), thick)
    dose_hu = draws.uniform(5, 14) if draws.chance(0.75) else draws.uniform(14, 26)
    # A sharp kernel and a thin slice show more of the same noise.
    noise_hu = dose_hu * (1 + 6 * max(sharpness - 0.45, 0)) * min(max((2.5 / slice_mm) ** 0.5, 0.6), 1.6)
    return Scanner(
        blur_mm=0.85 - 0.5 * sharpness,
        sharpening=max(2.2 * (sharpness - 0.45), 0),
        ramp=min(sharpness * draws.uniform(0.5, 1.2), 0.8),
        noise_hu=min(noise_hu, MAX_NOISE_HU),
        slice_mm=slice_mm,
        motion_mm=draws.uniform(1, 4) if draws.chance(0.7) else 0.0,
        streak_hu=draws.uniform(5, 60) if draws.chance(0.6) else 0.0,
        cava_hu=draws.uniform(300, 900) if draws.chance(0.5) else 0.0,
        metal_mm=_draw_metal(draws) if draws.chance(0.05) else (),
    )


def _draw_metal(draws: Draws) -> tuple[Triple, ...]:
    """Clips, wires or screws, in the mediastinum or the spine."""
    pieces = draws.points(draws.integer(1, 3), (-15, -60, -60), (15, 75, 90)).tolist()
    return tuple((x, y, z) for x, y, z in pieces)
