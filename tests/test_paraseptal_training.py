"""How the learning rate of the paraseptal bundle falls: as the paper's in its preset, as a cosine in the other."""

import pytest
import torch
from monai.bundle import ConfigParser
from monai.handlers import LrScheduleHandler

from pulmozoo.cli import bundle_folder
from pulmozoo.handlers.plateau import PlateauDecay

PRESETS = {"phantom": (LrScheduleHandler, PlateauDecay), "paper": (PlateauDecay, LrScheduleHandler)}


def parsed(preset: str) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(str(bundle_folder("paraseptal") / "configs" / "train.json"))
    parser.update({"preset": preset, "max_epochs": 4, "learning_rate": 0.1, "cache_rate": 0.0, "dataset_dir": "IN"})
    parser.update({"train#dataset#data": [{}], "validate#dataset#data": [{}]})
    return parser


@pytest.mark.parametrize("preset", PRESETS)
def test_one_handler_steps_the_schedule_that_is_saved(preset):
    parser = parsed(preset)
    used, unused = PRESETS[preset]
    handlers = [each for each in parser.get_parsed_content("train#handlers") if each is not None]
    (handler,) = [each for each in handlers if isinstance(each, used)]
    assert not any(isinstance(each, unused) for each in handlers)
    (resume,) = [each for each in handlers if hasattr(each, "parts")]
    saved = resume.parts["scheduler"]
    assert saved is (handler.scheduler if preset == "paper" else handler.lr_scheduler)


def test_the_rate_falls_as_a_cosine():
    parser = parsed("phantom")
    optimizer, scheduler = parser.get_parsed_content("train#optimizer"), parser.get_parsed_content("train#cosine")
    found = []
    for _ in range(5):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    # half a cosine from 0.1 to a hundredth of it: half way at the second of four epochs
    assert found == pytest.approx([0.1, 0.085502, 0.0505, 0.015498, 0.001], abs=1e-6)


def test_the_papers_rate_is_a_fifth_after_five_validations_without_gain():
    """The paper: Adam at 0.0001, times 0.2 where the validation loss has not fallen for five epochs."""
    parser = parsed("paper")
    parser["learning_rate"] = 0.0001
    optimizer, scheduler = parser.get_parsed_content("train#optimizer"), parser.get_parsed_content("train#plateau")
    assert isinstance(optimizer, torch.optim.Adam)
    for _ in range(7):
        scheduler.step(0.5)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.00002)
