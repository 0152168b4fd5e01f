"""The weights in each bundle still give what they gave when they were recorded (tests/record_golden.py)."""

import json

import pytest
import torch

from record_golden import GOLDEN, ROOT, network_output


@pytest.mark.parametrize("bundle", sorted((ROOT / "bundles").iterdir()), ids=lambda bundle: bundle.name)
def test_weights_give_the_recorded_output(bundle) -> None:
    golden = json.loads((GOLDEN / f"weights_{bundle.name}.json").read_text())
    output = network_output(bundle)
    assert list(output.shape) == golden["shape"]
    recorded = torch.tensor(golden["value"])
    assert torch.allclose(output.flatten()[golden["index"]], recorded, atol=1e-4 * max(1.0, golden["std"]))
