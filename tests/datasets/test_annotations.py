import nibabel as nib
import numpy as np
import pytest

from pulmozoo.bundle.errors import BadInput
from pulmozoo.datasets.annotations import annotated_pixels, balanced_sampler, class_weights


def write(path, values):
    nib.save(nib.Nifti1Image(np.asarray(values, dtype=np.uint8).reshape(2, 2, -1), np.eye(4)), path)
    return str(path)


def test_weights_by_hand(tmp_path):
    """Six, two and four voxels of three classes: the median is 4."""
    one = write(tmp_path / "one.nii.gz", [1, 1, 1, 1, 2, 0, 0, 0])
    two = write(tmp_path / "two.nii.gz", [1, 1, 2, 3, 3, 3, 3, 0])
    assert annotated_pixels(two, 3).tolist() == [2, 1, 4]
    assert class_weights([{"label": one}, {"label": two}], 3) == [4 / 6, 2, 1]


def test_labels_that_are_none_are_refused(tmp_path):
    path = write(tmp_path / "label.nii.gz", [1, 2, 7, 0])
    with pytest.raises(BadInput, match=r"label.nii.gz has labels 0 to 7: expected 0 \(not annotated\) to 6"):
        class_weights([{"label": path}], 6)


def test_nothing_annotated(tmp_path):
    path = write(tmp_path / "label.nii.gz", [0, 0, 0, 0])
    with pytest.raises(BadInput, match="none of the 1 label files holds an annotation"):
        class_weights([{"label": path}], 6)


def test_scans_of_rare_classes_are_drawn_more_often(tmp_path):
    """Weights 1/3, 1 and 1 (median 2 of 6, 2, 2): the first scan holds the common class alone."""
    common = write(tmp_path / "common.nii.gz", [1, 1, 1, 1, 0, 0, 0, 0])
    mixed = write(tmp_path / "mixed.nii.gz", [1, 1, 2, 2, 0, 0, 0, 0])
    rare = write(tmp_path / "rare.nii.gz", [3, 3, 0, 0, 0, 0, 0, 0])
    sampler = balanced_sampler([{"label": path} for path in (common, mixed, rare)], 3)
    assert sampler.weights.tolist() == pytest.approx([1 / 3, 2 / 3, 1])
    assert len(list(sampler)) == 3
