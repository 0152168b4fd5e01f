"""What a radiologist reads off DRAM's maps: percent and Fleischner score of each subtype, beside the densitometry."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.transforms import Transform
from monai.utils import convert_to_tensor
from torch import Tensor
from torch.nn import functional as F

from ..metrics.emphysema_scores import CLE, PSE
from ..networks.dram import at_map_size, grade_logits, lung_means
from .densitometry import density_histograms, density_numbers, in_slice_noise, kernel_warning
from .emphysema_grid import GATE_HU

SCALES = {"cle": CLE, "pse": PSE}
WHOLE = {"1": "lungs_"}
SIDES = {"1": "left_lung_", "2": "right_lung_"}

Numbers = dict[str, Any]


def gated_maps(maps: Tensor, image_hu: Tensor) -> Tensor:
    """Maps ``(2, d, h, w)`` enlarged to the CT ``(1, D, H, W)``, 0 where that is -910 HU or brighter."""
    enlarged = F.interpolate(maps[None], image_hu.shape[1:], mode="trilinear", align_corners=True)[0]
    return enlarged * (image_hu < GATE_HU)


def means_by_label(values: Tensor, labels: Tensor, count: int) -> list[list[float | None]]:
    """Mean of each channel of ``(C, *S)`` for each label below ``count`` of ``(*S)``: ``[label][channel]``."""
    flat = labels.flatten().long()
    voxels = torch.bincount(flat, minlength=count)
    sums = [torch.bincount(flat, weights=channel.flatten().double(), minlength=count) for channel in values]
    return [[(of[i] / voxels[i]).item() if voxels[i] else None for of in sums] for i in range(count)]


def map_percents(maps: Tensor, gated: Tensor, labels: Tensor, names: Mapping[str, str]) -> Numbers:
    """Percent of each subtype in every part of the lungs, None where a part is missing.

    ``<part>_cle_percent`` is the mean of the map, as the network was trained; ``<part>_cle_gated_percent`` is that of
    the enlarged map in voxels darker than -910 HU, as the published program writes it.

    Args:
        maps: ``(2, d, h, w)`` densities of CLE and PSE.
        gated: those of :func:`gated_maps`, ``(2, D, H, W)``.
        labels: ``(1, D, H, W)`` parts of the lungs.
        names: of the labels, ``{"1": "left_lung_", ...}``; "0" is none.
    """
    count = max(int(labels.max()), *map(int, names)) + 1
    fine = means_by_label(gated, labels[0], count)
    coarse = means_by_label(maps, at_map_size(labels[None], maps[None])[0, 0], count)
    numbers: Numbers = {}
    for index, prefix in names.items():
        if int(index) > 0:
            for kind, means in (("percent", coarse), ("gated_percent", fine)):
                for subtype, mean in zip(SCALES, means[int(index)], strict=True):
                    numbers[f"{prefix}{subtype}_{kind}"] = None if mean is None else round(100 * mean, 3)
    return numbers


def grade_numbers(scores: Mapping[str, int]) -> Numbers:
    """``cle_score`` and ``cle_grade``, its name; the same of PSE."""
    numbers: Numbers = {}
    for subtype, score in scores.items():
        numbers |= {f"{subtype}_score": score, f"{subtype}_grade": SCALES[subtype].grades[score]}
    return numbers


def density_of_parts(ct_hu: Tensor, labels: Tensor, voxel_ml: float, names: Mapping[str, str]) -> Numbers:
    """:func:`density_numbers` of every part of the lungs, ``<part>_laa950_percent`` and so on; one shape."""
    histograms = density_histograms(ct_hu, labels, max(int(labels.max()), *map(int, names)) + 1)
    return {
        f"{prefix}{key}": value
        for index, prefix in names.items()
        if int(index) > 0
        for key, value in density_numbers(histograms[int(index)], voxel_ml).items()
    }


class EmphysemaGradesd(Transform):
    """Add to ``data["result"]`` scores, grades and, of regression, percents of the whole lungs.

    A training needs no more of a scan: it takes DRAM's logits under ``key`` and the lungs on the working grid.
    """

    def __init__(self, key: str = "pred") -> None:
        self.key = key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        logits = convert_to_tensor(data[self.key]).float().cpu()
        regression = len(logits) == len(SCALES)
        numbers = regressed(logits.sigmoid(), plain(data["lung"])) if regression else graded(logits)
        return {**data, "result": {**data.get("result", {}), **numbers}}


class EmphysemaNumbersd(Transform):
    """Add to ``data["result"]`` what there is to say of a scan, as plain numbers, strings and None.

    Takes DRAM's logits under ``key``, of regression ``(2, d, h, w)`` or classification ``(9, d, h, w)``, before
    :class:`~.emphysema_grid.SubtypesOnScand` changes them, and what :class:`~.emphysema_grid.EmphysemaGridd` left.
    Scores are those of the training's percent; classification gives scores alone. Each lung is told apart where the
    lungs are labelled 1 and 2, each lobe where there are lobes. ``kernel_warning`` is a sentence or None.

    Args:
        ct_key, lungs_key, lobes_key: on the scan's grid.
        lobe_names: of the lobe labels, ``{"1": "left upper lobe", ...}``.
    """

    def __init__(
        self,
        key: str = "pred",
        *,
        ct_key: str = "ct_hu",
        lungs_key: str = "lungs",
        lobes_key: str = "lobes",
        lobe_names: Mapping[str, str] | None = None,
    ) -> None:
        self.key = key
        self.ct_key, self.lungs_key, self.lobes_key = ct_key, lungs_key, lobes_key
        self.lobes = {index: f"{name.replace(' ', '_')}_" for index, name in (lobe_names or {}).items()}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        logits = convert_to_tensor(data[self.key]).float().cpu()
        ct_hu, lungs = plain(data[self.ct_key]), plain(data[self.lungs_key])
        parts = {}
        if (lungs == 2).any():
            parts["lung"] = (lungs, SIDES)
        if self.lobes and self.lobes_key in data:
            parts["lobe"] = (plain(data[self.lobes_key]), self.lobes)
        if len(logits) == len(SCALES):
            numbers = self.shares(logits.sigmoid(), data, {key: names for key, (_, names) in parts.items()})
        else:
            numbers = graded(logits)
        voxel_ml = float(data[self.ct_key].pixdim.prod()) / 1000
        for labels, names in (((lungs > 0).to(torch.uint8), WHOLE), *parts.values()):
            numbers |= density_of_parts(ct_hu, labels, voxel_ml, names)
        numbers |= noise_numbers(ct_hu[0], lungs[0], data[self.ct_key].affine)
        return {**data, "result": {**data.get("result", {}), **numbers}}

    def shares(self, maps: Tensor, data: Mapping[Hashable, Any], parts: Mapping[str, Mapping[str, str]]) -> Numbers:
        """Percents of the whole and of each part, scores of the whole; ``maps`` is ``(2, d, h, w)``."""
        lungs = plain(data["lung"])
        numbers = regressed(maps, lungs)
        gated = gated_maps(maps, plain(data["image_hu"]))
        numbers |= map_percents(maps, gated, (lungs > 0).to(torch.uint8), {"1": ""})
        for part, names in parts.items():
            numbers |= map_percents(maps, gated, plain(data[part]), names)
        return numbers


def regressed(maps: Tensor, lungs: Tensor) -> Numbers:
    """Scores of the mean densities in the lungs, and these in percent; ``(2, d, h, w)`` and ``(1, D, H, W)``."""
    means = dict(zip(SCALES, lung_means(maps[None], lungs[None])[0].tolist(), strict=True))
    numbers = grade_numbers({subtype: SCALES[subtype].score(mean) for subtype, mean in means.items()})
    return numbers | {f"{subtype}_percent": round(100 * mean, 3) for subtype, mean in means.items()}


def graded(logits: Tensor) -> Numbers:
    """Most likely scores of the classification, logits ``(9, d, h, w)``."""
    cle, pse = grade_logits(logits[None])
    return grade_numbers({"cle": int(cle.argmax()), "pse": int(pse.argmax())})


def noise_numbers(ct_hu: Tensor, lungs: Tensor, affine: Tensor) -> Numbers:
    """``noise_hu`` and ``kernel_warning`` of a scan ``(X, Y, Z)``, whose slices lie across the patient's long axis."""
    across = int(affine[2, :3].abs().argmax())
    noise = in_slice_noise(ct_hu.movedim(across, 0), lungs.movedim(across, 0))
    spacing_mm = affine[:3, :3].norm(dim=0).tolist()
    pixel_mm = max(step for axis, step in enumerate(spacing_mm) if axis != across)
    return {
        "noise_hu": None if noise is None else round(noise, 2),
        "kernel_warning": kernel_warning(noise, pixel_mm),
    }


def plain(volume: Tensor) -> Tensor:
    """Without meta data, on the CPU."""
    return convert_to_tensor(volume).cpu()
