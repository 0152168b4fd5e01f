"""The bundle's name and version, as the tools around MONAI bundles take them apart."""

import re
from collections.abc import Iterator

from ..errors import BadInput
from ..root import bundle_name
from .candidate import Candidate

TASKS = ("segmentation", "detection", "classification", "grading")  # the last is a segmentation for MONAI Label


def name(bundle: Candidate) -> None:
    """MONAI splits ``<name>_v<version>`` at the first ``_v``; NGC writes names in lower case."""
    came = str(bundle.metadata.get("name"))
    if not re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)+", came) or "_v" in came:
        raise BadInput(f"the name is {came!r}: expected words of small letters and digits, joined by _, no '_v'")


def task_in_name(bundle: Candidate) -> None:
    """MONAI Label infers the task from the folder's name, which for a release is the bundle's."""
    came = str(bundle.metadata.get("name"))
    if not any(task in came for task in TASKS):
        raise BadInput(f"the name {came!r} has no task in it: expected one of {', '.join(TASKS)}")


def name_apart(bundle: Candidate) -> None:
    """MONAI looks for the latest version of a bundle among all names that contain its name."""
    own = str(bundle.metadata.get("name"))
    for other in neighbours(bundle):
        if other != own and (own in other or other in own):
            raise BadInput(f"the name {own!r} and that of the bundle beside, {other!r}, overlap: rename one of them")


def neighbours(bundle: Candidate) -> Iterator[str]:
    """Names of the bundles, or the zips, that lie beside this one."""
    if bundle.archive:
        yield from (path.name.split("_v")[0] for path in bundle.archive.parent.glob("*_v*.zip"))
    else:
        yield from (found for folder in bundle.root.parent.iterdir() if (found := bundle_name(folder)))


def version(bundle: Candidate) -> None:
    """The zoo and MONAI sort versions as strings, so 0.10.0 would come before 0.9.0."""
    came = str(bundle.metadata.get("version"))
    if not re.fullmatch(r"\d\.\d\.\d", came):
        raise BadInput(f"the version is {came!r}: expected three numbers of one digit, such as 0.1.0")


def changelog(bundle: Candidate) -> None:
    metadata = bundle.metadata
    if not metadata.get("changelog", {}).get(metadata.get("version")):
        raise BadInput(f"the changelog says nothing of {metadata.get('version')}: add what changes for the user")
