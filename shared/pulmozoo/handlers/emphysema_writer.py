"""What a run leaves of the emphysema in a CT: label map, DICOM SEG, density maps, numbers, picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .dicom_seg import check_highdicom
from .emphysema_overlay import emphysema_overlay_png
from .scan_writer import ScanWriter


class EmphysemaWriter(ScanWriter):
    """Write ``<scan>/<scan>_seg.nii.gz`` with its numbers and overlay; for a scan that came as DICOM a SEG too.

    Probability maps are volumes as the label map is, ``<scan>_<label>_probability.nii.gz``, 255 stands for 1; they
    need no DICOM. Arguments are those of :class:`.scan_writer.ScanWriter`.
    """

    def maps(self, scan: str, *, dicom: bool) -> dict[str, str]:
        names = {"labels": f"{scan}_{self.output_postfix}{self.output_ext}"}
        if dicom and self.dicom_seg:
            names["dicom_seg"] = f"{scan}_{self.output_postfix}.dcm"
        if self.probability_maps:
            names |= {kind: f"{scan}_{kind}{self.output_ext}" for kind in self.probability_kinds()}
        return names

    def check_source(self, image: Path, *, dicom: bool) -> None:
        if dicom and self.dicom_seg:
            check_highdicom()

    def draw(self, data: Mapping[str, Any], drafts: Mapping[str, Path], made_with: Mapping[str, Any]) -> None:
        kinds = self.probability_kinds()
        super().draw(data, {kind: path for kind, path in drafts.items() if kind not in kinds}, made_with)
        for index, kind in enumerate(kinds):
            if kind in drafts:
                self.save_labels(data["probabilities"][index : index + 1], drafts[kind])

    def picture(self, data: Mapping[str, Any], path: Path) -> None:
        emphysema_overlay_png(data["ct_hu"], data["pred"], data["probabilities"], path, self.named_labels())
