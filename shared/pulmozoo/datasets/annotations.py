"""What the annotations of a data set hold."""

from collections.abc import Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np
from torch.utils.data import WeightedRandomSampler

from ..bundle.errors import BadInput
from ..losses.lungnet import median_frequency_weights


def annotated_pixels(path: str, classes: int) -> np.ndarray:
    """Voxels of each class, 1 to ``classes``, in a label file: ``(classes,)``; BadInput for other values."""
    label = np.rint(np.asarray(nib.Nifti1Image.from_filename(path).dataobj)).astype(np.int64)
    if label.min() < 0 or label.max() > classes:
        raise BadInput(
            f"{path} has labels {label.min()} to {label.max()}: expected 0 (not annotated) to {classes}; convert it"
        )
    return np.bincount(label.ravel(), minlength=classes + 1)[1:]


def class_weights(data: Sequence[Mapping[str, Any]], classes: int, key: str = "label") -> list[float]:
    """Median frequency weights of the annotated voxels of a datalist; BadInput where nothing is annotated."""
    counts = np.sum([annotated_pixels(item[key], classes) for item in data], axis=0)
    try:
        return median_frequency_weights(counts.tolist())
    except ValueError as error:
        raise BadInput(f"none of the {len(data)} label files holds an annotation; check the datalist") from error


def balanced_sampler(data: Sequence[Mapping[str, Any]], classes: int, key: str = "label") -> WeightedRandomSampler:
    """Draw scans as often as their annotated voxels weigh on the average; as many a pass as there are.

    LungNet's loss divides by the weights of a crop's own pixels, so that a crop of one class weighs as much whichever
    class that is. Drawn so, classes weigh in the whole training as their median frequency weights have it.
    """
    counts = np.stack([annotated_pixels(item[key], classes) for item in data])
    weights = np.array(median_frequency_weights(counts.sum(axis=0).tolist()))
    means = (counts * weights).sum(axis=1) / np.maximum(counts.sum(axis=1), 1)
    return WeightedRandomSampler(means.tolist(), num_samples=len(data))
