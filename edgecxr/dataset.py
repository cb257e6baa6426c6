"""A folder of labelled films: labels.csv, checked as a whole before anything is trained or evaluated on it.

`docs/data.md` says how such a folder looks. What reading a film can show is found later, when films are preprocessed.
"""

import csv
import difflib
import hashlib
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecxr.errors import DatasetError
from edgecxr.head_columns import HeadColumns, Row
from edgecxr.spec import Head

__all__ = ["FOLDS", "Dataset", "Film", "HeadColumns", "alike", "load_dataset"]

FOLDS = 5  # how many there are when labels.csv has no `fold` column
CHUNK = 1 << 20


@dataclass(frozen=True)
class Film:
    """One row of labels.csv."""

    path: Path
    patient: str  # without spaces around it, in Unicode's composed form
    fold: int
    values: Row  # the raw row
    sha256: str = ""  # of the file's bytes, hex


@dataclass(frozen=True)
class Dataset:
    """Films with labels, in the order of labels.csv."""

    folder: Path
    films: tuple[Film, ...]
    digest: str  # over every row and every film's bytes: the same digest, the same data
    heads: tuple[HeadColumns, ...] = ()
    notes: tuple[str, ...] = ()  # what was decided on loading, e.g. folds that labels.csv does not give

    def __len__(self) -> int:
        return len(self.films)

    def select(self, folds: Iterable[int]) -> "Dataset":
        """The films of these folds. Raises DatasetError for a fold without films."""
        wanted = set(folds)
        absent = sorted(wanted - {film.fold for film in self.films})
        if absent:
            raise DatasetError([f"no film is in fold {fold} of {self.folder}" for fold in absent])
        films = tuple(film for film in self.films if film.fold in wanted)
        return replace(self, films=films, digest=_digest(films))

    def targets(self, head: Head | HeadColumns, column: str | None = None) -> NDArray[Any]:
        """Labels of every film for one head.

        Softmax: (N,) int64, the class's index, -1 where the film is not labelled for this head. Sigmoid: (N, K)
        float32, 1 or 0, NaN where unknown. A bare Head uses the columns it was loaded with; `column` overrides a
        softmax head's. Raises DatasetError for a value outside the head.
        """
        placed = head if isinstance(head, HeadColumns) else self._placed(head)
        if column is not None:
            placed = HeadColumns(head=placed.head, column=column)
        problems = _missing_columns(self.films[0].values if self.films else {}, [placed])
        for film in self.films if not problems else ():
            problems += [f"{film.values.get('file', film.path)}: {text}" for text in placed.problems(film.values)]
        if problems:
            raise DatasetError(problems)
        if placed.head.kind == "softmax":
            index = {name: number for number, name in enumerate(placed.head.classes)}
            return np.array([index.get(placed.label(film.values), -1) for film in self.films], np.int64)
        marks = [placed.marks(film.values) for film in self.films]
        return np.array(marks, np.float32).reshape(len(self.films), len(placed.head.classes))

    def _placed(self, head: Head) -> HeadColumns:
        return next((placed for placed in self.heads if placed.head == head), HeadColumns(head=head))


def load_dataset(folder: str | Path, *, labels: str = "labels.csv", heads: Sequence[HeadColumns] = ()) -> Dataset:
    """Read and check labels.csv and the films that it names.

    Wanted columns: `file` (path below the folder), `patient`, what the heads read, and `fold`; without `fold`, folds
    0 to 4 are given by the hash of the patient, and `notes` says so. Raises DatasetError with every problem found.
    """
    place = Path(folder)
    header, rows, problems = _read_rows(place / labels)
    problems += _missing_columns(dict.fromkeys(header, ""), heads, str(place / labels))
    if not {"file", "patient"} <= set(header):
        raise DatasetError(problems)
    given, legible = "fold" in header, [placed for placed in heads if set(placed.names) <= set(header)]
    problems += [problem for number, row in rows.items() for problem in _row_problems(place, number, row, legible)]
    problems += _repeated_files(rows) + _split_patients(rows if given else {})
    if problems:
        raise DatasetError(problems)
    films = _films(place, list(rows.values()), given)
    if repeated := _same_content(dict(zip(rows, films, strict=True)), heads):
        raise DatasetError(repeated)
    notes = () if given else (f"no `fold` column: {FOLDS} folds were given by the hash of the patient",)
    return Dataset(place, films, _digest(films), tuple(heads), notes)


def alike(patient: str) -> str:
    """The same for patients that may be one, written twice: 'P07', 'p7'. Who they are is never guessed from it."""
    return re.sub(r"(?<!\d)0+(?=\d)", "", unicodedata.normalize("NFKC", patient).casefold())


def _read_rows(path: Path) -> tuple[list[str], dict[int, Row], list[str]]:
    """The header, every sound row by the number that a spreadsheet shows, and a problem for each row that is not.

    Blank lines count and are left out. Raises DatasetError where there is no table.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            table = [(number, line) for number, line in enumerate(csv.reader(file, strict=True), start=1) if line]
    except FileNotFoundError:
        raise DatasetError([f"{path} is not there; a data folder needs a table of its films (docs/data.md)"]) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError([f"{path} cannot be read as UTF-8 comma-separated text: {error}"]) from error
    if len(table) < 2:
        raise DatasetError([f"{path} has no films; it needs a header and one row for each film"])
    (_, header), *body = table
    if twice := [f"column {name!r} stands {n} times in {path.name}" for name, n in Counter(header).items() if n > 1]:
        raise DatasetError(twice)
    rows = {number: dict(zip(header, line, strict=True)) for number, line in body if len(line) == len(header)}
    problems = [
        f"row {number}: {len(line)} cells, but the header has {len(header)}"
        for number, line in body
        if number not in rows
    ]
    return header, rows, problems


def _missing_columns(row: Row, heads: Sequence[HeadColumns], table: str = "labels.csv") -> list[str]:
    """One problem for each column, or head, whose labels must be there and are not."""
    reasons = {
        "file": "the film's path below the data folder",
        "patient": "without it folds cannot keep a patient's films together, and every figure would be too good",
    }
    problems = [_missing(table, [name], reason, row) for name, reason in reasons.items() if name not in row]
    for placed in heads:
        if absent := [name for name in placed.names if name not in row]:
            reads = f"head {placed.head.name!r} reads {'it' if len(absent) == 1 else 'them'}"
            problems.append(_missing(table, absent, reads, row))
    return list(dict.fromkeys(problems))


def _missing(table: str, absent: Sequence[str], reason: str, row: Row) -> str:
    if len(absent) > 1:
        return f"{table}: columns {', '.join(absent)} are missing ({reason}); there are: {', '.join(row)}"
    near = difflib.get_close_matches(absent[0], row, 1, 0.6)
    hint = f"; is it {near[0]!r}?" if near else f"; there are: {', '.join(row)}"
    return f"{table}: column {absent[0]!r} is missing ({reason}){hint}"


def _row_problems(folder: Path, number: int, row: Row, heads: Sequence[HeadColumns]) -> Iterator[str]:
    """Everything wrong with one row by itself."""
    where = f"row {number} ({row['file']})"
    trouble = _file_problem(folder, row["file"])
    if trouble:
        yield f"{where}: {trouble}"
    if not row["patient"].strip():
        yield f"{where}: no patient"
    if "fold" in row and not re.fullmatch(r"[0-9]{1,9}", row["fold"]):
        yield f"{where}: fold {row['fold'][:20]!r} is not a whole number from 0 to 999999999"
    for text in dict.fromkeys(text for placed in heads for text in placed.problems(row)):
        yield f"{where}: {text}"


def _file_problem(folder: Path, name: str) -> str | None:
    """Why `name` is not a film below the folder, or None. Links that the folder's owner made are followed."""
    inside = os.path.normpath(name)
    if not name or "\0" in name:
        return "no file name"
    if os.path.isabs(name) or inside.split(os.sep)[0] == os.pardir:
        return f"the path leaves the data folder {folder}"
    path = folder / inside
    try:
        if not path.is_file():
            return f"there is no such file below {folder}"
        with path.open("rb") as film:
            return None if film.read(1) else "the file is empty"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"


def _repeated_files(rows: Mapping[int, Row]) -> list[str]:
    """One problem for each row that names a film which an earlier row has named."""
    first: dict[str, int] = {}
    problems = []
    for number, row in rows.items():
        earlier = first.setdefault(os.path.normpath(row["file"]), number)
        if earlier != number:
            problems.append(f"row {number} ({row['file']}): the same file as row {earlier}")
    return problems


def _split_patients(rows: Mapping[int, Row]) -> list[str]:
    """One problem for each patient with films in more than one fold."""
    folds: dict[str, dict[str, tuple[int, str]]] = {}
    for number, row in rows.items():
        patient = _patient(row)
        folds.setdefault(alike(patient), {}).setdefault(row["fold"], (number, patient))
    return [
        _split(tuple(dict.fromkeys(patient for _, patient in seen.values())), seen)
        for seen in folds.values()
        if len(seen) > 1
    ]


def _split(spellings: Sequence[str], seen: Mapping[str, tuple[int, str]]) -> str:
    if len(spellings) == 1:
        places = ", ".join(f"{fold} (row {number})" for fold, (number, _) in seen.items())
        return f"patient {spellings[0]!r} is in folds {places}; keep all films of a patient in one fold"
    places = ", ".join(f"{patient!r} in fold {fold} (row {number})" for fold, (number, patient) in seen.items())
    return (
        f"patients {places} differ only by case, leading zeros or width of letters; keep them in one fold, or "
        "name them so that they cannot be the same person"
    )


def _patient(row: Row) -> str:
    """Who a row says that its film is of: what a table's typist cannot see is no other patient."""
    return unicodedata.normalize("NFC", row["patient"]).strip()


def _films(folder: Path, rows: Sequence[Row], given: bool) -> tuple[Film, ...]:
    """Films with their digests; folds as given, or by the patient's hash."""
    paths = [folder / os.path.normpath(row["file"]) for row in rows]
    with ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as pool:
        digests = list(pool.map(_sha256, paths))
    folds = [int(row["fold"]) if given else _hashed_fold(_patient(row)) for row in rows]
    return tuple(
        Film(path, _patient(row), fold, row, digest)
        for path, row, fold, digest in zip(paths, rows, folds, digests, strict=True)
    )


def _hashed_fold(patient: str) -> int:
    """The same fold for patients that may be one."""
    return int.from_bytes(hashlib.sha256(alike(patient).encode()).digest()[:8], "big") % FOLDS


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _same_content(films: Mapping[int, Film], heads: Sequence[HeadColumns]) -> list[str]:
    """One problem for each film whose bytes stand under another name in another fold, or with another label."""
    first: dict[str, Film] = {}
    problems = []
    columns = dict.fromkeys(name for placed in heads for name in placed.names)
    for number, film in films.items():
        earlier = first.setdefault(film.sha256, film)
        where = f"row {number} ({film.values['file']}): the same bytes as {earlier.values['file']}"
        if earlier.fold != film.fold:
            problems.append(
                f"{where}, but in fold {film.fold} and not {earlier.fold}; it would be tested on what it saw"
            )
        differing = [name for name in columns if earlier.values[name] != film.values[name]]
        if differing:
            problems.append(f"{where}, but labelled otherwise in {', '.join(differing)}")
    return problems


def _digest(films: Sequence[Film]) -> str:
    """SHA-256 (hex) over every row and every film's bytes, in order; where the folder lies does not matter."""
    digest = hashlib.sha256()
    for film in films:
        digest.update(json.dumps([film.values, film.fold, film.sha256], sort_keys=True).encode() + b"\n")
    return digest.hexdigest()
