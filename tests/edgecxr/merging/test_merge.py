import csv
import json

import pytest

from edgecxr.dataset import HeadColumns, load_dataset
from edgecxr.errors import DatasetError
from edgecxr.merging import merge, read_sources
from edgecxr.spec import Head

HEADS = (
    HeadColumns(head=Head(name="finding", kind="softmax", classes=("covid", "normal", "pneumonia"))),
    HeadColumns(head=Head(name="signs", kind="sigmoid", classes=("Effusion", "Edema"))),
)


def altered(sets, *changes):
    text = (sets / "map.yaml").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (sets / "map.yaml").write_text(text)
    return sets / "map.yaml"


def rows_of(folder):
    with open(folder / "labels.csv", newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def test_a_merged_folder_is_a_data_folder_with_each_film_once(sets):
    report = merge(read_sources(sets / "map.yaml"), sets / "out")
    data = load_dataset(sets / "out", heads=HEADS)
    assert len(data) == report.films == 13
    rows = rows_of(sets / "out")
    assert rows["films/hospital/films/2.png"] | {"fold": ""} == {
        "file": "films/hospital/films/2.png",
        "patient": "hospital-p1",
        "fold": "",
        "label": "pneumonia",
        "Effusion": "1",
        "Edema": "",
        "source": "hospital",
    }
    assert rows["films/hospital/films/0.png"]["Effusion"] == "0"
    assert rows["films/web/Corona/new.jpg"]["Effusion"] == ""
    assert (sets / "out/films/web/Healthy/51.dcm").is_symlink()
    assert json.loads((sets / "out/merge.json").read_text()) == json.loads(json.dumps(report.to_json()))


def test_the_report_counts_every_film_of_every_source(sets):
    report = merge(read_sources(sets / "map.yaml"), sets / "out")
    hospital, web = report.sources
    assert (hospital.found, hospital.left_out) == (14, {"its label is one to leave out": 2})
    assert (hospital.duplicates, hospital.conflicts, hospital.kept) == (0, 1, 11)
    assert (web.found, web.refused, web.duplicates, web.conflicts, web.kept) == (5, 1, 1, 1, 2)
    assert hospital.labels == {"covid": 4, "normal": 3, "pneumonia": 4, "Effusion": 4}
    assert sum(report.folds["films"]) == 13
    assert sum(report.folds["covid"]) == 5
    assert [item.films for item in report.duplicates] == [
        ("hospital: films/0.png", "web: Corona/again.jpg"),
        ("hospital: films/1.png", "web: Corona/wrong.jpg"),
    ]
    (conflict,) = report.conflicts
    assert conflict.films == ("hospital: films/1.png", "web: Corona/wrong.jpg")
    assert conflict.labels == ("normal, Effusion 0", "covid")
    assert [(item.film, item.reason) for item in report.refused] == [("web: Healthy/broken.png", "truncated")]
    text = report.text()
    assert "hospital: 11 of 14 films (covid 4, normal 3, pneumonia 4, Effusion 4)" in text
    assert "hospital: films/1.png = web: Corona/wrong.jpg: normal, Effusion 0, covid; left out" in text
    assert "every film counts as a patient of its own" in text
    assert "some fold has no film with Edema" in text


def test_duplicates_that_are_kept_share_a_fold_with_their_person(sets):
    mapping = altered(sets, ("sources:", "duplicates: {keep: all, conflicts: first}\nsources:"))
    for seed in range(4):
        altered(
            sets,
            (f"seed: {seed - 1}\n" if seed else "folds: 2\n", f"seed: {seed}\n" if seed else "folds: 2\nseed: 0\n"),
        )
        report = merge(read_sources(mapping), sets / f"out{seed}")
        assert report.films == 16
        assert report.people == report.patients - 2  # p0 is also the one of again.jpg and of wrong.jpg
        assert f"16 films of {report.patients} patients, who are {report.people} people by" in report.text()
        rows = rows_of(sets / f"out{seed}")
        same = ("hospital/films/0.png", "hospital/films/1.png", "web/Corona/again.jpg", "web/Corona/wrong.jpg")
        assert len({rows[f"films/{name}"]["fold"] for name in same}) == 1
        assert rows["films/web/Corona/wrong.jpg"]["label"] == "normal"  # the first one's holds
        assert rows["films/web/Corona/again.jpg"]["Effusion"] == "0"  # what the hospital knows of the same film
        load_dataset(sets / f"out{seed}", heads=HEADS)


def test_the_same_mapping_gives_the_same_folder(sets):
    for name in ("one", "two"):
        merge(read_sources(sets / "map.yaml"), sets / name, workers=3, copy=True)
    assert (sets / "one/labels.csv").read_bytes() == (sets / "two/labels.csv").read_bytes()
    film = sets / "one/films/hospital/films/2.png"
    assert not film.is_symlink()
    assert film.read_bytes() == (sets / "hospital/films/2.png").read_bytes()


def test_folds_of_a_source_are_kept_where_the_mapping_says_so(sets):
    mapping = altered(sets, ("separator:", "keep_folds: true\n    separator:"))
    merge(read_sources(mapping), sets / "out")
    rows = rows_of(sets / "out")
    for number in (0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11):
        assert rows[f"films/hospital/films/{number}.png"]["fold"] == str(number // 2 % 2)


def test_a_person_in_two_kept_folds_is_a_problem(sets):
    other = (
        "  - {name: other, folder: web, layout: table, table: t.csv, file: f, patient: p, label: l, keep_folds: true,"
        " labels: {x: covid}}\n"
    )
    (sets / "web" / "t.csv").write_text("f,p,l,fold\nCorona/again.jpg,7,x,1\nCorona/new.jpg,8,x,0\n")
    mapping = altered(sets, ("separator:", "keep_folds: true\n    separator:"))
    mapping.write_text(mapping.read_text() + other)
    wanted = r"'hospital-p0' in fold 0 \(.*row 2 \(0\)\) is 'other-7' in fold 1 .*let one of the sources not keep"
    with pytest.raises(DatasetError, match=wanted):
        merge(read_sources(mapping), sets / "out")
    assert not (sets / "out").exists()


def test_a_fold_without_a_label_is_a_problem_and_nothing_is_written(sets):
    mapping = altered(sets, ("folds: 2", "folds: 7"))
    with pytest.raises(DatasetError, match=r"fold \d would have no film of 'normal' \(4 in all.*choose fewer `folds`"):
        merge(read_sources(mapping), sets / "out")
    assert sorted(path.name for path in sets.iterdir()) == ["hospital", "map.yaml", "web"]


def test_a_folder_that_holds_something_is_not_written_to(sets):
    with pytest.raises(DatasetError, match="is there already; name a new folder"):
        merge(read_sources(sets / "map.yaml"), sets / "web")


@pytest.mark.parametrize("who", ["p5", "P05"])
def test_sources_of_one_cohort_share_their_patients(sets, who):
    (sets / "hospital" / "more.csv").write_text(f"name,who,findings\n12,{who},Pneumonia\n")
    more = (
        "  - {name: more, cohort: hospital, folder: hospital, layout: table, table: more.csv, file: name, patient: who,"
        " label: findings, below: films, suffix: .png, labels: {Pneumonia: pneumonia}}\n"
    )
    mapping = sets / "map.yaml"
    mapping.write_text(mapping.read_text() + more)
    merge(read_sources(mapping), sets / "out")
    rows = rows_of(sets / "out")
    row = rows["films/more/films/12.png"]
    assert row["patient"] == f"hospital-{who}"
    assert row["fold"] == rows["films/hospital/films/10.png"]["fold"]


@pytest.mark.parametrize("label", ["Mass", "Scar", "Both"])
@pytest.mark.parametrize("seed", range(5))
def test_a_person_is_one_by_a_film_that_is_left_out(other, label, seed):
    table = other / "web" / "t.csv"
    table.write_text(table.read_text().replace("Mass", label))
    report = merge(read_sources(altered(other, ("folds: 2", f"folds: 2\nseed: {seed}"))), other / "out")
    rows = rows_of(other / "out")
    same = ("hospital/films/0.png", "hospital/films/1.png", "other/Corona/new.jpg")
    assert len({rows[f"films/{name}"]["fold"] for name in same}) == 1
    assert "films/other/Corona/again.jpg" not in rows
    assert report.people == report.patients - 1
    assert [item.patients for item in report.duplicates] == [("hospital-p0", "other-x")]


@pytest.mark.parametrize("rule", ["conflicts: leave out", "conflicts: first", "keep: all"])
@pytest.mark.parametrize("first", ["hospital", "other"])
def test_a_film_that_one_source_leaves_out_and_another_labels_is_kept_and_told(other, rule, first):
    mapping = altered(other, ("sources:", f"duplicates: {{{rule}}}\nsources:"))
    if first == "other":
        head, hospital, table = mapping.read_text().replace("  - name", "\0  - name").split("\0")
        mapping.write_text(head + table + hospital)
    report = merge(read_sources(mapping), other / "out")
    assert rows_of(other / "out")["films/hospital/films/0.png"]["label"] == "covid"
    (conflict,) = report.conflicts
    assert conflict.labels == ("covid, Effusion 0", "leave out")
    assert "hospital: films/0.png = other: Corona/again.jpg: covid, Effusion 0, leave out; the first holds" in (
        report.text()
    )
    by_name = {source.name: source for source in report.sources}
    assert (by_name["other"].found, by_name["other"].kept, by_name["other"].left_out.popitem()[1]) == (2, 1, 1)
    assert {source.conflicts + source.duplicates for source in report.sources} == {0}


def test_a_film_that_says_nothing_contradicts_nobody(other):
    table = other / "web" / "t.csv"
    table.write_text(table.read_text().replace("Mass", "Scar"))
    assert not merge(read_sources(other / "map.yaml"), other / "out").conflicts


def test_labels_in_conflict_stay_so_beside_a_film_that_is_left_out(sets, other):
    (sets / "web" / "t.csv").write_text("f,p,l\nCorona/new.jpg,x,COVID-19\nCorona/wrong.jpg,x,Mass\n")
    web = (
        "  - {name: web, folder: web, layout: folders, patient: each film, labels: {Corona: covid, Healthy: normal}}\n"
    )
    mapping = sets / "map.yaml"
    mapping.write_text(mapping.read_text() + web)
    report = merge(read_sources(mapping), sets / "out")
    (conflict,) = report.conflicts
    assert conflict.films == ("hospital: films/1.png", "web: Corona/wrong.jpg", "other: Corona/wrong.jpg")
    assert not conflict.kept
    assert [source.conflicts for source in report.sources] == [1, 0, 1]
    assert not {"films/hospital/films/1.png", "films/web/Corona/wrong.jpg"} & set(rows_of(sets / "out"))


@pytest.mark.parametrize("volume", [None, b"\x5c\x01\0\0" + bytes(348)], ids=["absent", "unreadable"])
def test_a_film_to_leave_out_need_not_be_there_nor_be_a_film(other, volume):
    if volume is not None:
        (other / "web" / "ct.nii").write_bytes(volume)
    table = other / "web" / "t.csv"
    table.write_text(table.read_text() + "ct.nii,4,Mass\n")
    report = merge(read_sources(other / "map.yaml"), other / "out")
    (_, source) = report.sources
    assert (source.found, source.kept, source.left_out) == (3, 1, {"its label is one to leave out": 2})
    assert not report.refused
    assert not source.refused
