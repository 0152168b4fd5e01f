"""What a run leaves of each scan in the output folder. All of it, or nothing."""

import json
import logging
import os
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from ..bundle.weights_file import read_metadata, sha256
from .dicom_seg import came_as_dicom, check_highdicom, segment_names
from .stopwatch import Stopwatch

logger = logging.getLogger(__name__)


class ResultsWriter(ABC):
    """Write ``<scan>/results.json``, ``<scan>/overlay.png`` and what a subclass adds, for each scan.

    All is written beside its place first and moved there when complete, results.json last.

    Args:
        output_dir: made if missing.
        bundle_root, weights_path, preset: what the results were made with.
        label_names: ``{"1": "left upper lobe", ...}``.
        stopwatch: the handler that times this engine.
        options: further settings that change the numbers, such as ``{"fast": False}``; they go into results.json.
        output_postfix, output_ext, output_dtype: of the label map.
        separate_folder: False puts all files into ``output_dir`` itself, ``<scan>_`` in front.
        dicom_seg: write a DICOM SEG of the label map where the scan came as DICOM.
        probability_maps: write the probability of each label too.
    """

    source_key: str  # the scan as it was read, on its own grid

    def __init__(
        self,
        output_dir: str | Path,
        bundle_root: str | Path,
        weights_path: str | Path,
        preset: str,
        label_names: Mapping[str, str],
        stopwatch: Stopwatch,
        *,
        output_ext: str,
        options: Mapping[str, Any] | None = None,
        output_postfix: str = "seg",
        output_dtype: str = "uint8",
        separate_folder: bool = True,
        dicom_seg: bool = True,
        probability_maps: bool = False,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.bundle_root = Path(bundle_root)
        self.weights_path = Path(weights_path)
        self.preset = preset
        self.label_names = label_names
        self.stopwatch = stopwatch
        self.options = dict(options or {})
        self.output_postfix = output_postfix
        self.output_ext = output_ext
        self.separate_folder = separate_folder
        self.output_dtype = output_dtype
        self.dicom_seg = dicom_seg
        self.probability_maps = probability_maps

    @abstractmethod
    def maps(self, scan: str, *, dicom: bool) -> dict[str, str]:
        """Names of the files with voxels or pixels, by kind; ``labels`` is one of them."""

    @abstractmethod
    def draw(self, data: Mapping[str, Any], drafts: Mapping[str, Path], made_with: Mapping[str, Any]) -> None:
        """Write the maps and the overlay of a scan to the paths in ``drafts``."""

    def check_source(self, image: Path, *, dicom: bool) -> None:
        """Raise BadInput, before the network runs, for a scan whose output could not be written."""
        if dicom and self.dicom_seg:
            check_highdicom()

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_STARTED, self.check)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def check(self, engine: Engine) -> None:
        """As :meth:`check_source`, for the scans of this iteration."""
        state: Any = engine.state
        for image in map(Path, state.batch[self.source_key].meta["filename_or_obj"]):
            self.check_source(image, dicom=came_as_dicom(image))

    def __call__(self, engine: Engine) -> None:
        state: Any = engine.state
        for batch, output in zip(state.batch, state.output, strict=True):
            self.write({**batch, **output}, dict(self.stopwatch.seconds), str(state.device))

    def places(self, scan: str, *, dicom: bool = False) -> dict[str, Path]:
        """Where the files of a scan end up: ``labels``, ``overlay``, ``results`` and, if it came as DICOM, more."""
        prefix = "" if self.separate_folder else f"{scan}_"
        names = self.maps(scan, dicom=dicom) | {"overlay": f"{prefix}overlay.png", "results": f"{prefix}results.json"}
        folder = self.output_dir / scan if self.separate_folder else self.output_dir
        return {kind: folder / name for kind, name in names.items()}

    def probability_kinds(self) -> list[str]:
        """``left_upper_lobe_probability`` and so on, in the order of the labels."""
        return [f"{name.replace(' ', '_')}_probability" for name in segment_names(self.label_names).values()]

    def made_with(self) -> dict[str, Any]:
        """What decides whether a scan has to be done again."""
        metadata, digest = read_metadata(self.bundle_root), sha256(self.weights_path)
        described = metadata.get("weights", {})
        if described.get("sha256") != digest:  # the user's own, by --weights_path: what is described is another file
            described = {"tier": "not described", "preset": self.preset}
        return {
            "bundle": metadata["name"],
            "version": metadata["version"],
            "preset": self.preset,
            **self.options,
            "weights": {**described, "sha256": digest},
        }

    def finished(self, scan: str) -> dict[str, Any] | None:
        """The results of an earlier run, if the same weights, preset and version made all that is wanted now."""
        try:
            results: dict[str, Any] = json.loads(self.places(scan)["results"].read_text(encoding="utf-8"))
            made_with = self.made_with()
            same = results["weights"]["sha256"] == made_with["weights"]["sha256"] and all(
                results[key] == made_with[key] for key in ("preset", "version", *self.options)
            )
            places = self.places(scan, dicom=came_as_dicom(Path(results["image"])))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return results if same and all(place.exists() for place in places.values()) else None

    def write(self, data: Mapping[str, Any], seconds: dict[str, float], device: str) -> None:
        """Write one scan; ``data`` holds ``scan``, ``pred``, the scan itself, ``result``, maybe ``probabilities``."""
        scan, source = data["scan"], data[self.source_key]
        started = time.monotonic()
        image = Path(source.meta["filename_or_obj"])
        places = self.places(scan, dicom=came_as_dicom(image))
        made_with = self.made_with()
        unfinished = self.output_dir / f".{scan}.unfinished"
        unfinished.mkdir(parents=True, exist_ok=True)
        try:
            drafts = {name: unfinished / place.name for name, place in places.items()}
            self.draw(data, drafts, made_with)
            seconds["writing"] = round(time.monotonic() - started, 3)
            results = {
                "scan": scan,
                "image": str(image),
                **made_with,
                "labels": self.label_names,
                "numbers": data["result"],
                "seconds": {**seconds, "total": round(sum(seconds.values()), 3)},
                "device": device,
                "files": {name: place.name for name, place in places.items()},
            }
            drafts["results"].write_text(json.dumps(results, indent=4) + "\n", encoding="utf-8")
            move_all(drafts, places)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        logger.info("%s: %s", scan, places["labels"])

    def named_labels(self) -> dict[int, str]:
        """Names by label, without background."""
        return {int(label): name for label, name in self.label_names.items() if int(label)}


def move_all(drafts: Mapping[str, Path], places: Mapping[str, Path]) -> None:
    """Move all files to their places; when one cannot be moved, those before it are removed again."""
    moved: list[Path] = []
    try:
        for name, place in places.items():
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(drafts[name], place)
            moved.append(place)
    except BaseException:
        for place in moved:
            place.unlink(missing_ok=True)
        raise
