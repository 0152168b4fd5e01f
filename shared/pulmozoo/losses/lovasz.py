"""Lovász hinge: a convex stand-in for the Jaccard index of a two-class mask, image by image.

Source: Berman, Rannen Triki, Blaschko, "The Lovász-Softmax loss", CVPR 2018, https://arxiv.org/abs/1705.08790,
section 3.1 (the hinge). As in the published program of Viel and Orhan (TheoViel/pneumothorax_segmentation) the errors
go through elu + 1 instead of ReLU, and the loss is made symmetric in the two classes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def jaccard_steps(truth: Tensor) -> Tensor:
    """By how much the Jaccard loss grows with each further pixel that is wrong: ``(B, N)`` to ``(B, N)``.

    ``truth`` holds 0 and 1 in the order in which the pixels go wrong.
    """
    positives = truth.sum(dim=1, keepdim=True)
    intersection = positives - truth.cumsum(dim=1)
    union = positives + (1 - truth).cumsum(dim=1)
    return (1 - intersection / union).diff(dim=1, prepend=torch.zeros_like(positives))


def lovasz_hinge(logits: Tensor, truth: Tensor) -> Tensor:
    """Mean over the images; logits and truth (0 or 1) are ``(B, ...)`` of one shape and one floating-point type."""
    logits, truth = logits.flatten(start_dim=1), truth.flatten(start_dim=1)
    errors, order = (1 - logits * (2 * truth - 1)).sort(dim=1, descending=True)
    return ((F.elu(errors) + 1) * jaccard_steps(truth.gather(1, order))).sum(dim=1).mean()


def symmetric_lovasz_hinge(logits: Tensor, truth: Tensor) -> Tensor:
    """Mean of :func:`lovasz_hinge` of the mask and of what lies outside it."""
    return (lovasz_hinge(logits, truth) + lovasz_hinge(-logits, 1 - truth)) / 2


class SymmetricLovaszHinge(nn.Module):
    """Module form of :func:`symmetric_lovasz_hinge`."""

    def forward(self, logits: Tensor, truth: Tensor) -> Tensor:
        return symmetric_lovasz_hinge(logits, truth)
