import pytest

from edgecxr.errors import DatasetError, RecipeError
from edgecxr.merging import read_sources


def change(sets, old, new):
    text = (sets / "map.yaml").read_text()
    assert old in text
    (sets / "map.yaml").write_text(text.replace(old, new))
    return sets / "map.yaml"


def line_of(sets, text):
    lines = (sets / "map.yaml").read_text().splitlines()
    return next(number for number, line in enumerate(lines, start=1) if text in line)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("Corona: covid", "Corona: covd", r"label 'Corona' as 'covd', which is not one of covid, .*mean 'covid'\?"),
        ("folds: 2", "folds: 1", "folds: got 1, wanted greater than or equal to 2"),
        ("layout: folders", "layout: piles", "layout"),
        ("patient: each film", "patient: '['", "is not a regular expression"),
        ("patient: each film", "patient: abc", "write a regular expression with one group"),
        ("name: web", "name: hospital", "sources name 'hospital' twice"),
        ("columns: [Effusion, Edema]", "columns: [fold]", "column 'fold' has another meaning"),
        ("  separator:", "  columns: {Mass: m}\n    separator:", "column 'Mass', which is not one of Effusion, Edema"),
        ("    label: findings\n", "", "neither `label` nor `columns`"),
        ("below: films", "bellow: films", "did you mean 'below'"),
    ],
)
def test_a_wrong_mapping_is_one_sentence_with_its_line(sets, old, new, said):
    path = change(sets, old, new)
    with pytest.raises(RecipeError, match=rf"map\.yaml:\d+: .*{said}") as caught:
        read_sources(path)
    assert len(str(caught.value).splitlines()) == 1


def test_the_line_is_that_of_the_unknown_label(sets):
    path = change(sets, "Corona: covid", "\n      Corona: covd")
    with pytest.raises(RecipeError, match=rf"map\.yaml:{line_of(sets, 'Corona: covd')}: "):
        read_sources(path)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "0,p0,COVID-19,",
            "0,p0,COVID19,",
            r"row 2 \(0\): label 'COVID19' is not one of .*did you mean 'COVID-19'\?; add",
        ),
        ("1,p0,No Finding", "1,,No Finding", r"row 3 \(1\): no patient"),
        ("1,p0,No Finding", "99,p0,No Finding", r"row 3 \(99\): there is no file .*99\.png"),
        ("1,p0,No Finding", "../../map,p0,No Finding", "is not a path below"),
        ("1,p0,No Finding,0", "1,p0,No Finding", "row 3: 3 cells, but the header has 4"),
        ("1,p0,No Finding", "0,p0,No Finding", r"row 3 \(0\): the same film as .*row 2 \(0\), but of another label"),
        ("name,who", "nam,who", "has no column 'name'; is it 'nam'"),
    ],
)
def test_a_wrong_table_is_told_by_its_row_before_any_film_is_read(sets, old, new, said):
    table = sets / "hospital" / "films.csv"
    text = table.read_text().replace("\r\n", "\n")
    assert old in text
    table.write_text(text.replace(old, new, 1))
    with pytest.raises(DatasetError, match=said) as caught:
        read_sources(sets / "map.yaml")
    assert len(caught.value.problems) == 1


def test_an_unknown_folder_of_films_names_the_choices(sets):
    (sets / "web" / "Odd").mkdir()
    (sets / "web" / "Odd" / "a.png").write_bytes(b"x")
    with pytest.raises(DatasetError, match=r"web: Odd/a.png: label 'Odd' is not one of .*: Corona, Healthy"):
        read_sources(sets / "map.yaml")


def test_a_label_that_no_source_gives_is_a_problem(sets):
    with pytest.raises(DatasetError, match="no film of any source is 'tb'; map a label to it"):
        read_sources(change(sets, "labels: [covid,", "labels: [tb, covid,"))


def test_folds_and_patients_of_a_source_that_keeps_its_folds(sets):
    path = change(sets, "separator:", "keep_folds: true\n    separator:")
    table = sets / "hospital" / "films.csv"
    good = table.read_text()
    table.write_text(good.replace("No Finding,0", "No Finding,2", 1))
    with pytest.raises(DatasetError, match=r"row 3 \(1\): fold '2' is not one of 0 to 1"):
        read_sources(path)
    table.write_text(good.replace("No Finding,0", "No Finding,1", 1))
    with pytest.raises(DatasetError, match=r"'hospital-p0' in fold 0 \(.*row 2 .* in fold 1 \(.*row 3"):
        read_sources(path)
    again = good.replace("1,p0,No Finding,0", "0,p0,COVID-19,1")
    table.write_text(again)
    assert again != good
    with pytest.raises(DatasetError, match=r"row 3 \(0\): the same film as .*row 2 \(0\), but of another fold"):
        read_sources(path)


TABLE = """labels: [covid]
columns: [Edema, Mass]
sources:
  - name: t
    folder: web
    layout: table
    table: t.tsv
    file: f
    patient: p
    label: l
    labels: {0: ignore, 1: covid}
    columns: {Edema: e}
    anywhere: true
    where: {view: [PA]}
"""
ROWS = (
    "f\tp\tl\te\tview\n"
    "again.jpg\t1\t1\t1.0\tPA\n"
    "wrong.jpg\t2\t0\t-1\tPA\n"
    "new.jpg\t3\t1\t\tlateral\n"
    "51.dcm\t3\t1\t\tPA\n"
)


@pytest.mark.parametrize(
    ("doubt", "found"),
    [
        ("unknown", {"again.jpg": "1", "51.dcm": ""}),
        ("positive", {"again.jpg": "1", "wrong.jpg": "1", "51.dcm": ""}),
        ("negative", {"again.jpg": "1", "wrong.jpg": "0", "51.dcm": ""}),
        ("leave out", {"again.jpg": "1", "51.dcm": ""}),
    ],
)
def test_a_table_with_columns_numbers_and_doubt(sets, doubt, found):
    (sets / "web" / "t.tsv").write_text(ROWS)
    (sets / "map.yaml").write_text(f"{TABLE}    uncertain: {doubt}\n")
    (given,) = read_sources(sets / "map.yaml").given
    assert {entry.path.name: entry.columns["Edema"] for entry in given.entries} == found
    assert {entry.columns["Mass"] for entry in given.entries} == {""}
    assert given.left_out["its row is not among those that `where` names"] == 1


def test_doubt_must_be_decided_on(sets):
    (sets / "web" / "t.tsv").write_text(ROWS)
    (sets / "map.yaml").write_text(TABLE)
    with pytest.raises(DatasetError, match=r"row 3 \(wrong.jpg\): Edema is -1; say `uncertain: unknown`"):
        read_sources(sets / "map.yaml")


def test_a_pattern_reads_label_and_patient_from_the_path(sets):
    (sets / "map.yaml").write_text(
        "labels: [covid]\nsources:\n  - {name: w, folder: web, layout: pattern,"
        " pattern: '(?P<label>Corona)/(?P<patient>.*)[.]jpg', labels: {Corona: covid}}\n"
    )
    (given,) = read_sources(sets / "map.yaml").given
    assert sorted(entry.patient for entry in given.entries) == ["w-again", "w-new", "w-wrong"]
    assert given.left_out["its path is not of the pattern"] == 2


@pytest.mark.parametrize("row", ["ct.nii,4,Mass", "Corona/51.dcm,4,Scar", ",4,Mass", "Corona/wrong.jpg,,Both"])
def test_a_row_to_leave_out_may_lack_what_a_row_to_keep_must_have(other, row):
    table = other / "web" / "t.csv"
    good = table.read_text()
    table.write_text(f"{good}{row}\n")
    (_, given) = read_sources(other / "map.yaml").given
    assert [entry.below for entry in given.aside] == ["Corona/again.jpg"]
    assert given.left_out.total() == 2
    name, patient, _ = row.split(",")
    table.write_text(f"{good}{name},{patient},COVID-19\n")
    with pytest.raises(DatasetError, match=r"row 4 .*: (there is no file|'' is not a path below|no patient)"):
        read_sources(other / "map.yaml")


def test_the_fold_of_a_row_to_leave_out_is_not_asked_for(sets):
    path = change(sets, "separator:", "keep_folds: true\n    separator:")
    table = sets / "hospital" / "films.csv"
    table.write_text(table.read_text().replace("Rotated,0", "Rotated,", 1))
    hospital, _ = read_sources(path).given
    assert [(entry.below, entry.fold) for entry in hospital.aside] == [("films/12.png", None), ("films/13.png", None)]


def test_a_film_is_left_out_once_for_its_patient_and_label(other):
    table = other / "web" / "t.csv"
    more = "Corona/again.jpg,x,Mass\nCorona/again.jpg,y,Mass\nCorona/new.jpg,x,Scar\nCorona/new.jpg,x,Mass\n"
    table.write_text(table.read_text() + more)
    (_, given) = read_sources(other / "map.yaml").given
    assert [(entry.below, entry.patient) for entry in given.aside] == [
        ("Corona/again.jpg", "other-x"),
        ("Corona/again.jpg", "other-y"),
        ("Corona/new.jpg", "other-x"),
    ]
    assert given.left_out.total() == 5
