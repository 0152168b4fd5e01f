"""A stand-in for the published lobe checkpoint: its names and shapes, seeded values, and what such files also hold."""

import json
import sys
from argparse import Namespace
from collections import defaultdict
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pulmozoo.weights.published import PUBLISHED, Published
from pulmozoo.weights.published_file import git_blob_id
from seeded import seeded_state_dict

BUNDLE = "lung_lobe_ct_segmentation"
SHAPES = json.loads((Path(__file__).parents[1] / "golden" / "ctsunet_cascade.json").read_text())["checkpoint"]


class AttributeDict(dict):
    """A dictionary of settings as many training programs have their own."""


@cache
def published_state() -> dict[str, Tensor]:
    return seeded_state_dict(SHAPES, seed=7, gains={})


def write_checkpoint(path: Path, state: dict[str, Any], *, legacy: bool) -> Path:
    """Save as the authors' program does, in PyTorch's format of today or in that before 1.6."""
    settings = AttributeDict(loss="dice")
    settings.origin = np.float32(0.5)
    content = {
        "epoch": 12,
        "iteration": np.int64(2000),
        "metrics": {np.int64(1): np.float64(0.9), "all": np.arange(3.0)},
        "arguments": Namespace(lr=1e-4, widths=(16, 24), path=Path("a")),
        "history": defaultdict(list, loss=[1.0, 0.5]),
        "optimizer": torch.optim.Adam([torch.nn.Parameter(torch.ones(2))]),
        "optimizer_dict": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-4}]},
        "settings": settings,
        "model_dict": state,
    }
    module = sys.modules["program_that_is_gone"] = ModuleType("program_that_is_gone")
    module.AttributeDict = AttributeDict
    before, AttributeDict.__module__ = AttributeDict.__module__, module.__name__
    try:
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    finally:
        AttributeDict.__module__ = before
        del sys.modules[module.__name__]
    return path


def row_for(path: Path) -> Published:
    """The table's row for the lobes, as if the file were the published one."""
    return PUBLISHED[BUNDLE]._replace(identity=("git blob id", git_blob_id(path)))
