"""What a run leaves of a CT: label map, DICOM SEG, numbers, picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.data import ITKWriter, MetaTensor

from ..bundle.errors import BadInput
from .dicom_seg import read_source, write_label_seg, write_probability_segs
from .overlay import overlay_png
from .results_writer import ResultsWriter

NIFTI, ITK = (".nii.gz", ".nii"), (".mha", ".nrrd")


class ScanWriter(ResultsWriter):
    """Write ``<scan>/<scan>_seg.nii.gz`` with its numbers and overlay; for a scan that came as DICOM a SEG too.

    Probability maps are fractional DICOM SEGs, ``<scan>_<label>_probability.dcm``, only for scans that came as DICOM.
    Other arguments are those of :class:`.results_writer.ResultsWriter`.
    """

    source_key = "ct_hu"

    def __init__(self, *args: Any, output_ext: str = ".nii.gz", **more: Any) -> None:
        super().__init__(*args, output_ext=output_ext, **more)

    def maps(self, scan: str, *, dicom: bool) -> dict[str, str]:
        names = {"labels": f"{scan}_{self.output_postfix}{self.output_ext}"}
        if dicom and self.dicom_seg:
            names["dicom_seg"] = f"{scan}_{self.output_postfix}.dcm"
        if dicom and self.probability_maps:
            names |= {kind: f"{scan}_{kind}.dcm" for kind in self.probability_kinds()}
        return names

    def check_source(self, image: Path, *, dicom: bool) -> None:
        if self.probability_maps and not dicom:
            raise BadInput(f"{image} is no DICOM: probability maps need DICOM, leave out --probability_maps")
        super().check_source(image, dicom=dicom)

    def draw(self, data: Mapping[str, Any], drafts: Mapping[str, Path], made_with: Mapping[str, Any]) -> None:
        self.save_labels(data["pred"], drafts["labels"])
        if any(path.suffix == ".dcm" for path in drafts.values()):
            self.save_dicom(data, drafts, made_with)
        self.picture(data, drafts["overlay"])

    def picture(self, data: Mapping[str, Any], path: Path) -> None:
        """Write the overlay."""
        overlay_png(data["ct_hu"], data["pred"], path, self.named_labels())

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
        if "dicom_seg" in drafts:
            write_label_seg(data["pred"], series, drafts["dicom_seg"], self.label_names, made_with)
        paths = [drafts[kind] for kind in self.probability_kinds() if kind in drafts]
        if paths:
            write_probability_segs(data["probabilities"], series, paths, self.label_names, made_with)
