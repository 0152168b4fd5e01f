"""The bundle that is checked, and how the checks read it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BadInput
from ..pack import parse_json

METADATA, INFERENCE, TRAINING = (f"configs/{name}.json" for name in ("metadata", "inference", "train"))


@dataclass(frozen=True)
class Candidate:
    """A bundle's folder, and the zip that it came out of if there is one; files are named by their path in the bundle.

    Reading raises BadInput when a file is missing or no JSON.
    """

    root: Path
    archive: Path | None = None

    def json(self, path: str) -> dict[str, Any]:
        if not (self.root / path).is_file():
            raise BadInput(f"there is no {path}")
        return parse_json((self.root / path).read_bytes(), path)

    def text(self, path: str) -> str:
        if not (self.root / path).is_file():
            raise BadInput(f"there is no {path}")
        return (self.root / path).read_text(encoding="utf-8")

    @property
    def metadata(self) -> dict[str, Any]:
        return self.json(METADATA)

    @property
    def takes_films(self) -> bool:
        """Whether its images have two axes."""
        return len(self.metadata["network_data_format"]["inputs"]["image"]["spatial_shape"]) == 2

    @property
    def labels(self) -> int:
        """How many labels its label map has, background not counted."""
        return len(self.metadata["network_data_format"]["outputs"]["pred"]["channel_def"]) - 1

    @property
    def configs(self) -> dict[str, dict[str, Any]]:
        """Every config that MONAI would execute, overlays and variants too, by path."""
        paths = sorted(path.relative_to(self.root).as_posix() for path in self.root.glob("configs/**/*.json"))
        return {path: self.json(path) for path in paths if path != METADATA}
