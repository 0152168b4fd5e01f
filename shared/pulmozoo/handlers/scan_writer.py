"""What a scan leaves in the output folder: label map, numbers, picture. All of it, or nothing."""

import json
import logging
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from ignite.engine import Engine, Events
from monai.data import ITKWriter, MetaTensor

from ..bundle.errors import BadInput
from ..bundle.weights_file import read_metadata, sha256
from .overlay import overlay_png
from .stopwatch import Stopwatch

logger = logging.getLogger(__name__)

NIFTI, ITK = (".nii.gz", ".nii"), (".mha", ".nrrd")


class ScanWriter:
    """Write ``<scan>/<scan>_seg.nii.gz``, ``<scan>/results.json`` and ``<scan>/overlay.png`` for each scan.

    All is written beside its place first and moved there when complete, results.json last.

    Args:
        output_dir: made if missing.
        bundle_root, weights_path, preset: what the results were made with.
        label_names: ``{"1": "left upper lobe", ...}``.
        stopwatch: the handler that times this engine.
        output_postfix, output_ext, output_dtype: of the label map.
        separate_folder: False puts all files into ``output_dir`` itself, ``<scan>_`` in front.
    """

    def __init__(
        self,
        output_dir: str | Path,
        bundle_root: str | Path,
        weights_path: str | Path,
        preset: str,
        label_names: Mapping[str, str],
        stopwatch: Stopwatch,
        *,
        output_postfix: str = "seg",
        output_ext: str = ".nii.gz",
        output_dtype: str = "uint8",
        separate_folder: bool = True,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.bundle_root = Path(bundle_root)
        self.weights_path = Path(weights_path)
        self.preset = preset
        self.label_names = label_names
        self.stopwatch = stopwatch
        self.output_postfix = output_postfix
        self.output_ext = output_ext
        self.separate_folder = separate_folder
        self.output_dtype = output_dtype

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        state: Any = engine.state
        for batch, output in zip(state.batch, state.output, strict=True):
            self.write({**batch, **output}, dict(self.stopwatch.seconds), str(state.device))

    def places(self, scan: str) -> dict[str, Path]:
        """Where the files of a scan end up: ``labels``, ``overlay``, ``results``."""
        segmentation = f"{scan}_{self.output_postfix}{self.output_ext}"
        if self.separate_folder:
            folder = self.output_dir / scan
            return {
                "labels": folder / segmentation,
                "overlay": folder / "overlay.png",
                "results": folder / "results.json",
            }
        return {
            "labels": self.output_dir / segmentation,
            "overlay": self.output_dir / f"{scan}_overlay.png",
            "results": self.output_dir / f"{scan}_results.json",
        }

    def made_with(self) -> dict[str, Any]:
        """What decides whether a scan has to be done again."""
        metadata = read_metadata(self.bundle_root)
        return {
            "bundle": metadata["name"],
            "version": metadata["version"],
            "preset": self.preset,
            "weights": {**metadata.get("weights", {}), "sha256": sha256(self.weights_path)},
        }

    def finished(self, scan: str) -> dict[str, Any] | None:
        """The results of an earlier run, if the same weights, preset and version made them."""
        try:
            results: dict[str, Any] = json.loads(self.places(scan)["results"].read_text(encoding="utf-8"))
            made_with = self.made_with()
            same = results["weights"]["sha256"] == made_with["weights"]["sha256"] and all(
                results[key] == made_with[key] for key in ("preset", "version")
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return results if same and self.places(scan)["labels"].exists() else None

    def write(self, data: Mapping[str, Any], seconds: dict[str, float], device: str) -> None:
        """Write one scan; ``data`` holds ``scan``, ``pred``, ``ct_hu`` and ``result``."""
        scan, labels, ct_hu = data["scan"], data["pred"], data["ct_hu"]
        started = time.monotonic()
        places = self.places(scan)
        unfinished = self.output_dir / f".{scan}.unfinished"
        unfinished.mkdir(parents=True, exist_ok=True)
        try:
            drafts = {name: unfinished / place.name for name, place in places.items()}
            self.save_labels(labels, drafts["labels"])
            overlay_png(ct_hu, labels, drafts["overlay"], {int(k): v for k, v in self.label_names.items() if int(k)})
            seconds["writing"] = round(time.monotonic() - started, 3)
            results = {
                "scan": scan,
                "image": str(ct_hu.meta["filename_or_obj"]),
                **self.made_with(),
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

    def save_labels(self, labels: MetaTensor, path: Path) -> None:
        """Write the label map; MONAI's ``SaveImage`` would hide why that failed."""
        if self.output_ext in NIFTI:
            voxels = labels.as_tensor()[0].cpu().numpy().astype(self.output_dtype)
            image = nib.Nifti1Image(voxels, labels.affine.cpu().numpy())
            image.header.set_xyzt_units("mm")
            nib.save(image, str(path))
        elif self.output_ext in ITK:
            writer = ITKWriter(output_dtype=np.dtype(self.output_dtype))
            writer.set_data_array(labels.as_tensor().cpu(), channel_dim=0)
            writer.set_metadata({"affine": labels.affine}, resample=False)
            writer.write(str(path))
        else:
            known = ", ".join((*NIFTI, *ITK))
            raise BadInput(f"label maps cannot be written as {self.output_ext}: choose one of {known}")


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
