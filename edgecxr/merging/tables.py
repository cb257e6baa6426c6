"""Tables of labels as public data sets have them, with the row numbers that a spreadsheet shows."""

import csv
import difflib
from collections.abc import Iterable
from pathlib import Path

from edgecxr.read import find_files

__all__ = ["Row", "places_of", "read_table"]

Row = dict[str, str]
TABS = (".tsv", ".txt", ".tab")


def read_table(path: Path, wanted: Iterable[str]) -> tuple[dict[int, Row], list[str]]:
    """Rows by number (the header is 1), and a problem for a table, column or row that is not as it must be."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter="\t" if path.suffix.lower() in TABS else ",", strict=True)
            lines = [(number, line) for number, line in enumerate(reader, start=1) if any(cell for cell in line)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        return {}, [f"{path} cannot be read as a UTF-8 table: {getattr(error, 'strerror', None) or error}"]
    if len(lines) < 2:
        return {}, [f"{path} has no films; it needs a header and one row for each film"]
    (_, header), *body = lines
    problems = [_lacking(path, column, header) for column in sorted(set(wanted) - set(header))]
    rows = {number: dict(zip(header, line, strict=True)) for number, line in body if len(line) == len(header)}
    for number, line in body:
        if number not in rows:
            problems.append(f"{path} row {number}: {len(line)} cells, but the header has {len(header)}")
    return ({}, problems) if problems else (rows, [])


def places_of(folder: Path) -> dict[str, list[str]]:
    """Where below the folder each file name is."""
    places: dict[str, list[str]] = {}
    for path in find_files([folder]):
        places.setdefault(path.name, []).append(path.relative_to(folder).as_posix())
    return places


def _lacking(path: Path, column: str, header: list[str]) -> str:
    near = difflib.get_close_matches(column, header, 1, 0.6)
    hint = f"; is it {near[0]!r}?" if near else f"; there are: {', '.join(header)}"
    return f"{path} has no column {column!r}{hint}"
