import json
from pathlib import Path
from typing import Any

from edgecxr.dataset import load_dataset
from edgecxr.phantom import write_dataset

MAPPING = """
labels: [covid, other]
folds: 2
sources:
  - {name: a, folder: a, layout: table, table: labels.csv, file: file, patient: patient, label: label,
     labels: {covid: covid, normal: other, pneumonia: other}}
  - {name: b, folder: b, layout: folders, patient: '_(.*)[.]', labels: {images: other}}
"""


def test_merge_writes_a_folder_and_says_what_it_did(run: Any, tmp_path: Path) -> None:
    write_dataset(tmp_path / "a", 2, size=96)
    write_dataset(tmp_path / "b", 1, seed=5, size=96)
    (tmp_path / "map.yaml").write_text(MAPPING)
    done = run("merge", "map.yaml", "--out", "films")
    assert done.returncode == 0
    assert "films: 9 films of 7 patients" in done.stdout
    assert len(load_dataset(tmp_path / "films")) == 9
    (tmp_path / "b" / "images" / "note_1.txt").write_text("no film")
    done = run("merge", "map.yaml", "--out", "more", "--json")
    assert done.returncode == 1
    assert [item["film"] for item in json.loads(done.stdout)["refused"]] == ["b: images/note_1.txt"]
    done = run("merge", "map.yaml", "--out", "films")
    assert done.returncode == 2
    assert "films is there already" in done.stderr
