"""Published checkpoints of the papers' authors, renamed for our networks."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from . import ctsunet

IMPORTERS: dict[str, tuple[Callable[[str], str], Callable[[], nn.Module]]] = {
    "lung_lobe_ct_segmentation": (ctsunet.our_name, ctsunet.released_network),
}


def convert(
    bundle: str, published_state_dict: Mapping[str, Tensor], network: nn.Module | None = None
) -> dict[str, Tensor]:
    """State dict of a bundle's network from the authors' one, strictly: every tensor has its place and its shape.

    Args:
        bundle: name of the bundle, such as ``lung_lobe_ct_segmentation``.
        published_state_dict: tensor by published name.
        network: what the weights are for; by default the bundle's network in its ``released`` preset.

    Raises ValueError that names the first tensor that does not fit.
    """
    if bundle not in IMPORTERS:
        raise ValueError(f"published weights are known for {', '.join(sorted(IMPORTERS))}, got {bundle!r}")
    our_name, released_network = IMPORTERS[bundle]
    wanted = (network or released_network()).state_dict()
    renamed: dict[str, Tensor] = {}
    for name, tensor in published_state_dict.items():
        ours = our_name(name)
        if ours not in wanted:
            raise ValueError(f"the checkpoint holds {name}, which has no place in the network of {bundle}")
        if tensor.shape != wanted[ours].shape:
            raise ValueError(
                f"{name} must have shape {tuple(wanted[ours].shape)} to fit the network of {bundle}, "
                f"got {tuple(tensor.shape)}"
            )
        renamed[ours] = tensor.detach().cpu()
    for ours in wanted:
        if ours not in renamed:
            raise ValueError(f"the checkpoint lacks {ours}, which the network of {bundle} needs")
    return {ours: renamed[ours] for ours in wanted}
