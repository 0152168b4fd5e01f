"""A baseline without a network: what a pixel's surroundings look like, and how far the pleura is.

Ours, in place of the patch-wise comparator of SR-Net's paper (Bermejo-Peláez et al., ISBI 2019), which is not described
there: a histogram of the density around the pixel and the distance to the pleura, in the slice alone, and the vote of
the nearest training pixels.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.inferers import Inferer
from monai.utils import convert_to_tensor, optional_import
from scipy import ndimage
from torch import Tensor

from ..blocks.slice_recovery import target_index
from ..bundle.errors import BadInput

NearestNeighbours, has_sklearn = optional_import("sklearn.neighbors", name="KNeighborsClassifier")

EDGES_HU = (-985.0, -960.0, -935.0, -910.0, -880.0, -840.0, -750.0)  # between the eight bins of the histogram
WINDOW_PX = 7
FAR_PX = 15.0  # all distances beyond count alike
LOWEST = 0.005  # a vote is never certain, so that it has a logit


def patch_features(image: np.ndarray, window_hu: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Of each pixel of the lungs ``(pixels, 9)``, and the lungs ``(H, W)``, from a slice that is 0 outside of them.

    Eight shares of the density in the window around it, counted inside the lungs, then the distance to what is not
    lung, 1 for 15 pixels and more. ``window_hu`` says what is 0 and 1 in the slice.
    """
    low, high = window_hu
    lung = ndimage.binary_closing(image > 0)
    near = np.maximum(ndimage.uniform_filter(lung.astype(float), WINDOW_PX, mode="constant"), 1e-6)
    bins = np.digitize(image, [(edge - low) / (high - low) for edge in EDGES_HU])
    shares = [
        ndimage.uniform_filter(((bins == number) & lung).astype(float), WINDOW_PX, mode="constant") / near
        for number in range(len(EDGES_HU) + 1)
    ]
    distance = np.minimum(ndimage.distance_transform_edt(np.pad(lung, 1))[1:-1, 1:-1] / FAR_PX, 1)
    return np.stack([*shares, distance], axis=-1)[lung], lung


def draw_pixels(
    training: Sequence[Mapping[str, Any]], window_hu: Sequence[float], pixels: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Features and classes of annotated pixels, as many of lesion as not, at most ``pixels`` of each kind a slice."""
    rng = np.random.default_rng(seed)
    features, classes = [], []
    for scan in training:
        image, label = (convert_to_tensor(scan[key]).numpy()[0] for key in ("image", "label"))
        for target, lesion in zip(scan["targets"], label, strict=True):
            of_slice, lung = patch_features(image[target], window_hu)
            for kind in (False, True):
                found = np.flatnonzero(lesion[lung] == kind)
                chosen = rng.permutation(found)[:pixels]
                features.append(of_slice[chosen])
                classes.append(np.full(len(chosen), kind))
    return np.concatenate(features), np.concatenate(classes)


class PatchNeighboursInferer(Inferer):
    """Logits of the target slice of stacks, ``(N, 1, depth, H, W) -> (N, 1, 1, H, W)``; the network is not asked.

    Args:
        training: scans with ``image`` ``(1, D, H, W)``, ``label`` ``(1, n, H, W)`` and ``targets``.
        window_hu: what is 0 and 1 in the images.
        neighbours: that vote.
        pixels: of each kind that are taken from a training slice.
    """

    def __init__(
        self,
        training: Sequence[Mapping[str, Any]],
        window_hu: Sequence[float],
        neighbours: int = 25,
        pixels: int = 40,
    ) -> None:
        super().__init__()
        if not has_sklearn:
            raise BadInput("the patch baseline needs scikit-learn: pip install 'pulmozoo[eval]'")
        self.training, self.window_hu, self.neighbours, self.pixels = training, window_hu, neighbours, pixels
        self.classifier: Any = None

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        if self.classifier is None:
            drawn = draw_pixels(self.training, self.window_hu, self.pixels)
            self.classifier = NearestNeighbours(self.neighbours).fit(*drawn)
        stacks = convert_to_tensor(inputs).cpu().numpy()[:, 0]
        answer = np.full((len(stacks), 1, 1, *stacks.shape[2:]), LOWEST)
        for number, stack in enumerate(stacks):
            features, lung = patch_features(stack[target_index(len(stack))], self.window_hu)
            if len(features):
                answer[number, 0, 0][lung] = self.classifier.predict_proba(features)[:, -1]
        return torch.logit(torch.from_numpy(answer).float(), LOWEST).to(inputs.device)
