from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from pulmozoo.bundle.weights_file import sha256
from pulmozoo.files import write_json
from pulmozoo.handlers.emphysema_overlay import emphysema_overlay_png, glowing
from pulmozoo.handlers.emphysema_writer import EmphysemaWriter
from pulmozoo.handlers.overlay import PALETTE
from pulmozoo.handlers.stopwatch import Stopwatch

AFFINE = torch.tensor([[-2, 0, 0, 0], [0, -3.0, 0, 0], [0, 0, 4.0, 0], [0, 0, 0, 1]], dtype=torch.float64)  # LPS
NAMES = {"0": "background", "1": "centrilobular emphysema", "2": "paraseptal emphysema"}
SHAPE = (30, 20, 10)


@pytest.fixture
def data() -> dict[str, Any]:
    """A black scan; centrilobular emphysema on the patient's right (low x), paraseptal on the left."""
    labels = torch.zeros(1, *SHAPE, dtype=torch.uint8)
    labels[0, 3:9, 4:16, 2:8], labels[0, 21:27, 4:16, 2:8] = 1, 2
    densities = torch.cat([(labels == 1) * 255, (labels == 2) * 255]).to(torch.uint8)
    ct_hu = torch.full((1, *SHAPE), -1150, dtype=torch.int16)
    return {
        "scan": "a",
        "ct_hu": MetaTensor(ct_hu, affine=AFFINE, meta={"filename_or_obj": "/scans/a.nii"}),
        "pred": MetaTensor(labels, affine=AFFINE),
        "probabilities": MetaTensor(densities, affine=AFFINE),
        "result": {"cle_score": 3},
    }


@pytest.fixture
def make_writer(tmp_path) -> Callable[..., EmphysemaWriter]:
    bundle = tmp_path / "bundle"
    (bundle / "configs").mkdir(parents=True)
    (bundle / "model.pt").write_bytes(b"weights")
    weights = {"tier": "phantom", "sha256": sha256(bundle / "model.pt")}
    write_json(bundle / "configs" / "metadata.json", {"name": "e", "version": "0.1.0", "weights": weights})

    def make(**options: Any) -> EmphysemaWriter:
        paths = (tmp_path / "OUT", bundle, bundle / "model.pt")
        return EmphysemaWriter(*paths, "phantom", NAMES, Stopwatch(), **options)

    return make


def written(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_files_of_a_scan(make_writer, data, tmp_path):
    make_writer().write(data, {"network": 1.0}, "cpu")
    assert written(tmp_path / "OUT") == {"a_seg.nii.gz", "overlay.png", "results.json"}


def test_densities_are_volumes_on_the_grid_of_the_scan(make_writer, data, tmp_path):
    writer = make_writer(probability_maps=True)
    writer.check_source(Path("/scans/a.nii"), dicom=False)
    writer.write(data, {"network": 1.0}, "cpu")
    for index, name in enumerate(("centrilobular", "paraseptal")):
        volume = nib.load(tmp_path / "OUT" / "a" / f"a_{name}_emphysema_probability.nii.gz")
        assert np.allclose(volume.affine, AFFINE)
        assert np.array_equal(volume.dataobj, data["probabilities"][index].numpy())
    assert writer.finished("a") is not None


def columns_with(rows: np.ndarray, label: int) -> np.ndarray:
    """Columns with the colour of a label as densities of 1 show it on black."""
    colour = np.rint(np.multiply(PALETTE[label - 1], 0.75))
    return np.unique(np.argwhere((rows == colour).all(axis=-1))[:, 1])


def test_each_subtype_has_a_panel(data, tmp_path):
    """The scan is 60 x 60 x 40 mm, so axial panels are 400 x 400 pixels and coronal ones below them 520 x 347.

    The second panel shows the first colour alone, on the patient's right, which is on the left; the third the other.
    """
    named = {int(label): name for label, name in NAMES.items() if label != "0"}
    emphysema_overlay_png(data["ct_hu"], data["pred"], data["probabilities"], tmp_path / "o.png", named)
    pixels = np.asarray(Image.open(tmp_path / "o.png"))
    assert pixels.shape == (24 + 400 + 8 + 347 + 8 + 24, 3 * 528 + 8, 3)
    axial, coronal = pixels[24:424], pixels[432:779]
    for rows, width in ((axial, 400), (coronal, 520)):
        for label, middle in ((1, 0.2), (2, 0.8)):
            found = columns_with(rows, label)
            left = 8 + label * (width + 8)
            assert found.mean() == pytest.approx(left + middle * width, abs=3)
            assert len(found) == pytest.approx(0.2 * width, abs=0.1 * width)


def test_a_density_lies_over_the_grey_by_hand():
    """Half a density of 0.75 opacity on grey 100: 100 + 0.375 * (200 - 100) = 137.5."""
    grey = np.full((4, 4, 3), 100, dtype=np.uint8)
    picture = glowing(grey, np.full((4, 4), 127.5), (200, 100, 0))
    assert picture[0, 0].tolist() == [138, 100, 62]
