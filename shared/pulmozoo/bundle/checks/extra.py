"""Packages that only the checks need."""

from monai.utils import optional_import

from ..errors import BadInput


def need(module: str) -> None:
    """Raise BadInput, naming the extra, unless the module can be imported."""
    _, there = optional_import(module)
    if not there:
        raise BadInput(f"this check needs {module}: pip install 'pulmozoo[verify]'")
