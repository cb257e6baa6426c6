import csv

import imagecodecs
import pydicom
import pytest

from edgecxr.errors import RefusalReason
from edgecxr.phantom import write_dataset, write_field_folder


def test_a_training_set_has_films_labels_and_folds_by_patient(tmp_path):
    folder = write_dataset(tmp_path / "set", 7, seed=1, size=64)
    with open(folder / "labels.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 21
    assert {row["label"] for row in rows} == {"normal", "covid", "pneumonia"}
    folds = {}
    for row in rows:
        folds.setdefault(row["patient"], set()).add(row["fold"])
        assert imagecodecs.png_decode((folder / row["file"]).read_bytes()).dtype == "uint16"
    assert len(folds) == 18
    assert all(len(values) == 1 for values in folds.values())
    assert set.union(*folds.values()) == {"0", "1", "2", "3", "4"}


def test_the_same_arguments_give_the_same_bytes(tmp_path):
    first, second = (write_dataset(tmp_path / name, 2, seed=3, size=48) for name in "ab")
    for path in sorted((first / "images").iterdir()):
        assert path.read_bytes() == (second / "images" / path.name).read_bytes()


def test_a_training_set_needs_films(tmp_path):
    with pytest.raises(ValueError, match="count_per_finding 0: write at least one"):
        write_dataset(tmp_path, 0)


def test_a_field_folder_has_good_and_bad_files(tmp_path):
    files = write_field_folder(tmp_path, seed=2, size=64)
    good = [file for file in files if file.refusal is None]
    assert len(good) == 16
    assert sum(file.finding != "normal" for file in good) == 8
    assert {pydicom.dcmread(file.path).PhotometricInterpretation for file in good} == {"MONOCHROME1", "MONOCHROME2"}
    assert len({pydicom.dcmread(file.path).file_meta.TransferSyntaxUID for file in good}) == 8
    assert {file.refusal for file in files if file.refusal} >= {
        RefusalReason.TRUNCATED,
        RefusalReason.NOT_A_CHEST,
        RefusalReason.NOT_FRONTAL_CHEST,
        RefusalReason.NOT_GRAYSCALE,
        RefusalReason.NOT_A_RADIOGRAPH,
        RefusalReason.UNREADABLE,
    }
    assert all(file.path.is_file() and file.finding is None for file in files if file.refusal)
