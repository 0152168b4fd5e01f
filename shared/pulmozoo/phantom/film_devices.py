"""What else lies on a chest film: tubes, wires, electrodes, folds of skin, borders and letters.

Each is there with and without a pneumothorax, so that none gives it away. All shadows are in mm of water.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from scipy.interpolate import make_interp_spline
from torch import Tensor

from .anatomy import LEFT, RIGHT
from .fields import Draws, smoothstep
from .film_body import Build
from .fissures import LungBox
from .projection import Frame, ellipsoid_shadow, tube_shadow

# How often each appears, per film.
CHANCES = {
    "PA": {
        "skin_fold": 0.08,
        "companion_shadow": 0.4,
        "electrodes": 0.06,
        "central_line": 0.1,
        "gastric_tube": 0.02,
        "tracheal_tube": 0.01,
        "pacemaker": 0.05,
        "clips": 0.1,
        "clothing": 0.12,
        "outer_tubing": 0.04,
        "lateral_line": 0.15,
    },
    "AP": {
        "skin_fold": 0.35,
        "companion_shadow": 0.3,
        "electrodes": 0.7,
        "central_line": 0.45,
        "chin": 0.15,
        "gastric_tube": 0.3,
        "tracheal_tube": 0.3,
        "pacemaker": 0.07,
        "clips": 0.12,
        "clothing": 0.1,
        "outer_tubing": 0.5,
        "lateral_line": 0.15,
    },
}
# A treated pneumothorax has a drain; so have effusions and operated chests.
CHEST_TUBE = {("PA", True): 0.25, ("AP", True): 0.5, ("PA", False): 0.12, ("AP", False): 0.25}
METAL, PLASTIC = 9.0, 1.6  # attenuation relative to water, beyond the tissue that is displaced


@dataclass(frozen=True)
class Scene:
    """What a device is placed by."""

    frame: Frame
    build: Build
    boxes: tuple[LungBox, LungBox]
    carina: tuple[float, float, float]
    ribs: Tensor
    draws: Draws

    def box(self, side: int) -> LungBox:
        return self.boxes[0] if side == LEFT else self.boxes[1]

    def any_side(self) -> int:
        return LEFT if self.draws.chance(0.5) else RIGHT


def draw_devices(draws: Draws, view: str, has_pneumothorax: bool) -> tuple[str, ...]:
    """Names of what one film has, as often as the view has it."""
    names = [name for name, chance in CHANCES[view].items() if draws.chance(chance)]
    if draws.chance(CHEST_TUBE[view, has_pneumothorax]):
        names.append("chest_tube")
    return tuple(names)


def device_shadow(name: str, scene: Scene) -> Tensor:
    """Water ``(H, W)`` in mm that one of :data:`DEVICES` adds."""
    return DEVICES[name](scene)


def _curve(corners: Sequence[tuple[float, float]], count: int = 80) -> Tensor:
    """Smooth path ``(count, 3)`` through positions (x, z) in one plane."""
    points = np.array(corners, dtype=float)
    spline = make_interp_spline(np.linspace(0, 1, len(points)), points, k=min(3, len(points) - 1))
    x, z = torch.from_numpy(spline(np.linspace(0, 1, count))).float().unbind(1)
    return torch.stack([x, torch.zeros_like(x), z], 1)


def _line(frame: Frame, path: Tensor, radius: float, density: float) -> Tensor:
    return tube_shadow(frame, path[:-1], path[1:], torch.full((len(path) - 1,), radius), density)


def _hose(frame: Frame, path: Tensor, radius: float, density: float, stripe: float) -> Tensor:
    """A hollow tube with a dense stripe."""
    wall = _line(frame, path, radius, density) - _line(frame, path, 0.7 * radius, density)
    return wall + _line(frame, path + torch.tensor([0.5 * radius, 0.0, 0.3 * radius]), 0.5, stripe)


def _chest_tube(scene: Scene) -> Tensor:
    draws, side = scene.draws, scene.any_side()
    (x0, _, z0), (x1, _, z1) = scene.box(side).low, scene.box(side).high
    lateral, medial = (x1, x0) if side == LEFT else (x0, x1)
    width, height = abs(x1 - x0), z1 - z0
    entry_z = z0 + draws.uniform(0.1, 0.6) * height
    end = (medial + side * draws.uniform(0.15, 0.6) * width, z0 + draws.uniform(0.4, 0.93) * height)
    bow = (lateral - side * draws.uniform(0.08, 0.3) * width, 0.6 * entry_z + 0.4 * end[1] + draws.uniform(-10, 20))
    outside = (lateral + side * draws.uniform(30, 70), entry_z - draws.uniform(10, 60))
    path = _curve([outside, (lateral + side * 2, entry_z), bow, end])
    radius = draws.uniform(1.5, 4.5)
    return _hose(scene.frame, path, radius, PLASTIC * draws.uniform(0.5, 1.3), METAL * draws.uniform(0.5, 1.2))


def _skin_fold(scene: Scene) -> Tensor:
    """A dense band that ends abruptly, much as a pleural line does; lung markings go on beyond it."""
    draws, side, frame = scene.draws, scene.any_side(), scene.frame
    (x0, _, z0), (x1, _, z1) = scene.box(side).low, scene.box(side).high
    medial, width = (x0 if side == LEFT else x1), x1 - x0
    shadow = torch.zeros(frame.count, frame.count)
    for _ in range(draws.integer(1, 2)):
        level = draws.uniform(0.3, 0.95)
        top = z0 + draws.uniform(0.6, 1.25) * (z1 - z0)
        bottom = top - draws.uniform(0.3, 0.9) * (z1 - z0)
        t = (frame.z() - bottom) / (top - bottom)
        edge = medial + side * width * (level - draws.uniform(-0.35, 0.35) * t - draws.uniform(-0.3, 0.3) * t * (1 - t))
        inward = side * (edge - frame.x())
        thick = draws.uniform(2, 9)
        fade = (-inward.clamp(min=0) / draws.uniform(6, 25)).exp() * (inward / frame.pixel_mm + 0.5).clamp(0, 1)
        shadow += thick * fade * smoothstep(t, 0, 0.2) * (1 - smoothstep(t, 0.8, 1))
    return shadow


def _companion_shadow(scene: Scene) -> Tensor:
    """Soft tissue along the lower border of the upper ribs."""
    shadow = torch.zeros(scene.frame.count, scene.frame.count)
    for side in range(2):
        for rib in range(scene.draws.integer(1, 3)):
            path = scene.ribs[side, rib, 6:34] - torch.tensor([0.0, 0.0, scene.draws.uniform(7, 10)])
            shadow += _line(scene.frame, path, scene.draws.uniform(0.8, 1.8), 1.0)
    return shadow


def _electrodes(scene: Scene) -> Tensor:
    draws, frame = scene.draws, scene.frame
    shadow = torch.zeros(frame.count, frame.count)
    out = (draws.uniform(-200, 200), -210.0)
    for _ in range(draws.integer(2, 7)):
        at = (draws.uniform(-1.1, 1.1) * scene.build.cage, draws.uniform(-110, 120))
        pad, stud = draws.uniform(9, 16), draws.uniform(2.5, 4.5)
        shadow += ellipsoid_shadow(frame, at, (pad, 0.6, pad)) + METAL * ellipsoid_shadow(frame, at, (stud, 0.8, stud))
        bend = (0.5 * (at[0] + out[0]) + draws.uniform(-60, 60), 0.5 * (at[1] + out[1]) + draws.uniform(-40, 60))
        shadow += _line(frame, _curve([at, bend, out]), 0.6, METAL * draws.uniform(0.4, 1.2))
    return shadow


def _central_line(scene: Scene) -> Tensor:
    draws, side = scene.draws, scene.any_side()
    _, _, z = scene.carina
    tip = (-20 + draws.uniform(-6, 6), z - draws.uniform(0, 55))
    turn = (-18.0 + draws.uniform(-4, 4), z + draws.uniform(20, 45))
    if draws.chance(0.4):  # from the neck
        start = [(side * draws.uniform(45, 70), z + 190), (side * draws.uniform(25, 40), z + 100)]
    else:
        start = [(side * draws.uniform(120, 175), z + draws.uniform(0, 40)), (side * 75.0, z + draws.uniform(65, 85))]
    return _line(scene.frame, _curve([*start, turn, tip]), draws.uniform(0.7, 1.3), METAL * draws.uniform(0.3, 0.7))


def _gastric_tube(scene: Scene) -> Tensor:
    draws = scene.draws
    _, _, z = scene.carina
    path = [(draws.uniform(-6, 6), z + 200), (4.0, z + 40), (6 + draws.uniform(-4, 8), z - 70), (30.0, z - 160)]
    path.append((draws.uniform(50, 100), z - draws.uniform(185, 215)))
    return _hose(scene.frame, _curve(path), draws.uniform(1.8, 2.8), PLASTIC, 0.6 * METAL)


def _tracheal_tube(scene: Scene) -> Tensor:
    x, _, z = scene.carina
    path = [(x + 4, z + 210), (x + 3, z + 110), (x + scene.draws.uniform(-2, 4), z + scene.draws.uniform(10, 60))]
    return _hose(scene.frame, _curve(path), 5.0, 0.7 * PLASTIC, 0.6 * METAL)


def _pacemaker(scene: Scene) -> Tensor:
    draws, frame = scene.draws, scene.frame
    side = LEFT if draws.chance(0.8) else RIGHT
    _, _, z = scene.carina
    at = (side * (scene.build.cage - draws.uniform(15, 45)), z + draws.uniform(5, 50))
    case = ellipsoid_shadow(frame, at, (24, 5, 20), draws.uniform(-0.5, 0.5)).clamp(max=6) * 0.6 * METAL
    for _ in range(draws.integer(1, 2)):
        tip = (draws.uniform(-25, 55), z - draws.uniform(70, 130))
        path = _curve([at, (side * 70.0, z + draws.uniform(60, 80)), (-20.0, z + 15), (-25.0, z - 60), tip])
        case += _line(frame, path, 0.8, METAL)
    return case


def _clips(scene: Scene) -> Tensor:
    """Surgical clips, or the wires of a closed sternum."""
    draws, frame = scene.draws, scene.frame
    _, _, z = scene.carina
    shadow = torch.zeros(frame.count, frame.count)
    if draws.chance(0.5):
        for level in range(draws.integer(4, 7)):
            turn = torch.linspace(0, 2 * math.pi, 24)
            middle = z + 35 - 24 * level + draws.uniform(-3, 3)
            ring = torch.stack([9 * turn.cos(), torch.zeros_like(turn), middle + 4 * turn.sin()], 1)
            shadow += _line(frame, ring, 0.5, METAL)
        return shadow
    side = scene.any_side()
    middle_x, middle_z = side * draws.uniform(20, 110), draws.uniform(-60, 90)
    for _ in range(draws.integer(3, 12)):
        x, zz = middle_x + draws.normal(0, 14), middle_z + draws.normal(0, 14)
        dx, dz = draws.uniform(-3, 3), draws.uniform(-3, 3)
        shadow += _line(frame, _curve([(x, zz), (x + dx, zz + dz)], 2), 0.7, METAL)
    return shadow


def _clothing(scene: Scene) -> Tensor:
    """Buttons and snaps, a necklace, or plaits and cloth as soft streaks."""
    draws, frame = scene.draws, scene.frame
    shadow = torch.zeros(frame.count, frame.count)
    kind = draws.integer(0, 2)
    if kind == 0:
        x = draws.uniform(-130, 130)
        for level in range(draws.integer(1, 5)):
            at = (x + draws.uniform(-8, 8), 130 - 55 * level + draws.uniform(-8, 8))
            size = draws.uniform(4, 7)
            shadow += ellipsoid_shadow(frame, at, (size, 1.5, size)) * draws.uniform(1, 4)
    elif kind == 1:
        low = draws.uniform(20, 100)
        path = _curve([(-62, 190), (-50, 140), (draws.uniform(-8, 8), low), (50, 140), (62, 190)])
        shadow += _line(frame, path, draws.uniform(0.4, 0.9), METAL)
    else:
        for _ in range(draws.integer(2, 6)):
            x, z = draws.uniform(-150, 150), draws.uniform(-60, 170)
            path = _curve([(x, z), (x + draws.uniform(-25, 25), z - 40), (x + draws.uniform(-50, 50), z - 90)])
            shadow += _line(frame, path, draws.uniform(1.5, 4), draws.uniform(0.3, 0.9))
    return shadow


def _outer_tubing(scene: Scene) -> Tensor:
    """Oxygen and infusion tubing or cables that lie on the patient."""
    draws, frame = scene.draws, scene.frame
    shadow = torch.zeros(frame.count, frame.count)
    for _ in range(draws.integer(1, 5)):
        start, end = (draws.uniform(-220, 220), 215.0), (draws.uniform(-220, 220), draws.uniform(-215, 60))
        bow = (draws.uniform(-150, 150), draws.uniform(-60, 120))
        shadow += _hose(
            frame, _curve([start, bow, end]), draws.uniform(1.2, 3.2), PLASTIC, draws.uniform(0, 0.8) * METAL
        )
    return shadow


def _lateral_line(scene: Scene) -> Tensor:
    """A fine line near the chest wall that is no pleura: a fold of a sheet, the border of a muscle, a scar."""
    draws, side = scene.draws, scene.any_side()
    (x0, _, z0), (x1, _, z1) = scene.box(side).low, scene.box(side).high
    lateral = x1 if side == LEFT else x0
    top, bottom = z1 + draws.uniform(-60, 20), z0 + draws.uniform(20, 120)
    gap = draws.uniform(8, 50)
    corners = [
        (lateral - side * gap * draws.uniform(0.3, 2.5), top),
        (lateral - side * gap * draws.uniform(0.6, 1.2), 0.5 * (top + bottom)),
        (lateral - side * gap * draws.uniform(0.0, 1.2), bottom),
    ]
    return _line(scene.frame, _curve(corners), draws.uniform(0.4, 0.9), draws.uniform(2, 7))


def _chin(scene: Scene) -> Tensor:
    """The jaw of a patient who does not lift the head."""
    draws = scene.draws
    radius = draws.uniform(45, 60)
    middle = (draws.uniform(-25, 25), scene.build.top + radius - draws.uniform(-10, 30))
    return ellipsoid_shadow(scene.frame, middle, (radius, draws.uniform(30, 60), radius))


DEVICES: dict[str, Callable[[Scene], Tensor]] = {
    "chest_tube": _chest_tube,
    "skin_fold": _skin_fold,
    "companion_shadow": _companion_shadow,
    "electrodes": _electrodes,
    "central_line": _central_line,
    "gastric_tube": _gastric_tube,
    "tracheal_tube": _tracheal_tube,
    "pacemaker": _pacemaker,
    "chin": _chin,
    "clips": _clips,
    "clothing": _clothing,
    "outer_tubing": _outer_tubing,
    "lateral_line": _lateral_line,
}


def draw_letters(film: Tensor, draws: Draws, view: str) -> Tensor:
    """Burn a side marker and, on portable films, words into a film ``(H, W)`` that is seen as usual."""
    size = film.shape[0]
    picture = Image.fromarray(np.zeros((size, size), np.uint8))
    pen = ImageDraw.Draw(picture)
    letters = [draws.chance(0.75)]
    height = draws.uniform(0.035, 0.06)
    if draws.chance(0.9):
        left = letters[0]
        x = draws.uniform(0.84, 0.94) if left else draws.uniform(0.03, 0.12)
        _write(pen, "L" if left else "R", x, draws.uniform(0.02, 0.14), height, size)
    if view == "AP" and draws.chance(0.7):
        x, y = draws.uniform(0.02, 0.75), draws.uniform(0.01, 0.1)
        for line, word in enumerate(("AP", "PORTABLE", "SUPINE")[: draws.integer(1, 3)]):
            _write(pen, word, x, y + 0.035 * line, 0.026, size)
    ink = torch.from_numpy(np.asarray(picture).copy()).float() / 255
    return torch.maximum(film, ink * draws.uniform(0.75, 1.0))


def _write(pen: ImageDraw.ImageDraw, text: str, x: float, y: float, height: float, size: int) -> None:
    """Text at shares of the film's width and height."""
    pen.text((x * size, y * size), text, fill=255, font=ImageFont.load_default(max(height * size, 6)))


def draw_borders(film: Tensor, draws: Draws) -> Tensor:
    """Collimator blades: dark or unexposed strips, a little askew, on some sides of a film ``(H, W)``."""
    size = film.shape[0]
    across = torch.linspace(0, 1, size)
    for side in range(4):
        if not draws.chance(0.14):
            continue
        grey = 0.0 if draws.chance(0.6) else draws.uniform(0.85, 1.0)
        edge = draws.uniform(0.0, 0.06) + draws.normal(0, 0.02) * (across - 0.5)
        strip = ((edge[:, None] - across[None]) * size + 0.5).clamp(0, 1)  # along rows, from the left
        strip = torch.rot90(strip, side)
        film = film + strip * (grey - film)
    return film
