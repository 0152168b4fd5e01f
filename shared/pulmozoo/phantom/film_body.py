"""What surrounds the lungs on a film: trunk, arms, breasts, belly gas and bones, as shadows in mm of water."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .anatomy import LEFT, RIGHT, Chest, Hemithorax, cage_depth
from .fields import Draws, smoothstep
from .fissures import LungBox
from .projection import Frame, capsule_shadow, ellipsoid_shadow, tube_shadow
from .trees import bend

RIB_POINTS = 48
STRANDS = 7  # tubes side by side that make up one rib
MOST_STRETCH = 1.6
MOST_BONE = 16.0  # mm of water that ribs one behind the other can add
CORTEX = (1.7, 0.8, 0.6, 0.55, 0.6, 0.85, 2.1)  # their densities above soft tissue, lower edge to upper


@dataclass(frozen=True)
class Build:
    """Outlines and bones of one patient; lengths in mm, densities relative to water."""

    half_width: float
    half_depth: float
    tissue: float
    top: float
    floor: float  # height of the left half of the diaphragm at its top
    cage: float
    exponent: float
    breasts: tuple[float, float, float, float] | None  # distance apart, height, radius, thickness
    bubbles: tuple[tuple[tuple[float, float], tuple[float, float, float]], ...]
    bone: float  # 1 for a healthy adult
    rib_gap: float
    rib_fall: float  # how steeply the ribs fall, 1 in the usual chest
    neck: float
    taper: float  # over this the top of a lung is a dome from side to side
    tall: float  # height over width, relative to the chest that was drawn


def draw_build(draws: Draws, chest: Chest) -> Build:
    left = chest.left
    cage = left.centre_x + left.lateral
    fat = max(2.2 * (chest.patient.bmi - 19) + draws.uniform(-5, 10), 4.0)
    floor = left.top - left.height + left.dome_height
    bubbles = []
    if draws.chance(0.7):
        r = draws.uniform(10, 32)
        bubbles.append(((draws.uniform(40, 80), floor - 12 - 0.6 * r), (1.4 * r, 0.9 * r, 0.6 * r)))
    for _ in range(draws.integer(0, 6)):
        r = draws.uniform(6, 18)
        at = (draws.uniform(-70, 95), floor - draws.uniform(40, 120))
        bubbles.append((at, (r * draws.uniform(0.8, 2), r, r)))
    return Build(
        half_width=cage + draws.uniform(20, 34) + fat,
        half_depth=0.5 * (left.anterior + left.posterior) + 22 + 0.6 * fat,
        tissue=draws.uniform(0.97, 1.03) - 0.0015 * fat,
        top=left.top,
        floor=floor,
        cage=cage,
        exponent=draws.uniform(2.1, 2.7),
        breasts=_draw_breasts(draws, cage, floor) if draws.chance(0.9 if chest.patient.female else 0.1) else None,
        bubbles=tuple(bubbles),
        bone=draws.uniform(0.9, 2.0) - 0.4 * chest.patient.ageing,
        rib_gap=draws.uniform(0.105, 0.125) * (left.top - floor),
        rib_fall=draws.uniform(0.9, 1.4),
        neck=draws.uniform(52, 66),
        taper=draws.uniform(90, 170),
        tall=_draw_tallness(draws, left.top - floor, 2 * cage),
    )


def _draw_tallness(draws: Draws, height: float, width: float) -> float:
    """What makes lungs this high to the dome and this wide those of a standing patient, as far as that is little."""
    aspect = min(max(draws.normal(0.92, 0.1), 0.7), 1.15)
    return min(aspect / (height / width), MOST_STRETCH)


def _draw_breasts(draws: Draws, cage: float, floor: float) -> tuple[float, float, float, float]:
    return (
        cage * draws.uniform(0.55, 0.85),
        floor + draws.uniform(-30, 50),
        draws.uniform(45, 80),
        draws.uniform(10, 80),
    )


def trunk_shadow(build: Build, frame: Frame) -> Tensor:
    """Trunk and neck as if they were solid, with breasts and belly gas ``(H, W)``."""
    x, z = frame.x(), frame.z()
    below = build.top - z
    narrow = 1 - 0.1 * smoothstep(z, build.top - 190, build.top - 60)
    slope = smoothstep(z, build.top - 25, build.top + 75)
    across = build.half_width * narrow * (1 - slope) + build.neck * slope
    deep = build.half_depth * (1 - 0.3 * smoothstep(-below, -110, 10))
    deep = deep * (1 - slope) + 58 * slope
    share = (1 - (x / across).abs().pow(build.exponent)).clamp(min=0).pow(1 / build.exponent)
    shadow = 2 * deep * share * build.tissue
    if build.breasts is not None:
        apart, height, radius, thick = build.breasts
        for side in (LEFT, RIGHT):
            lobe = ellipsoid_shadow(frame, (side * apart, height), (radius, thick / 2, 0.9 * radius))
            shadow += 0.95 * lobe * (1 - smoothstep(z, height - 0.2 * radius, height + 0.9 * radius))
    for centre, radii in build.bubbles:
        shadow -= 0.95 * ellipsoid_shadow(frame, centre, radii)
    return shadow.clamp(min=0)


def apex_depth(box: LungBox, taper_mm: float, x: Tensor, z: Tensor) -> Tensor:
    """Depth below a dome from side to side that closes the uppermost ``taper_mm`` of a lung."""
    inner, outer = sorted((box.low[0], box.high[0]), key=abs)
    below = ((box.high[2] - z) / taper_mm).clamp(0, 1)
    half = 0.5 * abs(outer - inner)
    middle = 0.5 * (inner + outer) - 0.12 * (outer - inner) * (1 - below)
    wide = half * (1.05 * (1 - (1 - below).square()).sqrt() + 10 * smoothstep(below, 0.95, 1.0))
    return 0.8 * (wide - (x - middle).abs())


def rib_paths(chest: Chest, build: Build, boxes: tuple[LungBox, LungBox]) -> Tensor:
    """Middles of the ribs ``(side, rib, point, 3)`` in scan positions, from the spine to the cartilage.

    They run along the cage, and around the tapered tops of the lungs in ``boxes``.
    """
    halves = zip((chest.left, chest.right), boxes, strict=True)
    return torch.stack([_rib_paths(chest, half, box, build) for half, box in halves])


def _rib_paths(chest: Chest, half: Hemithorax, box: LungBox, build: Build) -> Tensor:
    count = 12
    number = torch.arange(count)[:, None].float()
    front = 2.6 - 0.3 * (number - 6).clamp(min=0)  # the lower ones end at the flank
    turn = -0.5 + (front + 0.5) * torch.linspace(0, 1, RIB_POINTS)[None]
    fall = build.rib_fall * (24 + 62 * (1 - (-number / 3.0).exp()))
    around = (1 - turn.clamp(0).cos()) / 2
    rise = 5 * torch.exp(-((turn - 0.45) / 0.5).square()) * (number > 0)
    z = half.top - 16 - number * build.rib_gap + rise - fall * around.pow(1.15)
    dx, dy = half.side * turn.sin(), turn.cos()
    x0 = half.side * 0.72 * half.centre_x
    near, far = torch.zeros_like(z), torch.full_like(z, 260.0)
    for _ in range(18):
        reach = (near + far) / 2
        x, level = x0 + dx * reach, z.clamp(max=half.top - 4)
        depth = torch.minimum(cage_depth(half, (x, dy * reach, level)), apex_depth(box, build.taper, x, level))
        within = depth > -5
        near, far = torch.where(within, reach, near), torch.where(within, far, reach)
    upright = torch.stack([x0 + dx * near, dy * near, z], dim=-1)
    return bend(chest, upright.reshape(-1, 3)).reshape(count, RIB_POINTS, 3)


def rib_shadow(paths: Tensor, build: Build, frame: Frame) -> Tensor:
    """Water ``(H, W)`` that the bone of all ribs adds to soft tissue: dense at the borders, fading to the front."""
    high = torch.linspace(4.0, 5.6, RIB_POINTS)  # half the height of a rib, which widens to the front
    fading = torch.linspace(1.2, 0.35, RIB_POINTS - 1).expand(paths.shape[0], paths.shape[1], -1).reshape(-1)
    shadow = torch.zeros(frame.count, frame.count)
    for offset, density in zip(torch.linspace(-1, 1, STRANDS), CORTEX, strict=True):
        strand = paths.clone()
        strand[..., 2] += offset * high
        start, end = strand[..., :-1, :].reshape(-1, 3), strand[..., 1:, :].reshape(-1, 3)
        thick = (1.15 if abs(float(offset)) == 1 else 2.6) * torch.ones(len(start))
        shadow += tube_shadow(frame, start, end, thick, density * build.bone * fading)
    return MOST_BONE * torch.tanh(shadow / MOST_BONE)


def spine_shadow(chest: Chest, build: Build, frame: Frame) -> Tensor:
    """Water that vertebrae add: bodies with end plates, pedicles and spinous processes."""
    front = chest.mediastinum.spine_front
    levels = torch.arange(build.top + 90, build.top - chest.left.height - 170, -build.rib_gap)
    strands: list[tuple[Tensor, float, float]] = []
    for share in torch.linspace(-0.4, 0.4, 5).tolist():
        z = levels + share * build.rib_gap
        is_plate = abs(share) == 0.4
        strands.append((_across(z, -18.0, 18.0, front + 15), 3.0 if is_plate else 4.5, 1.3 if is_plate else 0.7))
    for x in (-16.0, 16.0):
        strands.append((_across(levels + 3, x - 1.5, x + 1.5, front + 32), 4.5, 1.2))
    spikes = torch.stack(
        [torch.zeros_like(levels), torch.full_like(levels, front + 55), levels - 0.5 * build.rib_gap], 1
    )
    strands.append((torch.stack([spikes, spikes - torch.tensor([0.0, 0.0, 9.0])]), 3.0, 1.2))
    ends = torch.cat([pair for pair, _, _ in strands], dim=1)
    start, end = bend(chest, ends.flatten(0, 1)).chunk(2)
    radius = torch.cat([torch.full((pair.shape[1],), mm) for pair, mm, _ in strands])
    density = torch.cat([torch.full((pair.shape[1],), share) for pair, _, share in strands])
    return tube_shadow(frame, start, end, radius, density * build.bone)


def _across(z: Tensor, left: float, right: float, y: float) -> Tensor:
    """Level pieces ``(2, N, 3)`` from one x to another at each height."""
    depth = torch.full_like(z, y)
    return torch.stack([torch.stack([torch.full_like(z, x), depth, z], 1) for x in (left, right)])


@dataclass(frozen=True)
class Shoulders:
    """Arms, collar bones and shoulder blades as they are held for one film; lengths in mm, angles in radians."""

    reach: float  # of the shoulder joint from the midline
    height: float  # of the joint below the apex of the lungs
    arm_angle: float  # of the upper arm away from the trunk
    arm_radius: float
    clavicle_inner: float  # height of its inner end below the apex
    clavicle_outer: float
    blade_inner: float  # distance of the blade's inner border from the midline
    turn: float


def draw_shoulders(draws: Draws, build: Build, view: str) -> Shoulders:
    """PA: blades rolled off the lungs, arms out. AP: blades over the lungs, arms down, collar bones high."""
    portable = view == "AP"
    away = draws.uniform(-18, 8) if portable else draws.uniform(-4, 25)
    reach = build.cage + draws.uniform(42, 70)
    return Shoulders(
        reach=reach,
        height=draws.uniform(20, 50),
        arm_angle=draws.uniform(0.02, 0.35) if portable else draws.uniform(0.1, 1.0),
        arm_radius=draws.uniform(42, 58) + 0.12 * (build.half_width - build.cage),
        clavicle_inner=draws.uniform(5, 35) if portable else draws.uniform(22, 60),
        clavicle_outer=draws.uniform(-15, 22),
        blade_inner=build.cage + away,
        turn=draws.uniform(-0.15, 0.25),
    )


def shoulder_shadows(shoulders: Shoulders, build: Build, frame: Frame, draws: Draws) -> tuple[Tensor, Tensor]:
    """Soft tissue of the arms, and the bone that is added to soft tissue, ``(H, W)`` each."""
    soft = torch.zeros(frame.count, frame.count)
    bone = torch.zeros(frame.count, frame.count)
    for side in (LEFT, RIGHT):
        lift = draws.normal(0, 5)
        joint = (side * shoulders.reach, build.top - shoulders.height + lift)
        angle = shoulders.arm_angle + draws.normal(0, 0.06)
        sine, cosine = float(torch.tensor(angle).sin()), float(torch.tensor(angle).cos())
        elbow = (joint[0] + side * 290 * sine, joint[1] - 290 * cosine)
        arm = capsule_shadow(frame, (joint[0] + side * 8, joint[1] - 8), elbow, shoulders.arm_radius)
        girdle = capsule_shadow(
            frame, (side * 0.7 * shoulders.reach, joint[1] + 12), joint, 0.95 * shoulders.arm_radius
        )
        soft = torch.maximum(soft, torch.maximum(arm, girdle))
        bone += _arm_bone(frame, side, joint, elbow) + _clavicle(frame, side, shoulders, build, lift)
        bone += _blade(frame, side, shoulders, joint)
    return soft * build.tissue, bone * build.bone


def _arm_bone(frame: Frame, side: int, joint: tuple[float, float], elbow: tuple[float, float]) -> Tensor:
    head = (joint[0] - side * 4, joint[1] + 2)
    shell = ellipsoid_shadow(frame, head, (23, 23, 23)) - ellipsoid_shadow(frame, head, (21, 21, 21))
    shaft = capsule_shadow(frame, joint, elbow, 11) - capsule_shadow(frame, joint, elbow, 7)
    return 1.0 * shell + 0.5 * ellipsoid_shadow(frame, head, (21, 21, 21)) + 1.5 * shaft


def _clavicle(frame: Frame, side: int, shoulders: Shoulders, build: Build, lift: float) -> Tensor:
    along = torch.linspace(0, 1, 24)
    x = side * (14 + along * (shoulders.reach - 22))
    inner, outer = build.top - shoulders.clavicle_inner, build.top - shoulders.clavicle_outer + lift
    z = inner + (outer - inner) * along.pow(0.8) + 6 * (along * 2 * torch.pi).sin() * (1 - 0.4 * along)
    path = torch.stack([x, torch.zeros_like(x), z], 1)
    shadow = torch.zeros(frame.count, frame.count)
    for offset, radius, density in ((-5, 1.5, 4.5), (-2, 2.4, 2.4), (2, 2.4, 2.4), (5, 1.5, 4.5)):
        strand = path + torch.tensor([0.0, 0.0, offset])
        shadow += tube_shadow(frame, strand[:-1], strand[1:], torch.full((23,), radius), density)
    return shadow


def _blade(frame: Frame, side: int, shoulders: Shoulders, joint: tuple[float, float]) -> Tensor:
    """A thin triangle with thick borders, its spine running up to the shoulder."""
    inner, (jx, jz) = shoulders.blade_inner, joint
    down = 118.0
    corners = torch.tensor(
        [
            [side * (inner + 6), 60, jz + 18],
            [side * (inner + 14 + down * shoulders.turn), 60, jz - down],
            [jx - side * 24, 60, jz - 6],
        ]
    )
    tip = torch.tensor([jx + side * 8, 60, jz + 28])
    root = torch.tensor([side * (inner + 4), 60, jz - 8])
    shadow = 2.5 * _triangle(frame, corners)
    for start, end, bow, radius, density in (
        (corners[0], corners[1], -4.0, 1.4, 1.6),
        (corners[1], corners[2], -9.0, 2.6, 1.6),
        (corners[2], corners[0], -5.0, 1.4, 1.2),
        (root, tip, 6.0, 3.4, 2.0),
    ):
        path = _bowed(start, end, side * bow)
        shadow += tube_shadow(frame, path[:-1], path[1:], torch.full((len(path) - 1,), radius), density)
    return shadow


def _bowed(start: Tensor, end: Tensor, bow_mm: float, count: int = 16) -> Tensor:
    """A path ``(count, 3)`` that bows sideways by ``bow_mm`` between two positions, seen along y."""
    along = torch.linspace(0, 1, count)[:, None]
    across = torch.stack([end[2] - start[2], torch.zeros(()), start[0] - end[0]])
    across = across / across.norm()
    return start + (end - start) * along + across * bow_mm * 4 * along * (1 - along)


def _triangle(frame: Frame, corners: Tensor) -> Tensor:
    """1 inside a triangle of positions ``(3, 3)`` seen along y, 0 outside, half a pixel soft."""
    inside = torch.ones(frame.count, frame.count)
    x, z = corners[:, 0], corners[:, 2]
    middle_x, middle_z = x.mean(), z.mean()
    for first, second in ((0, 1), (1, 2), (2, 0)):
        dx, dz = x[second] - x[first], z[second] - z[first]
        length = (dx.square() + dz.square()).sqrt()
        beside = ((frame.x() - x[first]) * dz - (frame.z() - z[first]) * dx) / length
        inward = ((middle_x - x[first]) * dz - (middle_z - z[first]) * dx).sign()
        inside = inside * (beside * inward / frame.pixel_mm + 0.5).clamp(0, 1)
    return inside
