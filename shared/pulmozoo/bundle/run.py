"""The ``run`` entries of an inference config: check what was asked, then go through the scans one by one."""

import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator

from ..files import write_rows
from ..handlers.results_writer import ResultsWriter
from .errors import BadInput, innermost_reason
from .weights_file import check_preset, read_weights

logger = logging.getLogger(__name__)

NONE_DONE, SOME_FAILED = 1, 3


def check_run(
    dataset_dir: str,
    output_dir: str,
    device: str,
    preset: str,
    presets: Mapping[str, Any],
    bundle_root: str,
    weights_path: str,
    scans: Callable[[str], object],
) -> None:
    """Stop with one sentence on standard error and exit code 1 before anything is built or written.

    MONAI would wrap the same errors in three of its own. ``scans`` lists the scans at a path, as the dataset does.
    """
    try:
        if preset not in presets:
            raise BadInput(f"there is no preset {preset!r}: choose one of {', '.join(presets)}")
        check_device(device)
        if not dataset_dir:
            raise BadInput("no scan was given: expected --dataset_dir with a scan or a folder of scans")
        scans(dataset_dir)
        check_preset(Path(bundle_root), preset)
        read_weights(Path(weights_path))
        check_writable(Path(output_dir))
    except Exception as error:
        raise SystemExit(f"pulmozoo: {innermost_reason(error)}") from error


def check_device(device: str) -> None:
    """Raise BadInput unless PyTorch can use the device."""
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise BadInput(f"there is no device {device!r}: expected cpu, cuda or cuda:N") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise BadInput(f"--device {device} was asked for, but PyTorch sees no GPU here: use --device cpu")


def check_writable(folder: Path) -> None:
    """Raise BadInput unless files can be made in the folder or in the first parent that exists."""
    place = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise BadInput(f"the output folder {folder} is not writable: choose another --output_dir")


def run_scans(evaluator: SupervisedEvaluator, dataset: Dataset, writer: ResultsWriter, overwrite: bool = False) -> None:
    """Run every scan of the dataset by itself, so that one that fails does not stop the others.

    Keeps ``results.csv`` in the output folder: a row a scan with its numbers, ``status`` (done, skipped, failed) and
    ``reason``. A scan with results of the same weights, preset and version is skipped unless ``overwrite``. Leaves by
    SystemExit 1 when no scan could be done and 3 when some failed.
    """
    rows: list[dict[str, Any]] = []
    scans: Sequence[Mapping[str, str]] = dataset.data
    for index, scan in enumerate(scans, start=1):
        name = scan["scan"]
        earlier = None if overwrite else writer.finished(name)
        logger.info("scan %d of %d: %s%s", index, len(scans), name, ", already done" if earlier else "")
        if earlier:
            rows.append({"scan": name, **earlier["numbers"], "status": "skipped", "reason": "already done"})
        else:
            rows.append({"scan": name, **run_one(evaluator, dataset, scan)})
        try:
            write_csv(rows, writer.output_dir / "results.csv")
        except OSError as error:
            raise SystemExit(f"pulmozoo: {innermost_reason(error)}") from error
    failed = [row for row in rows if row["status"] == "failed"]
    for row in failed:
        sys.stderr.write(f"pulmozoo: {row['scan']}: {row['reason']}\n")
    if failed:
        raise SystemExit(NONE_DONE if len(failed) == len(rows) else SOME_FAILED)


def run_one(evaluator: SupervisedEvaluator, dataset: Dataset, scan: Mapping[str, str]) -> dict[str, Any]:
    """Numbers, status and reason of one scan."""
    started = time.monotonic()
    try:
        evaluator.data_loader = DataLoader(Dataset([scan], dataset.transform), batch_size=1)
        evaluator.state.epoch_length = 1
        evaluator.interrupt_resume_enabled = False  # else ignite takes a run that failed for an interrupted one
        evaluator.run()
    except Exception as error:
        logger.debug("%s failed", scan["scan"], exc_info=True)
        return {"status": "failed", "reason": innermost_reason(error)}
    logger.info("%s: done in %.1f s", scan["scan"], time.monotonic() - started)
    return {**evaluator.state.output[0]["result"], "status": "done", "reason": ""}


def write_csv(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """All rows under the union of their columns; status and reason come last. Replaces the file as a whole.

    Lists stay in results.json.
    """
    last = ("status", "reason")
    plain = [{key: value for key, value in row.items() if not isinstance(value, list)} for row in rows]
    columns = [*dict.fromkeys(key for row in plain for key in row if key not in last), *last]
    write_rows(path, plain, columns)
