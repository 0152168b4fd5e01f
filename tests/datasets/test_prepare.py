"""From data sets as they are downloaded, made up and tiny, to datalists."""

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from monai.data import load_decathlon_datalist
from PIL import Image

from film_writer import chest_film, write_dicom_film, write_picture
from pulmozoo import cli
from pulmozoo.bundle.errors import BadInput
from pulmozoo.datasets.film_list import FilmCase, balanced, halves
from pulmozoo.datasets.prepare import prepare_data
from pulmozoo.datasets.run_length import write_runs
from pulmozoo.transforms.film_reading import read_film

SHELF = Path("/work/shared/data/nih-cxr14-subset")
FILM = chest_film()
SHAPE = FILM.shape


def mask_at(*, row: int) -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[row : row + 5, 20:30] = True
    return mask


def write_table(path: Path, header: list[str], rows: list[tuple[str, ...]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def lists_in(folder: Path) -> tuple[dict[str, list[dict[str, object]]], dict[str, str]]:
    """The datalist, and why each image was left out, by the name of its file."""
    with (folder / "left_out.csv").open(newline="") as file:
        left_out = {Path(row["image"]).name: row["reason"] for row in csv.DictReader(file)}
    return json.loads((folder / "datalist.json").read_text()), left_out


@pytest.fixture
def siim(tmp_path: Path) -> Path:
    """Three films with and five without, one unreadable, one unlisted, one listed twice, one listed but missing."""
    data = tmp_path / "siim"
    rows = []
    for number in range(8):
        uid = f"1.2.{number}"
        path = data / "dicom-images-train" / f"2.{number}" / f"3.{number}" / f"{uid}.dcm"
        write_dicom_film(path, FILM, SOPInstanceUID=uid, PatientID=f"p{number}")
        rows.append((uid, f" {write_runs(mask_at(row=40 + number))}" if number < 3 else " -1"))
    rows.append(("1.2.0", write_runs(mask_at(row=10))))
    over = write_dicom_film(data / "dicom-images-train" / "over.dcm", FILM, SOPInstanceUID="1.2.90")
    write_dicom_film(over.with_name("unlisted.dcm"), FILM, SOPInstanceUID="1.2.91")
    write_dicom_film(over.with_name("twice.dcm"), FILM, SOPInstanceUID="1.2.7")
    over.with_name("broken.dcm").write_text("no film")
    rows += [("1.2.90", "0 99999"), ("1.2.92", "-1")]
    write_table(data / "train-rle.csv", ["ImageId", " EncodedPixels"], rows)
    return data


def test_siim_balanced_halves_with_joined_masks(siim, tmp_path):
    written = prepare_data("pneumothorax", siim, tmp_path / "out", "siim", seed=3)
    datalist, left_out = lists_in(tmp_path / "out")
    assert written == tmp_path / "out" / "datalist.json"
    films = [film for half in datalist.values() for film in half]
    assert sorted(datalist) == ["training", "validation"]
    assert sorted(len(half) for half in datalist.values()) == [3, 3]
    assert Counter(film["has_pneumothorax"] for film in films) == {0: 3, 1: 3}
    assert len({film["image"] for film in films}) == 6
    for film in films:
        mask = np.asarray(Image.open(tmp_path / "out" / str(film["label"])))
        assert mask.shape == SHAPE
        assert mask.max() == 255 * int(str(film["has_pneumothorax"]))
    joined = np.asarray(Image.open(tmp_path / "out" / "masks" / "1.2.0.png")) > 0
    assert np.array_equal(joined, mask_at(row=40) | mask_at(row=10))
    assert len([reason for reason in left_out.values() if reason == "not drawn for the balanced set"]) == 2
    assert "image 1.2.90 has runs up to pixel 99999" in left_out["over.dcm"]
    assert left_out["unlisted.dcm"] == "it has no row in the table"
    assert "another file holds the same film" in (left_out.get("twice.dcm"), left_out.get("1.2.7.dcm"))
    assert "cannot be read as DICOM" in left_out["broken.dcm"]
    assert left_out["1.2.92"] == "there is no film for this row of the table"
    assert not list((tmp_path / "out").rglob("unfinished*"))


def test_siim_datalist_loads_in_monai_and_film_and_mask_are_of_one_grid(siim, tmp_path):
    written = prepare_data("pneumothorax", siim, tmp_path / "out", "siim")
    (film, *_) = load_decathlon_datalist(str(written), data_list_key="training")
    assert read_film(film["image"]).shape[1:] == Image.open(film["label"]).size


def test_the_seed_decides_and_all_films_can_be_kept(siim, tmp_path):
    def chosen(name: str, **options: object) -> list[list[object]]:
        prepare_data("pneumothorax", siim, tmp_path / name, "siim", **options)
        return [[film["image"] for film in half] for half in lists_in(tmp_path / name)[0].values()]

    assert chosen("a", seed=1) == chosen("b", seed=1)
    assert any(chosen("a", seed=1) != chosen(f"c{seed}", seed=seed) for seed in range(2, 6))
    assert sum(map(len, chosen("d", keep_all=True))) == 8


def test_a_patient_is_in_one_half_and_kinds_are_dealt_evenly():
    cases = [FilmCase(f"{n}.png", "", int(n % 9 == 0), f"p{n // 3}") for n in range(240)]
    split = halves(cases, seed=0)
    patients = [{case.patient for case in half} for half in split.values()]
    assert not patients[0] & patients[1]
    assert sorted(case for half in split.values() for case in half) == sorted(cases)
    positives = [sum(case.pneumothorax for case in half) for half in split.values()]
    assert abs(positives[0] - positives[1]) <= 2
    assert abs(len(split["training"]) - len(split["validation"])) <= 4


def test_the_balanced_set_has_all_of_the_rarer_kind():
    cases = [FilmCase(f"{n}.png", "", int(n < 30), str(n)) for n in range(100)]
    kept, others = balanced(cases, seed=0)
    assert Counter(case.pneumothorax for case in kept) == {0: 30, 1: 30}
    assert set(cases[:30]) < set(kept)
    assert len(others) == 40
    assert balanced(cases, seed=1)[0] != kept


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Two patients with two films each, and films without a mask, with one of another size and with no mask file."""
    data = tmp_path / "folders"
    for patient, row in (("a", 20), ("b", None)):
        for film in (1, 2):
            write_picture(data / "images" / patient / f"{film}.png", FILM, "RGB" if film == 1 else "L")
            mask = np.zeros(SHAPE, dtype=bool) if row is None else mask_at(row=row)
            write_picture(data / "masks" / patient / f"{film}.png", mask.astype(np.uint8) * (1 if film == 1 else 255))
    write_picture(data / "images" / "bare.png", FILM)
    write_picture(data / "images" / "small.png", FILM)
    write_picture(data / "masks" / "small.png", FILM[:70])
    write_picture(data / "images" / "broken.png", FILM)
    (data / "masks" / "broken.png").write_text("no mask")
    return data


def test_folders_of_films_and_masks(folders, tmp_path):
    prepare_data("pneumothorax", folders, tmp_path / "out", "folders")
    datalist, left_out = lists_in(tmp_path / "out")
    found = {Path(str(film["image"])).parent.name: half for half, films in datalist.items() for film in films}
    assert sorted(found) == ["a", "b"]
    masks = {film["label"]: film["has_pneumothorax"] for films in datalist.values() for film in films}
    assert masks == {"masks/a__1.png": 1, "masks/a__2.png": 1, "masks/b__1.png": 0, "masks/b__2.png": 0}
    made = np.asarray(Image.open(tmp_path / "out" / "masks" / "a__1.png"))
    assert np.array_equal(made, mask_at(row=20) * 255)
    assert "it has no mask" in left_out["bare.png"]
    assert "80 x 70" in left_out["small.png"]
    assert "cannot be read" in left_out["broken.png"]


def test_nih_films_are_a_list_of_image_level_labels(tmp_path):
    data = tmp_path / "nih"
    for name in (
        "images_001/images/1_000.png",
        "images_002/images/2_000.png",
        "images_002/images/3_000.png",
        "4_000.png",
    ):
        write_picture(data / name, FILM)
    rows = [
        ("1_000.png", "Effusion|Pneumothorax"),
        ("2_000.png", "No Finding"),
        ("3_000.png", "Mass"),
        ("5_000.png", ""),
    ]
    write_table(data / "Data_Entry_2017_v2020.csv", ["Image Index", "Finding Labels"], rows)
    prepare_data("pneumothorax", data, tmp_path / "out", "nih")
    datalist, left_out = lists_in(tmp_path / "out")
    assert {Path(str(film["image"])).name: film["label"] for film in datalist["test"]} == {
        "1_000.png": 1,
        "2_000.png": 0,
        "3_000.png": 0,
    }
    assert sorted(left_out) == ["4_000.png", "5_000.png"]
    assert len(load_decathlon_datalist(str(tmp_path / "out" / "datalist.json"), False, "test")) == 3


@pytest.mark.skipif(not SHELF.is_dir(), reason=f"the real films lie in {SHELF}")
def test_the_shelf_has_thirty_films_with_and_twelve_without(tmp_path):
    prepare_data("pneumothorax", SHELF, tmp_path / "out", "nih")
    datalist, left_out = lists_in(tmp_path / "out")
    assert Counter(film["label"] for film in datalist["test"]) == {1: 30, 0: 12}
    assert not left_out


@pytest.mark.parametrize(
    ("bundle", "layout", "sentence"),
    [
        (
            "lobe",
            "siim",
            "nothing to prepare for 'lobe': choose one of lobes, pneumothorax, emphysema",
        ),
        ("pneumothorax", "kaggle", "no layout 'kaggle': choose one of siim, folders, nih"),
        ("pneumothorax", "siim", "holds 0 files train-rle.csv: expected one"),
        ("pneumothorax", "folders", "lacks a folder images or masks"),
        ("pneumothorax", "nih", "holds 0 tables: expected one, labels.csv or Data_Entry_2017"),
    ],
)
def test_what_cannot_be_prepared_is_named_and_nothing_written(tmp_path, bundle, layout, sentence):
    (tmp_path / "data").mkdir()
    with pytest.raises(BadInput, match=sentence):
        prepare_data(bundle, tmp_path / "data", tmp_path / "out", layout)
    assert not (tmp_path / "out").exists()
    with pytest.raises(BadInput, match="is no folder: expected the data set"):
        prepare_data("pneumothorax", tmp_path / "nowhere", tmp_path / "out", "nih")


def test_keep_all_is_for_films(tmp_path):
    with pytest.raises(BadInput, match="keep_all is for films, and ild has none: leave it out"):
        prepare_data("ild", tmp_path, tmp_path / "out", "folders", keep_all=True)


def test_a_table_without_its_columns_is_named(siim, tmp_path):
    write_table(siim / "train-rle.csv", ["ImageId", "Mask"], [("1.2.0", "-1")])
    with pytest.raises(BadInput, match=r"has no rows with EncodedPixels: expected a csv with ImageId, EncodedPixels"):
        prepare_data("pneumothorax", siim, tmp_path / "out", "siim")


def test_a_data_set_of_one_kind_cannot_be_balanced(folders, tmp_path):
    for mask in (folders / "masks" / "a").iterdir():
        write_picture(mask, np.zeros(SHAPE, dtype=np.uint8))
    with pytest.raises(BadInput, match=r"some with and some without a pneumothorax, or --keep_all; left out: 4"):
        prepare_data("pneumothorax", folders, tmp_path / "out", "folders")


def test_the_command_prints_where_the_datalist_is(folders, tmp_path, capsys):
    cli.prepare("pneumothorax", str(folders), str(tmp_path / "out"), "folders", keep_all=True)
    assert capsys.readouterr().out == f"{tmp_path / 'out' / 'datalist.json'}\n"
    assert cli.COMMANDS["prepare"] is cli.prepare
