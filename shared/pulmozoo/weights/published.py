"""Checkpoints that the papers' authors published: where each lies, what it is, and its names in our networks."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..bundle.errors import BadInput
from . import ctsunet, dram, pneumothorax


class Naming(NamedTuple):
    """How the tensors of the authors' program are called here.

    Args:
        our_name: a tensor's name in our network, from its published one.
        network: the network that they belong to, as far as nothing else is said.
    """

    our_name: Callable[[str], str]
    network: Callable[[], nn.Module]


NAMINGS = {
    "emphysema_subtype_ct_grading": Naming(dram.our_name, dram.released_network),
    "lung_lobe_ct_segmentation": Naming(ctsunet.our_name, ctsunet.released_network),
    "pneumothorax_cxr_segmentation": Naming(pneumothorax.our_name, pneumothorax.paper_network),
}


class Published(NamedTuple):
    """A file that is downloaded from its authors, never shipped by us.

    Args:
        url: where the authors offer it.
        licence: their terms.
        identity: kind (``git blob id`` or ``sha256``) and hex digest of the file.
        state_key: what it holds the network's state dict under.
        preset: the bundle's preset with the network that it belongs to.
        trained_on, score: what the paper says of these weights.
    """

    url: str
    licence: str
    identity: tuple[str, str]
    state_key: str
    preset: str
    trained_on: str
    score: str


PUBLISHED = {
    "emphysema_subtype_ct_grading": Published(
        url="https://media.githubusercontent.com/media/DIAGNijmegen/bodyct-dram-emph-subtype/main/paper.ckpt",
        licence="MIT",
        identity=("sha256", "41a3c1ac746048a525e66aeff5b1d5cbf5c732ab1df0b43d3b71e32a9e783ea7"),
        state_key="state_dict",
        preset="released",
        trained_on="2407 inspiratory chest CTs of COPDGene with visual emphysema scores (the authors' training)",
        score="linear-weighted kappa 0.642 centrilobular, 0.521 paraseptal on 7143 CTs of COPDGene: Xie et al. 2023, "
        "Table 2; not measured by pulmozoo",
    ),
    "lung_lobe_ct_segmentation": Published(
        url="https://github.com/DIAGNijmegen/bodyct-pulmonary-lobe-segmentation/raw/main/best.pth",
        licence="Apache-2.0",
        identity=("git blob id", "4bf5a915c8b785c401ab1d446c989b4587acc7a4"),
        state_key="model_dict",
        preset="released",
        trained_on="4000 chest CTs of COPDGene, then 104 of patients with suspected COVID-19 (the authors' training)",
        score="mean lobe IoU 0.912, HD95 6.45 mm on 100 CTs of patients with suspected COVID-19: Xie et al. 2020, "
        "Table III (b), whose second stage is wider than the released one; not measured by pulmozoo",
    ),
}


def published_of(bundle: str) -> Published:
    """The published checkpoint of a bundle; BadInput when none is known."""
    if bundle not in PUBLISHED:
        raise BadInput(f"published weights are known for {', '.join(sorted(PUBLISHED))}, got {bundle!r}")
    return PUBLISHED[bundle]


def convert(
    bundle: str, published_state_dict: Mapping[str, Tensor], network: nn.Module | None = None
) -> dict[str, Tensor]:
    """State dict of a bundle's network from the authors' one, strictly: every tensor has its place and its shape.

    Args:
        bundle: name of the bundle, such as ``lung_lobe_ct_segmentation``.
        published_state_dict: tensor by published name.
        network: what the weights are for; by default the one of :data:`NAMINGS`.

    Raises BadInput that names the first tensor that does not fit.
    """
    if bundle not in NAMINGS:
        raise BadInput(f"the names of published weights are known for {', '.join(sorted(NAMINGS))}, got {bundle!r}")
    naming = NAMINGS[bundle]
    with torch.device("meta"):  # only names and shapes count here
        wanted = (network or naming.network()).state_dict()
    renamed: dict[str, Tensor] = {}
    for name, tensor in published_state_dict.items():
        ours = naming.our_name(name)
        if ours not in wanted:
            raise BadInput(f"the checkpoint holds {name}, which has no place in the network of {bundle}")
        if tensor.shape != wanted[ours].shape:
            raise BadInput(
                f"{name} must have shape {tuple(wanted[ours].shape)} to fit the network of {bundle}, "
                f"got {tuple(tensor.shape)}"
            )
        renamed[ours] = tensor.detach().cpu()
    for ours in wanted:
        if ours not in renamed:
            raise BadInput(f"the checkpoint lacks {ours}, which the network of {bundle} needs")
    return {ours: renamed[ours] for ours in wanted}
