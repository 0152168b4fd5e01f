"""Synthetic chests made while a network trains, instead of read from files."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor, PersistentDataset
from monai.transforms import Compose, Transform
from monai.utils import MetaKeys, SpaceKeys
from torch import Tensor

from ..bundle.errors import BadInput
from ..phantom.chest import thorax


class MakePhantomd(Transform):
    """Adds the chest of ``data["seed"]`` on the grid ``data["shape"]``, ``data["spacing_mm"]`` (along x, y, z).

    ``image`` is the CT in HU, float32 ``(1, X, Y, Z)``, ``label`` its lobes, uint8; ``airways`` and ``vessels`` go by
    their names. All are MetaTensors with the chest's affine.

    Args:
        device: where the chests are made, and stay.
    """

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.device = device

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        chest = thorax(data["seed"], tuple(data["shape"]), tuple(data["spacing_mm"]), device=self.device)
        affine = chest.pop("affine")
        image, label = chest.pop("ct_hu").float(), chest.pop("lobes")
        volumes = {"image": image, "label": label, **chest}
        return {**data, **{key: _with_affine(volume, affine) for key, volume in volumes.items()}}


class PhantomDataset(PersistentDataset):
    """``count`` synthetic chests, each made when it is asked for: items of :class:`MakePhantomd`, transformed.

    A folder keeps them, each with what ``transform`` does up to its first random part, so that every chest is made
    once; delete it when the transform or pulmozoo changes. ``CacheDataset(PhantomDataset(...), transform)`` keeps them
    in memory instead.

    Args:
        count: chests; of two datasets with the same seed the larger one begins with the smaller one.
        seed: which chests; datasets whose seeds lie at least ``count`` apart share none.
        shape: voxels along x, y, z.
        spacing_mm: voxel size along x, y, z.
        transform: what follows, on the keys ``image``, ``label``, ``airways`` and ``vessels``.
        device: where the chests are made.
        cache: folder that keeps the chests; none makes them anew in each epoch.
    """

    def __init__(
        self,
        count: int,
        seed: int,
        shape: Sequence[int],
        spacing_mm: Sequence[float],
        transform: Callable[..., Any] | Sequence[Callable[..., Any]] = (),
        device: str | torch.device = "cpu",
        cache: str | Path | None = None,
    ) -> None:
        if count < 1:
            raise BadInput(f"count must be at least 1, got {count}: ask for the number of chests of an epoch")
        items = [
            {"seed": chest, "shape": list(shape), "spacing_mm": list(spacing_mm)} for chest in range(seed, seed + count)
        ]
        followed_by = transform if isinstance(transform, Sequence) else [transform]
        super().__init__(items, Compose([MakePhantomd(device), *followed_by]), cache, track_meta=True)


def _with_affine(volume: Tensor, affine: Tensor) -> MetaTensor:
    """``(X, Y, Z)`` as ``(1, X, Y, Z)`` with the meta that MONAI's spatial transforms look for."""
    image = MetaTensor(volume[None], affine=affine.clone(), meta={MetaKeys.ORIGINAL_CHANNEL_DIM: "no_channel"})
    image.meta[MetaKeys.ORIGINAL_AFFINE] = affine.clone()
    image.meta[MetaKeys.SPATIAL_SHAPE] = tuple(volume.shape)
    image.meta[MetaKeys.SPACE] = SpaceKeys.RAS
    return image
