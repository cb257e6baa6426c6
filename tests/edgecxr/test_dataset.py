import csv

import numpy as np
import pytest
from pydantic import ValidationError

from edgecxr.dataset import HeadColumns, load_dataset
from edgecxr.errors import DatasetError
from edgecxr.phantom import write_dataset
from edgecxr.spec import Head

THREE = HeadColumns(head=Head(name="finding", kind="softmax", classes=("normal", "covid", "pneumonia")))
SIGNS = HeadColumns(
    head=Head(name="signs", kind="sigmoid", classes=("Effusion", "Edema")), columns={"Effusion": "pleural effusion"}
)
GOOD = [
    {"file": "a.png", "patient": "p1", "label": "normal", "fold": "0", "pleural effusion": "0", "Edema": ""},
    {"file": "b.png", "patient": "p1", "label": "covid", "fold": "0", "pleural effusion": "1", "Edema": "0.0"},
    {"file": "sub/c.png", "patient": "p2", "label": "", "fold": "3", "pleural effusion": "", "Edema": "1"},
]


@pytest.fixture
def folder(tmp_path):
    """A data folder of three films; `write(rows)` puts another table in it."""
    (tmp_path / "sub").mkdir()
    for row in GOOD:
        (tmp_path / row["file"]).write_bytes(row["file"].encode())
    write(tmp_path, GOOD)
    return tmp_path


def write(folder, rows):
    with open(folder / "labels.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, rows[0].keys())
        table.writeheader()
        table.writerows(rows)


def changed(row, **cells):
    """The good rows with some cells of row 0, 1 or 2 replaced."""
    return [{**values, **cells} if number == row else values for number, values in enumerate(GOOD)]


def without(column):
    return [{name: cell for name, cell in row.items() if name != column} for row in GOOD]


def test_films_come_in_the_order_of_the_table(folder):
    data = load_dataset(folder, heads=[THREE, SIGNS])
    assert [film.path for film in data.films] == [folder / "a.png", folder / "b.png", folder / "sub/c.png"]
    assert [(film.patient, film.fold) for film in data.films] == [("p1", 0), ("p1", 0), ("p2", 3)]
    assert data.films[0].values == GOOD[0]
    assert data.notes == ()
    assert len(data) == 3


def test_targets_say_what_is_known(folder):
    data = load_dataset(folder, heads=[THREE, SIGNS])
    classes, signs = data.targets(THREE.head), data.targets(SIGNS.head)
    assert classes.dtype == np.int64
    assert classes.tolist() == [0, 1, -1]
    assert signs.dtype == np.float32
    np.testing.assert_array_equal(signs, [[0, np.nan], [1, 0], [np.nan, 1]])
    np.testing.assert_array_equal(data.targets(SIGNS), signs)


def test_a_head_may_be_asked_for_after_loading(folder):
    data = load_dataset(folder)
    head = Head(name="fold", kind="softmax", classes=("0", "3"))
    assert data.targets(head, "fold").tolist() == [0, 0, 1]
    with pytest.raises(DatasetError, match="column 'diagnosis' is missing"):
        data.targets(THREE.head, "diagnosis")
    with pytest.raises(DatasetError, match=r"b\.png: label 'covid' is not one of normal, flu"):
        data.targets(Head(name="x", kind="softmax", classes=("normal", "flu")))


def test_select_keeps_folds_apart(folder):
    data = load_dataset(folder, heads=[THREE])
    part = data.select([3])
    assert [film.patient for film in part.films] == ["p2"]
    assert part.targets(THREE.head).tolist() == [-1]
    assert part.digest != data.digest
    with pytest.raises(DatasetError, match="no film is in fold 4"):
        data.select([3, 4])


def test_the_digest_follows_rows_and_bytes_and_not_the_place(folder, tmp_path):
    before = load_dataset(folder).digest
    assert load_dataset(folder).digest == before
    moved = folder.rename(tmp_path.parent / f"{tmp_path.name}-moved")
    assert load_dataset(moved).digest == before
    (moved / "a.png").write_bytes(b"other")
    touched = load_dataset(moved).digest
    assert touched != before
    write(moved, changed(1, label="pneumonia"))
    assert load_dataset(moved).digest not in (before, touched)


@pytest.mark.parametrize(
    ("one", "other"), [("P1", "P1 "), ("P1", "\u00a0P1"), ("Jos\u00e9", "Jose\u0301"), ("\u212b1", "\u00c51")]
)
def test_what_nobody_sees_makes_no_other_patient(folder, one, other):
    rows = [{**GOOD[0], "patient": one}, {**GOOD[1], "patient": other}]
    write(folder, rows)
    assert len({film.patient for film in load_dataset(folder).films}) == 1
    write(folder, [rows[0], {**rows[1], "fold": "4"}])
    with pytest.raises(DatasetError, match=r"patient '\S+' is in folds 0 \(row 2\), 4 \(row 3\)"):
        load_dataset(folder)
    write(folder, [{name: cell for name, cell in row.items() if name != "fold"} for row in rows])
    assert len({film.fold for film in load_dataset(folder).films}) == 1


@pytest.mark.parametrize(("one", "other"), [("P1", "p1"), ("7", "07"), ("p-7", "P-007"), ("\uff17", "7")])
def test_patients_that_may_be_one_are_in_one_fold(folder, one, other):
    rows = [{**GOOD[0], "patient": one}, {**GOOD[1], "patient": other}]
    write(folder, rows)
    assert [film.patient for film in load_dataset(folder).films] == [one, other]
    write(folder, [rows[0], {**rows[1], "fold": "4"}])
    with pytest.raises(DatasetError, match=f"patients '{one}' in fold 0 .row 2., '{other}' in fold 4 .row 3. differ"):
        load_dataset(folder)
    write(folder, [{name: cell for name, cell in row.items() if name != "fold"} for row in rows])
    assert len({film.fold for film in load_dataset(folder).films}) == 1


@pytest.mark.parametrize(("one", "other"), [("10", "1"), ("p100", "p10"), ("P1", "P2"), ("7-0", "7"), ("a b", "ab")])
def test_other_patients_may_be_in_other_folds(folder, one, other):
    write(folder, [{**GOOD[0], "patient": one}, {**GOOD[1], "patient": other, "fold": "4"}])
    assert [film.patient for film in load_dataset(folder).films] == [one, other]


def test_without_folds_patients_are_kept_together(tmp_path):
    folder = write_dataset(tmp_path, 12, size=32)
    rows = [
        {name: cell for name, cell in row.items() if name != "fold"}
        for row in csv.DictReader((folder / "labels.csv").read_text(encoding="utf-8").splitlines())
    ]
    write(folder, rows)
    data = load_dataset(folder, heads=[THREE])
    assert "5 folds were given by the hash of the patient" in data.notes[0]
    folds = {}
    for film in data.films:
        folds.setdefault(film.patient, set()).add(film.fold)
    assert all(len(seen) == 1 for seen in folds.values())
    assert set().union(*folds.values()) == set(range(5))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (without("patient"), "column 'patient' is missing .without it folds cannot keep"),
        (without("label"), "column 'label' is missing .head 'finding' reads it"),
        (without("pleural effusion"), "column 'pleural effusion' is missing .head 'signs'"),
        (changed(1, file="nowhere.png"), r"row 3 \(nowhere.png\): there is no such file"),
        (changed(1, file="../b.png"), r"row 3 \(../b.png\): the path leaves the data folder"),
        (changed(1, file="sub/../../b.png"), "row 3 .*the path leaves the data folder"),
        (changed(1, file="/etc/passwd"), "row 3 .*the path leaves the data folder"),
        (changed(1, file=""), r"row 3 \(\): no file name"),
        (changed(1, file="sub"), r"row 3 \(sub\): there is no such file"),
        (changed(1, file="./a.png"), r"row 3 \(./a.png\): the same file as row 2"),
        (
            changed(0, label="Covid"),
            "row 2 .*label 'Covid' is not one of normal, covid, pneumonia; did you mean 'covid'?",
        ),
        (changed(0, label="xyzzy"), "row 2 .*label 'xyzzy' is not one of normal, covid, pneumonia$"),
        (changed(0, Edema="maybe"), "row 2 .*Edema is 'maybe'; write 1, 0, or nothing"),
        (changed(0, Edema="-1"), "row 2 .*Edema is '-1'; write 1, 0, or nothing"),
        (changed(1, fold="1"), r"patient 'p1' is in folds 0 \(row 2\), 1 \(row 3\)"),
        (changed(2, fold="two"), "row 4 .*fold 'two' is not a whole number"),
        (changed(2, fold="-1"), "row 4 .*fold '-1' is not a whole number"),
        (changed(2, fold="9" * 5000), "row 4 .*fold '9{20}' is not a whole number from 0 to 999999999"),
        (changed(2, file="x" * 300), "row 4 .*it cannot be read: File name too long"),
        (changed(2, patient=" "), "row 4 .*no patient"),
    ],
)
def test_each_problem_is_named_with_its_row(folder, rows, message):
    write(folder, rows)
    with pytest.raises(DatasetError, match=message) as caught:
        load_dataset(folder, heads=[THREE, SIGNS])
    assert len(caught.value.problems) == 1


def test_all_problems_are_told_at_once_and_the_list_is_capped(folder):
    rows = [{**GOOD[0], "file": f"lost-{number}.png", "label": "?"} for number in range(60)]
    write(folder, rows)
    with pytest.raises(DatasetError, match=r"^120 problem\(s\)(.|\n)*and 70 more$") as caught:
        load_dataset(folder, heads=[THREE])
    assert len(caught.value.problems) == 120


def test_an_empty_film_is_a_problem(folder):
    (folder / "b.png").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"row 3 \(b.png\): the file is empty"):
        load_dataset(folder)


def test_one_picture_under_two_names(folder):
    (folder / "b.png").write_bytes(b"a.png")
    with pytest.raises(DatasetError, match=r"row 3 .*the same bytes as a\.png, but labelled otherwise in label"):
        load_dataset(folder, heads=[THREE])
    assert len(load_dataset(folder)) == 3
    (folder / "sub/c.png").write_bytes(b"a.png")
    with pytest.raises(DatasetError, match=r"row 4 .*same bytes as a\.png, but in fold 3 and not 0"):
        load_dataset(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "has no films; it needs a header"),
        (b"file,patient,fold\n", "has no films; it needs a header"),
        (b"file,patient,fold\na.png,p1\n", "row 2: 2 cells, but the header has 3"),
        (b"file,patient,file\na.png,p1,a.png\n", "column 'file' stands 2 times"),
        (b"file;patient\na.png;p1\n", "column 'file' is missing"),
        (b"file,patient\n\xff\xfe,p1\n", "cannot be read as UTF-8"),
        (b'file,patient\n"a.png,p1\n', "cannot be read as UTF-8 comma-separated text: unexpected end of data"),
        (b"file,Patient\na.png,p1\n", "column 'patient' is missing .*is it 'Patient'?"),
    ],
)
def test_a_broken_table_is_told_apart(folder, text, message):
    (folder / "labels.csv").write_bytes(text)
    with pytest.raises(DatasetError, match=message):
        load_dataset(folder)


def test_a_folder_without_a_table(tmp_path):
    with pytest.raises(DatasetError, match=r"labels.csv is not there; a data folder needs a table"):
        load_dataset(tmp_path)


def test_spreadsheets_mark_their_encoding(folder):
    text = (folder / "labels.csv").read_bytes()
    (folder / "labels.csv").write_bytes(b"\xef\xbb\xbf" + text)
    assert len(load_dataset(folder, heads=[THREE])) == 3


def test_head_columns_fit_their_head():
    with pytest.raises(ValidationError, match="sigmoid: give `columns`"):
        HeadColumns(head=SIGNS.head, column="label")
    with pytest.raises(ValidationError, match="softmax: give `column`"):
        HeadColumns(head=THREE.head, columns={"covid": "c"})
    with pytest.raises(ValidationError, match="names Oedema, not one of its classes"):
        HeadColumns(head=SIGNS.head, columns={"Oedema": "x"})
    with pytest.raises(ValidationError, match=r"sigmoid: give `columns` .*, not `values`"):
        HeadColumns(head=SIGNS.head, values={"x": "Edema"})
    with pytest.raises(ValidationError, match="`values` of head 'finding' names corona, not one of its classes"):
        HeadColumns(head=THREE.head, values={"covid": "corona"})
    with pytest.raises(ValidationError, match="softmax: give `column`, not `otherwise`"):
        HeadColumns(head=THREE.head, otherwise="normal")
    with pytest.raises(ValidationError, match="`otherwise` of head 'signs' is 'none'; wanted one of several"):
        HeadColumns(head=SIGNS.head, otherwise="none")


def test_cells_can_stand_for_a_class(folder):
    binary = HeadColumns(
        head=Head(name="covid", kind="softmax", classes=("other", "covid")),
        values={"normal": "other", "pneumonia": "other"},
    )
    assert load_dataset(folder, heads=[binary]).targets(binary).tolist() == [0, 1, -1]
    write(folder, changed(1, label="covid-19"))
    with pytest.raises(
        DatasetError, match="label 'covid-19' is not one of other, covid, normal, pneumonia; did you mean"
    ):
        load_dataset(folder, heads=[binary])


def test_a_class_can_be_what_holds_otherwise(folder):
    signs = HeadColumns(
        head=Head(name="signs", kind="sigmoid", classes=("Effusion", "No Finding", "Edema")),
        columns={"Effusion": "pleural effusion"},
        otherwise="No Finding",
    )
    write(folder, changed(0, Edema="0"))
    targets = load_dataset(folder, heads=[signs]).targets(signs)
    np.testing.assert_array_equal(targets, [[0, 1, 0], [1, 0, 0], [np.nan, 0, 1]])
    write(folder, GOOD)
    assert np.isnan(load_dataset(folder, heads=[signs]).targets(signs)[0]).tolist() == [False, True, True]


def test_all_columns_that_a_head_lacks_are_one_sentence(folder):
    nih = HeadColumns(head=Head(name="nih", kind="sigmoid", classes=("Mass", "Edema", "Hernia")))
    with pytest.raises(DatasetError, match="data set") as caught:
        load_dataset(folder, heads=[nih])
    assert list(caught.value.problems) == [
        f"{folder / 'labels.csv'}: columns Mass, Hernia are missing (head 'nih' reads them); "
        "there are: file, patient, label, fold, pleural effusion, Edema"
    ]


@pytest.mark.shared_data
def test_real_films_load(shared_films):
    three = Head(name="finding", kind="softmax", classes=("covid", "normal", "pneumonia"), reference="normal")
    data = load_dataset(shared_films, heads=[HeadColumns(head=three)])
    assert len(data) == 1729
    assert np.unique(data.targets(three), return_counts=True)[1].tolist() == [605, 124, 500, 500]


def test_rows_of_a_wrong_length_hide_nothing_and_blank_lines_count(folder):
    text = "file,patient,fold\n\na.png,p1\nnowhere.png,p2,0\n\nb.png,p3,0,1\nsub/c.png,p4,x\n"
    (folder / "labels.csv").write_text(text)
    with pytest.raises(DatasetError, match="data set") as caught:
        load_dataset(folder)
    assert [problem.split(" (")[0].split(":")[0] for problem in caught.value.problems] == [
        "row 3",
        "row 6",
        "row 4",
        "row 7",
    ]
    assert caught.value.problems[0] == "row 3: 2 cells, but the header has 3"


def test_what_two_heads_find_wrong_with_one_cell_is_said_once(folder):
    again = HeadColumns(head=THREE.head.model_copy(update={"name": "earlier"}))
    write(folder, changed(0, label="xyzzy"))
    with pytest.raises(DatasetError, match="1 problem") as caught:
        load_dataset(folder, heads=[THREE, again])
    assert list(caught.value.problems) == ["row 2 (a.png): label 'xyzzy' is not one of normal, covid, pneumonia"]
    write(folder, GOOD)
    (folder / "b.png").write_bytes(b"a.png")
    with pytest.raises(DatasetError, match=r"row 3 .*, but labelled otherwise in label$"):
        load_dataset(folder, heads=[THREE, again])


def test_a_column_that_is_missing_hides_no_row(folder):
    nih = HeadColumns(head=Head(name="nih", kind="sigmoid", classes=("Mass", "Edema")))
    write(folder, changed(1, label="xyzzy", file="nowhere.png", Edema="maybe"))
    with pytest.raises(DatasetError, match="data set") as caught:
        load_dataset(folder, heads=[THREE, nih])
    assert [problem.rpartition(": ")[2].split(" (")[0] for problem in caught.value.problems[1:]] == [
        f"there is no such file below {folder}",
        "label 'xyzzy' is not one of normal, covid, pneumonia",
    ]
    assert "column 'Mass' is missing (head 'nih' reads it)" in caught.value.problems[0]
