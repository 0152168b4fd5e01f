import json
from pathlib import Path

import pytest

from pulmozoo.bundle.errors import BadInput
from pulmozoo.datasets.datalist import validation_entries


def write(folder: Path, **splits: list[dict[str, str]]) -> Path:
    (folder / "datalist.json").write_text(json.dumps(splits))
    return folder


def test_entries_have_absolute_paths(tmp_path):
    entry = {"image": "images/a.nii.gz", "label": "labels/a.nii.gz"}
    found = validation_entries(write(tmp_path, training=[], validation=[entry]))
    assert found == [{key: str(tmp_path / path) for key, path in entry.items()}]


def test_a_list_may_lack_the_split(tmp_path):
    assert validation_entries(write(tmp_path, training=[{"image": "a.nii.gz"}])) == []
    assert validation_entries(write(tmp_path, training=[], validation=[])) == []


def test_without_a_data_set_there_are_none():
    assert validation_entries("") == []


def test_a_folder_without_a_list_is_no_data_set(tmp_path):
    with pytest.raises(BadInput, match=r"datalist\.json does not exist: expected a MONAI datalist"):
        validation_entries(tmp_path)
