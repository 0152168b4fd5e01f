"""Python that a bundle brings along, so that it works beside other bundles."""

import ast
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions

from ..errors import BadInput
from .candidate import Candidate

ALWAYS = ("torch", "monai", "numpy")  # the metadata have keys of their own for these


def code_name(bundle: Candidate) -> None:
    """Of two bundles in one process with one package name the second would run the first one's code."""
    own = f"{bundle.metadata.get('name')}_code"
    for where, _ in modules(bundle):
        top = where.split("/")[0]
        if top != own:
            raise BadInput(f"there is Python in {top}: expected it in {own}, a name of its own")


def code_imports(bundle: Candidate) -> None:
    """Relative and at module top: MONAI Label takes the bundle off the search path before anything is called."""
    for where, tree in modules(bundle):
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and any(map(is_import, ast.walk(node))):
                raise BadInput(f"{where} imports inside the function {node.name}: import at module top")
        for module in absolute_imports(tree):
            if module in ("pulmozoo", where.split("/")[0]):
                raise BadInput(f"{where} imports {module} by its name: import it relatively")


def code_requirements(bundle: Candidate) -> None:
    """A module that is not installed keeps MONAI Label's whole server from starting."""
    named = {*ALWAYS, *bundle.metadata["required_packages_version"]}
    distributions = packages_distributions()
    for where, tree in modules(bundle):
        for module in absolute_imports(tree):
            packages = {package.lower() for package in distributions.get(module, [])}
            if module not in sys.stdlib_module_names and not packages & named:
                raise BadInput(f"{where} imports {module}: name its package under required_packages_version")


def modules(bundle: Candidate) -> Iterator[tuple[str, ast.Module]]:
    """Path in the bundle and syntax tree of every Python file."""
    for path in sorted(bundle.root.rglob("*.py")):
        yield path.relative_to(bundle.root).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def is_import(node: ast.AST) -> bool:
    return isinstance(node, (ast.Import, ast.ImportFrom))


def absolute_imports(tree: ast.Module) -> Iterator[str]:
    """Top-level names of what a module imports by an absolute name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").split(".")[0]
