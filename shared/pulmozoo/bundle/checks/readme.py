"""The model card, ``docs/README.md``."""

import re

from ..errors import BadInput
from .candidate import Candidate

README = "docs/README.md"
SECTIONS = (  # in the order of the model zoo's template
    "Authors",
    "Tags",
    "Model Description",
    "Data",
    "Performance",
    "System Configuration",
    "Limitations",
    "Citation",
    "References",
)
STATEMENTS = ("not for clinical use", "training configuration", "memory", "torchscript", "tensorrt")


def readme_sections(bundle: Candidate) -> None:
    text = bundle.text(README)
    if not text.startswith("# "):
        raise BadInput(f"{README} does not begin with a title")
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = [heading.lower() for heading in re.findall(r"^## (.+)$", prose, flags=re.MULTILINE)]
    places = []
    for section in SECTIONS:
        found = [place for place, heading in enumerate(headings) if heading.startswith(section.lower())]
        if not found:
            raise BadInput(f"{README} has no section {section!r}")
        places.append(found[0])
    if places != sorted(places):
        raise BadInput(f"{README} has its sections in another order: expected {', '.join(SECTIONS)}")


def readme_commands(bundle: Candidate) -> None:
    start = re.compile(r"(python|torchrun .+) -m monai\.bundle run ")
    commands = [line for line in bundle.text(README).splitlines() if start.match(line)]
    for path in bundle.configs:
        if not any(path in command for command in commands):
            raise BadInput(f"{README} has no command with {path}: expected a line 'python -m monai.bundle run ...'")


def readme_statements(bundle: Candidate) -> None:
    said = " ".join(bundle.text(README).lower().split())
    missing = [statement for statement in STATEMENTS if statement not in said]
    if missing:
        raise BadInput(f"{README} says nothing of: {', '.join(missing)}")


def readme_pictures(bundle: Candidate) -> None:
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", bundle.text(README)):
        if not (bundle.root / README).with_name(picture).is_file():
            raise BadInput(f"{README} shows {picture}, which does not lie beside it: add it or remove the line")
