"""Chests made on the fly: MONAI's samples, cached by MONAI's means."""

import pytest
import torch
from monai.data import CacheDataset, MetaTensor
from monai.transforms import RandShiftIntensityd, ScaleIntensityRanged
from monai.utils import set_determinism

from pulmozoo.bundle.errors import BadInput
from pulmozoo.datasets import phantom_dataset
from pulmozoo.datasets.phantom_dataset import PhantomDataset
from pulmozoo.phantom import thorax

GRID = {"shape": (24, 20, 16), "spacing_mm": (16.0, 18.0, 20.0)}
SCALED = ScaleIntensityRanged("image", -1024, 976, 0, 1, clip=True)


@pytest.fixture(scope="module")
def chest():
    return thorax(5, **GRID)


@pytest.fixture
def made(monkeypatch, chest):
    """The seeds of the chests that were made; all are the one chest, because drawing takes seconds."""
    seeds = []

    def one_chest(seed, shape, spacing_mm, device):
        seeds.append(seed)
        assert (shape, spacing_mm, device) == (GRID["shape"], GRID["spacing_mm"], "cpu")
        return dict(chest)

    monkeypatch.setattr(phantom_dataset, "thorax", one_chest)
    return seeds


def test_a_sample_is_the_chest_of_its_seed(chest):
    sample = PhantomDataset(1, 5, **GRID)[0]
    assert all(isinstance(sample[key], MetaTensor) for key in ("image", "label", "airways", "vessels"))
    assert torch.equal(sample["image"].as_tensor(), chest["ct_hu"][None].float())
    assert torch.equal(sample["label"].as_tensor(), chest["lobes"][None])
    assert torch.equal(sample["label"].affine, chest["affine"])
    assert sample["image"].pixdim.tolist() == [16.0, 18.0, 20.0]


def test_each_sample_has_its_own_seed(made):
    dataset = PhantomDataset(3, 40, **GRID)
    assert len(dataset) == 3
    assert [sample["seed"] for sample in dataset] == made == [40, 41, 42]


def test_without_a_cache_chests_are_made_again(made):
    dataset = PhantomDataset(1, 5, **GRID, transform=SCALED)
    first, second = dataset[0], dataset[0]
    assert made == [5, 5]
    assert 0 <= first["image"].min() < 0.2 < 0.5 < first["image"].max() <= 1
    assert torch.equal(first["image"], second["image"])


def test_a_folder_keeps_chests_but_not_the_random_part(made, tmp_path):
    set_determinism(None)  # a training before this test leaves MONAI's seed behind

    def dataset():
        return PhantomDataset(
            2, 5, **GRID, transform=[SCALED, RandShiftIntensityd("image", 0.5, prob=1)], cache=tmp_path
        )

    first, again, anew = dataset()[0], dataset()[0], dataset()[1]
    assert made == [5, 6]
    assert len(list(tmp_path.iterdir())) == 2
    assert not torch.equal(first["image"], again["image"])
    assert torch.equal(first["label"], again["label"])
    assert torch.equal(again["image"].affine, anew["image"].affine)
    assert isinstance(again["image"], MetaTensor)


def test_another_grid_is_another_entry(made, tmp_path, monkeypatch, chest):
    PhantomDataset(1, 5, **GRID, cache=tmp_path)[0]
    monkeypatch.setattr(phantom_dataset, "thorax", lambda *args, **kwargs: dict(chest))
    PhantomDataset(1, 5, (8, 8, 8), GRID["spacing_mm"], cache=tmp_path)[0]
    assert len(list(tmp_path.iterdir())) == 2


def test_memory_keeps_chests_by_monais_cache(made):
    cached = CacheDataset(PhantomDataset(2, 5, **GRID), SCALED, progress=False, num_workers=None)
    assert made == [5, 6]
    assert torch.equal(cached[0]["image"], cached[0]["image"])
    assert made == [5, 6]


def test_no_chests_are_refused():
    with pytest.raises(BadInput, match="count must be at least 1, got 0"):
        PhantomDataset(0, 5, **GRID)
