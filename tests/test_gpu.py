"""What only a GPU can show: the same labels as on the CPU, and a training step in mixed precision."""

import json
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow

from conftest import BRIGHT, DARK, dice, run_inference

needs_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA GPU here"),
]
CUDA = pytest.param("cuda", marks=needs_gpu)


def labels_on(device: str, bundle: Path, scan: Path, output_dir: Path, **overrides: object) -> np.ndarray:
    """Labels of one scan; says what they cost."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    started = time.monotonic()
    outcome = run_inference(bundle, scan, output_dir, device=device, **overrides)
    assert outcome.code == 0, outcome.said
    peak = f", peak {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB" if device == "cuda" else ""
    sys.stdout.write(f"{bundle.name} on {device}: {time.monotonic() - started:.1f} s{peak}\n")
    name = scan.name.removesuffix(".nii.gz")
    return np.asarray(nib.load(output_dir / name / f"{name}_seg.nii.gz").dataobj)


@pytest.mark.parametrize("device", [CUDA])
@pytest.mark.parametrize(("amp", "least"), [(True, 0.99), (False, 0.999)], ids=["bfloat16", "float32"])
def test_small_bundle_gives_the_labels_of_the_cpu(small_bundle, chest_ct, tmp_path, monkeypatch, device, amp, least):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    expected = labels_on("cpu", small_bundle, chest_ct, tmp_path / "cpu", amp=amp)
    labels = labels_on(device, small_bundle, chest_ct, tmp_path / device, amp=amp)
    assert dice(labels, expected, DARK) >= least
    assert dice(labels, expected, BRIGHT) >= least
    results = json.loads((tmp_path / device / "chest" / "results.json").read_text())
    assert results["device"].startswith(device)


@pytest.mark.parametrize("device", [CUDA])
def test_each_bundle_gives_the_labels_of_the_cpu(bundle, chest_ct, tmp_path, monkeypatch, device):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    expected = labels_on("cpu", bundle, chest_ct, tmp_path / "cpu", amp=False)
    labels = labels_on(device, bundle, chest_ct, tmp_path / device, amp=False)
    for label in np.unique(expected)[1:]:
        assert dice(labels, expected, int(label)) >= 0.999, label


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_a_step_in_mixed_precision_reaches_every_weight(small_bundle, cohort, tmp_path, monkeypatch, device):
    monkeypatch.setattr(sys, "path", [*sys.path])
    workflow = ConfigWorkflow(
        config_file=str(small_bundle / "configs" / "train.json"),
        workflow_type="train",
        logging_file=False,
        dataset_dir=str(cohort),
        output_dir=str(tmp_path),
        device=device,
        amp=True,
        **{"presets#phantom#grid#spacing_mm": 5.0},  # over two voxels deep at the bridge: see SMALL_TRAINING
    )
    workflow.initialize()
    trainer = workflow.trainer
    network = trainer.network.train()
    batch = next(iter(trainer.data_loader))
    image, label, arguments, _ = trainer.prepare_batch(batch, torch.device(device))
    assert image.shape[2] >= 48
    prediction = trainer.inferer(image, network, *arguments)
    loss = trainer.loss_function(prediction, label)
    loss.backward()
    assert prediction["patch_logits"].dtype == torch.bfloat16
    assert loss.isfinite()
    # The published checkpoint holds norms that its own program never calls.
    used = {name: weight.grad for name, weight in network.named_parameters() if "unused_norms" not in name}
    assert [name for name, gradient in used.items() if gradient is None] == []
    assert [name for name, gradient in used.items() if not gradient.isfinite().all()] == []
