"""A synthetic chest film with or without a pneumothorax, and the mask of its air."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..bundle.errors import BadInput
from .anatomy import LEFT, RIGHT, Chest
from .fields import Draws, smoothstep
from .film_body import (
    Build,
    draw_build,
    draw_shoulders,
    rib_paths,
    rib_shadow,
    shoulder_shadows,
    spine_shadow,
    trunk_shadow,
)
from .film_devices import DEVICES, Scene, device_shadow, draw_borders, draw_devices, draw_letters
from .film_lungs import Lungs, LungShadow, breathe_in, draw_lungs, lung_shadow, vessel_shadow
from .pneumothorax import KINDS, Pneumothorax, draw_pneumothorax
from .projection import FRAME_CENTRE_Z, FRAME_MM, Frame, blur_plane, detect, draw_exposure, show, tube_shadow
from .scene import Subject, draw_subject

# Streams of random numbers: with and without a pneumothorax or a device, all else of a film is the same.
BUILD, FILM, COLLAPSE, DEVICE = 10, 11, 13, 14
VIEWS = ("PA", "AP")
PHOTOMETRIC = ("MONOCHROME1", "MONOCHROME2")
USUAL_FILM_MM = 340.0
SMALLEST_FILM, LARGEST_FILM = 32, 4096
HARDENING = 0.85  # share of its shadow that bone loses in the thickest parts
MASK_MM = 3.0  # the mask is where this much air lies in the beam,
MASK_SHARE = 0.6  # and where it fills this share of the pleural space there: up to the pleural line and little beyond


@dataclass(frozen=True)
class FilmSubject:
    """What the films of one patient share."""

    chest: Chest
    build: Build
    lungs: Lungs
    frame: Frame
    ribs: Tensor
    bone: Tensor  # water in mm that ribs and spine add
    trunk: Tensor
    shadows: dict[int, LungShadow]
    vessels: dict[int, Tensor]


def draw_film_subject(seed: int, size: int = 1024) -> FilmSubject:
    """The patient of a seed, with all shadows drawn as finely as films of ``size`` pixels need."""
    if not isinstance(seed, int) or seed < 0:
        raise BadInput(f"seed must be a whole number of at least 0, got {seed!r}")
    check_size(size)
    subject, draws = draw_subject(seed), Draws(seed, BUILD)
    chest = breathe_in(subject.chest, draws.uniform(0.6, 1.0))
    build = draw_build(draws, chest)
    lungs = draw_lungs(draws, replace(subject, chest=chest), build.taper)
    pixel_mm = USUAL_FILM_MM / size
    frame = Frame(pixel_mm, round(FRAME_MM / pixel_mm))
    ribs = rib_paths(chest, build, lungs.boxes)
    return FilmSubject(
        chest=chest,
        build=build,
        lungs=lungs,
        frame=frame,
        ribs=ribs,
        bone=rib_shadow(ribs, build, frame) + spine_shadow(chest, build, frame),
        trunk=trunk_shadow(build, frame) - tube_shadow(frame, *_central_airways(subject)),
        shadows={side: lung_shadow(lungs, side, frame) for side in (LEFT, RIGHT)},
        vessels={side: vessel_shadow(lungs, side, frame) for side in (LEFT, RIGHT)},
    )


def check_size(size: int) -> None:
    """Raise BadInput unless films of this many pixels can be drawn."""
    if not isinstance(size, int) or not SMALLEST_FILM <= size <= LARGEST_FILM:
        raise BadInput(f"size must be a whole number from {SMALLEST_FILM} to {LARGEST_FILM}, got {size!r}")


def _central_airways(subject: Subject) -> tuple[Tensor, Tensor, Tensor]:
    """Ends and radii of trachea and main bronchi."""
    airways = subject.trees.airways
    central = airways.where(airways.generation <= 1)
    return central.start, central.end, central.radius


def radiograph(
    seed: int,
    pneumothorax: str | None = None,
    size: int = 1024,
    view: str = "PA",
    devices: Sequence[str] | None = None,
    photometric: str = "MONOCHROME2",
) -> dict[str, Any]:
    """One synthetic chest film. A seed is the same patient with and without a pneumothorax and at every size.

    Args:
        seed: which patient, 0 or more.
        pneumothorax: one of ``KINDS``, or None.
        size: rows and columns.
        view: PA (standing) or AP (portable).
        devices: names from ``film_devices.DEVICES``; None draws them as often as the view has them.
        photometric: MONOCHROME2 shows dense tissue bright, MONOCHROME1 stores it dark.

    Returns ``film`` (H, W) from 0 to 1, ``mask`` (H, W) uint8 of the air, ``pixel_mm``, ``side`` of the patient
    ("left", "right" or "none"), ``kind``, ``has_pneumothorax`` (the mask holds a pixel), ``view``, ``photometric``.
    """
    _check(pneumothorax, view, devices, photometric)
    return expose(draw_film_subject(seed, size), seed, pneumothorax, size, view, devices, photometric)


def expose(
    patient: FilmSubject,
    seed: int,
    pneumothorax: str | None = None,
    size: int = 1024,
    view: str = "PA",
    devices: Sequence[str] | None = None,
    photometric: str = "MONOCHROME2",
) -> dict[str, Any]:
    """One film of a patient drawn for this size; ``seed`` draws the rest. See :func:`radiograph`."""
    _check(pneumothorax, view, devices, photometric)
    draws = Draws(seed, FILM)
    collapse = draw_pneumothorax(Draws(seed, COLLAPSE), pneumothorax, patient.lungs.boxes) if pneumothorax else None
    scene = _scene(patient, Draws(seed, DEVICE))
    chosen = draw_devices(scene.draws, view, collapse is not None) if devices is None else devices
    inside, space, air = _lungs_in_trunk(patient, draws, collapse)
    fixed = _bones_and_arms(patient, draws, view, inside)
    for name in chosen:
        fixed += device_shadow(name, scene)
    cut, pixel_mm = _cut(draws, patient.build, size)
    moved = cut + _displacement(draws, patient, view, collapse, cut)
    inside, space, air = _resample(torch.stack([inside, space, air]), moved)
    water, mask = inside + _resample(fixed[None], cut)[0], air_mask(air, space)
    exposure = draw_exposure(draws, view)
    film = show(detect(water, exposure, pixel_mm, draws), water > 20, exposure, pixel_mm)
    film = draw_letters(draw_borders(film, draws), draws, view)
    found = bool(mask.any())
    return {
        "film": 1 - film if photometric == "MONOCHROME1" else film,
        "mask": mask.to(torch.uint8),
        "pixel_mm": pixel_mm,
        "side": ("left" if collapse.side == LEFT else "right") if collapse and found else "none",
        "kind": pneumothorax or "none",
        "has_pneumothorax": found,
        "view": view,
        "photometric": photometric,
    }


def _lungs_in_trunk(patient: FilmSubject, draws: Draws, collapse: Pneumothorax | None) -> tuple[Tensor, Tensor, Tensor]:
    """Water in mm of all that breath and tension may move; the collapsed side's pleural space and its free air."""
    shadows, vessels = dict(patient.shadows), dict(patient.vessels)
    space = air = torch.zeros_like(patient.trunk)
    if collapse is not None:
        shadow = lung_shadow(patient.lungs, collapse.side, patient.frame, collapse)
        shadows[collapse.side], space, air = shadow, shadow.space, shadow.air
        vessels[collapse.side] = vessel_shadow(patient.lungs, collapse.side, patient.frame, collapse)
    water = patient.trunk + _texture(draws, shadows[LEFT].lung + shadows[RIGHT].lung, patient.frame)
    for side in (LEFT, RIGHT):
        water = water + shadows[side].water_mm + vessels[side]
    return water, space, air


def _bones_and_arms(patient: FilmSubject, draws: Draws, view: str, inside: Tensor) -> Tensor:
    """Water in mm of what stays where it is."""
    shoulders = draw_shoulders(draws, patient.build, view)
    arms, joints = shoulder_shadows(shoulders, patient.build, patient.frame, draws)
    solid = patient.trunk.clamp(min=0)
    # A thick body hardens the beam, in which bone stands out less.
    bone = (patient.bone + joints) * (1 - HARDENING * smoothstep(inside, 80, 200))
    # An arm lies partly beside, partly before the trunk.
    return bone + (arms - solid).clamp(min=0) + 0.25 * torch.minimum(arms, solid)


def _scene(patient: FilmSubject, draws: Draws) -> Scene:
    carina = patient.chest.mediastinum.carina
    return Scene(patient.frame, patient.build, patient.lungs.boxes, carina, patient.ribs, draws)


def air_mask(air_mm: Tensor, space_mm: Tensor) -> Tensor:
    """Where a pneumothorax shows: its air's path is longer than MASK_MM and most of that through the pleural space."""
    return (air_mm > MASK_MM) & (air_mm > MASK_SHARE * space_mm)


def _check(pneumothorax: str | None, view: str, devices: Sequence[str] | None, photometric: str) -> None:
    if pneumothorax not in (None, *KINDS):
        raise BadInput(f"pneumothorax must be None or one of {', '.join(KINDS)}, got {pneumothorax!r}")
    if view not in VIEWS:
        raise BadInput(f"view must be one of {', '.join(VIEWS)}, got {view!r}")
    if photometric not in PHOTOMETRIC:
        raise BadInput(f"photometric must be one of {', '.join(PHOTOMETRIC)}, got {photometric!r}")
    for name in devices or ():
        if name not in DEVICES:
            raise BadInput(f"devices must be of {', '.join(DEVICES)}, got {name!r}")


def _texture(draws: Draws, lung_mm: Tensor, frame: Frame) -> Tensor:
    """Lung tissue too fine to be drawn: water ``(H, W)`` in mm, as the root of the lung in the beam."""
    root = lung_mm.clamp(min=0).sqrt()
    texture = torch.zeros_like(lung_mm)
    for grain_mm, most in ((0.8, 0.16), (2.0, 0.1)):
        fine = blur_plane(draws.noise(lung_mm.shape), grain_mm / frame.pixel_mm)
        texture += draws.uniform(0.03, most) * fine / fine.std() * root
    return texture


def _cut(draws: Draws, build: Build, size: int) -> tuple[Tensor, float]:
    """Where in the frame, from -1 to 1, each pixel of a film lies ``(H, W, 2)``, and its size in mm."""
    width = max(2 * build.cage * draws.uniform(1.15, 1.75), build.tall * 1.2 * (build.top - build.floor))
    width = min(width, 465)
    height = width / build.tall
    turn = draws.normal(0, 0.03)
    top = build.top + draws.uniform(0.03, 0.2) * height
    x, z = draws.normal(0, 10) / (FRAME_MM / 2), (FRAME_CENTRE_Z - (top - height / 2)) / (FRAME_MM / 2)
    across, down = width / FRAME_MM, height / FRAME_MM
    matrix = torch.tensor([[[across, -turn * across, x], [turn * down, down, z]]])
    grid = F.affine_grid(matrix, [1, 1, size, size], align_corners=False)[0]
    return grid, width / build.tall**0.5 / size  # a film of the patient's own height over width


def _displacement(draws: Draws, patient: FilmSubject, view: str, collapse: Pneumothorax | None, cut: Tensor) -> Tensor:
    """How far, from -1 to 1, soft tissue is looked up elsewhere ``(H, W, 2)``.

    A heart near the tube looks wide, a shallow breath lifts the diaphragm, tension pushes both away. None depends on
    depth, so moving the shadow is the same as moving the bodies.
    """
    half = FRAME_MM / 2
    x, z = cut[..., 0] * half, FRAME_CENTRE_Z - cut[..., 1] * half
    top, height, cage = patient.build.top, patient.chest.left.height, patient.build.cage
    level = (top - z) / height
    upright = smoothstep(level, -0.05, 0.3) * (1 - smoothstep(level, 1.0, 1.3))
    central = (1 - (x / cage).square()).clamp(min=0).square()
    wide = draws.uniform(0.06, 0.24) if view == "AP" else draws.uniform(-0.02, 0.14)
    ux = -wide * x * central * upright * smoothstep(level, 0.3, 0.6)
    low = smoothstep(level, 0.35, 0.85)
    uz = torch.zeros_like(z)
    for side in (LEFT, RIGHT):
        lift = draws.uniform(0, 35) if view == "AP" else draws.uniform(-8, 12)
        if collapse is not None and collapse.side == side:
            lift = lift - collapse.drop_mm
            ux = ux + side * collapse.shift_mm * central * upright
        uz = uz - lift * low * smoothstep(side * x, -20, 25) * (1 - smoothstep(side * x, cage - 10, cage + 15))
    return torch.stack([ux, -uz], dim=-1) / half


def _resample(planes: Tensor, cut: Tensor) -> Tensor:
    return F.grid_sample(planes[None], cut[None], mode="bicubic", padding_mode="border", align_corners=False)[0]
