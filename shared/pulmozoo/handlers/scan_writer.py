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
from .dicom_seg import (
    came_as_dicom,
    check_highdicom,
    read_source,
    segment_names,
    write_label_seg,
    write_probability_segs,
)
from .overlay import overlay_png
from .stopwatch import Stopwatch

logger = logging.getLogger(__name__)

NIFTI, ITK = (".nii.gz", ".nii"), (".mha", ".nrrd")


class ScanWriter:
    """Write ``<scan>/<scan>_seg.nii.gz``, ``<scan>/results.json`` and ``<scan>/overlay.png`` for each scan.

    A scan that came as DICOM gets ``<scan>/<scan>_seg.dcm`` too. All is written beside its place first and moved
    there when complete, results.json last.

    Args:
        output_dir: made if missing.
        bundle_root, weights_path, preset, fast: what the results were made with.
        label_names: ``{"1": "left upper lobe", ...}``.
        stopwatch: the handler that times this engine.
        output_postfix, output_ext, output_dtype: of the label map.
        separate_folder: False puts all files into ``output_dir`` itself, ``<scan>_`` in front.
        dicom_seg: write a DICOM SEG of the label map where the scan came as DICOM.
        probability_maps: write a fractional DICOM SEG of each label, ``<scan>_<label>_probability.dcm``; only for
            scans that came as DICOM.
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
        fast: bool = False,
        output_postfix: str = "seg",
        output_ext: str = ".nii.gz",
        output_dtype: str = "uint8",
        separate_folder: bool = True,
        dicom_seg: bool = True,
        probability_maps: bool = False,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.bundle_root = Path(bundle_root)
        self.weights_path = Path(weights_path)
        self.preset = preset
        self.fast = fast
        self.label_names = label_names
        self.stopwatch = stopwatch
        self.output_postfix = output_postfix
        self.output_ext = output_ext
        self.separate_folder = separate_folder
        self.output_dtype = output_dtype
        self.dicom_seg = dicom_seg
        self.probability_maps = probability_maps

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_STARTED, self.check)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def check(self, engine: Engine) -> None:
        """Raise BadInput, before the network runs, for a scan whose DICOM output could not be written."""
        state: Any = engine.state
        for image in state.batch["ct_hu"].meta["filename_or_obj"]:
            dicom = came_as_dicom(Path(image))
            if self.probability_maps and not dicom:
                raise BadInput(f"{image} is no DICOM: probability maps need DICOM, leave out --probability_maps")
            if dicom and (self.dicom_seg or self.probability_maps):
                check_highdicom()

    def __call__(self, engine: Engine) -> None:
        state: Any = engine.state
        for batch, output in zip(state.batch, state.output, strict=True):
            self.write({**batch, **output}, dict(self.stopwatch.seconds), str(state.device))

    def places(self, scan: str, *, dicom: bool = False) -> dict[str, Path]:
        """Where the files of a scan end up: ``labels``, ``overlay``, ``results`` and, if it came as DICOM, more."""
        names = {"labels": f"{scan}_{self.output_postfix}{self.output_ext}"}
        if dicom and self.dicom_seg:
            names["dicom_seg"] = f"{scan}_{self.output_postfix}.dcm"
        if dicom and self.probability_maps:
            names |= {kind: f"{scan}_{kind}.dcm" for kind in self.probability_kinds()}
        prefix = "" if self.separate_folder else f"{scan}_"
        names |= {"overlay": f"{prefix}overlay.png", "results": f"{prefix}results.json"}
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
            "fast": self.fast,
            "weights": {**described, "sha256": digest},
        }

    def finished(self, scan: str) -> dict[str, Any] | None:
        """The results of an earlier run, if the same weights, preset and version made all that is wanted now."""
        try:
            results: dict[str, Any] = json.loads(self.places(scan)["results"].read_text(encoding="utf-8"))
            made_with = self.made_with()
            same = results["weights"]["sha256"] == made_with["weights"]["sha256"] and all(
                results[key] == made_with[key] for key in ("preset", "fast", "version")
            )
            places = self.places(scan, dicom=came_as_dicom(Path(results["image"])))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return results if same and all(place.exists() for place in places.values()) else None

    def write(self, data: Mapping[str, Any], seconds: dict[str, float], device: str) -> None:
        """Write one scan; ``data`` holds ``scan``, ``pred``, ``ct_hu``, ``result`` and maybe ``probabilities``."""
        scan, labels, ct_hu = data["scan"], data["pred"], data["ct_hu"]
        started = time.monotonic()
        dicom = came_as_dicom(Path(ct_hu.meta["filename_or_obj"]))
        places = self.places(scan, dicom=dicom)
        made_with = self.made_with()
        unfinished = self.output_dir / f".{scan}.unfinished"
        unfinished.mkdir(parents=True, exist_ok=True)
        try:
            drafts = {name: unfinished / place.name for name, place in places.items()}
            self.save_labels(labels, drafts["labels"])
            if dicom and (self.dicom_seg or self.probability_maps):
                self.save_dicom(data, drafts, made_with)
            overlay_png(ct_hu, labels, drafts["overlay"], {int(k): v for k, v in self.label_names.items() if int(k)})
            seconds["writing"] = round(time.monotonic() - started, 3)
            results = {
                "scan": scan,
                "image": str(ct_hu.meta["filename_or_obj"]),
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

    def save_dicom(self, data: Mapping[str, Any], drafts: Mapping[str, Path], made_with: Mapping[str, Any]) -> None:
        """Write the label map, the probabilities or both with the patient, study and grid of the scan's own series."""
        series = read_source(Path(data["ct_hu"].meta["filename_or_obj"]), data["pred"], data.get("series"))
        if self.dicom_seg:
            write_label_seg(data["pred"], series, drafts["dicom_seg"], self.label_names, made_with)
        if self.probability_maps:
            paths = [drafts[kind] for kind in self.probability_kinds()]
            write_probability_segs(data["probabilities"], series, paths, self.label_names, made_with)


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
