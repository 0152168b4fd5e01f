"""Checkpoints that the papers' authors published: where each lies, what it is, and its names in our networks."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor, nn

from ..bundle.errors import BadInput
from . import ctsunet


class Published(NamedTuple):
    """A file that is downloaded from its authors, never shipped by us.

    Args:
        url: where the authors offer it.
        licence: their terms.
        identity: kind (``git blob id`` or ``sha256``) and hex digest of the file.
        state_key: what it holds the network's state dict under.
        our_name: a tensor's name in our network, from its published one.
        network: the network that it belongs to, in the bundle's ``preset``.
        trained_on, score: what the paper says of these weights.
    """

    url: str
    licence: str
    identity: tuple[str, str]
    state_key: str
    our_name: Callable[[str], str]
    network: Callable[[], nn.Module]
    preset: str
    trained_on: str
    score: str


PUBLISHED = {
    "lung_lobe_ct_segmentation": Published(
        url="https://github.com/DIAGNijmegen/bodyct-pulmonary-lobe-segmentation/raw/main/best.pth",
        licence="Apache-2.0",
        identity=("git blob id", "4bf5a915c8b785c401ab1d446c989b4587acc7a4"),
        state_key="model_dict",
        our_name=ctsunet.our_name,
        network=ctsunet.released_network,
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
        network: what the weights are for; by default the bundle's network in its ``released`` preset.

    Raises BadInput that names the first tensor that does not fit.
    """
    published = published_of(bundle)
    wanted = (network or published.network()).state_dict()
    renamed: dict[str, Tensor] = {}
    for name, tensor in published_state_dict.items():
        ours = published.our_name(name)
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
