"""The films of one data set with their merged labels, and everything that is wrong with it, before a film is opened."""

import difflib
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from edgecxr.merging.mapping import (
    EACH_FILM,
    IGNORE,
    LEAVE_OUT,
    FolderSource,
    Mapping,
    PatternSource,
    Source,
    TableSource,
)
from edgecxr.merging.tables import Row, places_of, read_table
from edgecxr.read import find_files

__all__ = ["Contribution", "Entry", "read_source"]

CELLS = {"1": "1", "1.0": "1", "0": "0", "0.0": "0", "": ""}
UNCERTAIN = {"unknown": "", "positive": "1", "negative": "0"}


@dataclass(frozen=True)
class Entry:
    """One film of a source, labelled as it will be after the merge."""

    path: Path
    source: str
    below: str  # its path below the source's folder, with slashes
    patient: str  # the source's own identifier after the cohort's name
    label: str  # "" where unlabelled; of a film that is left out, what it is left out for
    columns: dict[str, str]  # "1", "0", or "" where unknown
    fold: int | None  # of its own, where the source keeps its folds
    where: str  # for messages: the table's row, or the file
    left_out: bool = False  # it does not come along, but tells who shares it

    @property
    def told(self) -> str:
        """The film in a report."""
        return f"{self.source}: {self.below}"

    @property
    def told_labels(self) -> str:
        """What is known of it, in a report."""
        return ", ".join(
            [self.label or "unlabelled", *(f"{name} {value}" for name, value in self.columns.items() if value)]
        )

    def agrees(self, other: "Entry") -> bool:
        """Whether all that both know is the same."""
        pairs = [(self.label, other.label), *((value, other.columns[name]) for name, value in self.columns.items())]
        return all(one == another or not one or not another for one, another in pairs)


@dataclass
class Contribution:
    """What one source gives, how many films it leaves out by reason, and what is wrong with it."""

    source: str
    entries: list[Entry] = field(default_factory=list)
    aside: list[Entry] = field(default_factory=list)  # left out for their labels, where there is a file
    left_out: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def read_source(source: TableSource | FolderSource | PatternSource, mapping: Mapping, base: Path) -> Contribution:
    """Every film of the source; `base` is the folder that `source.folder` is seen from."""
    folder = base / os.path.expanduser(source.folder)
    found = Contribution(source.name)
    if not folder.is_dir():
        found.problems.append(f"source {source.name!r}: there is no folder {folder}")
    elif isinstance(source, TableSource):
        _read_rows(source, mapping, folder, found)
    else:
        _read_names(source, mapping, folder, found)
    if not found.problems and not found.entries:
        found.problems.append(f"source {source.name!r}: no film in {folder} is left after its labels were mapped")
    found.problems += _collapse(found.entries)
    found.aside = _once(found.aside, found.entries)
    return found


def _read_names(source: FolderSource | PatternSource, mapping: Mapping, folder: Path, found: Contribution) -> None:
    for path in find_files([folder]):
        below = path.relative_to(folder).as_posix()
        named = _label_and_patient(source, below)
        if named is None:
            found.left_out["its path is not of the pattern"] += 1
        elif isinstance(named, str):
            found.problems.append(f"source {source.name!r}, {below}: {named}")
        else:
            label, patient = named
            meaning = _meaning(source, mapping, [label], {})
            _add(source, found, f"{source.name}: {below}", meaning, _Film(path, below, patient))


def _label_and_patient(source: FolderSource | PatternSource, below: str) -> tuple[str, str] | str | None:
    """Label and patient of a path; a sentence where the patient cannot be told; None for a path of another kind."""
    if isinstance(source, PatternSource):
        match = re.search(source.pattern, below)
        if match is None:
            return None
        return match["label"] or "", below if source.patient else (match["patient"] or "")
    label, slash, _ = below.partition("/")
    if not slash:
        return None
    if source.patient == EACH_FILM:
        return label, below
    match = re.search(source.patient, below)
    return (label, match[1]) if match and match[1] else f"`patient` {source.patient!r} does not match this path"


def _read_rows(source: TableSource, mapping: Mapping, folder: Path, found: Contribution) -> None:
    wanted = {source.file, source.patient, *filter(None, [source.label]), *source.columns.values(), *source.where}
    if source.keep_folds:
        wanted.add(source.fold)
    table = folder / source.table
    rows, problems = read_table(table, wanted)
    found.problems += problems
    places = places_of(folder / source.below) if source.anywhere else None
    for number, row in rows.items():
        if any(row[column] not in allowed for column, allowed in source.where.items()):
            found.left_out["its row is not among those that `where` names"] += 1
            continue
        where = f"{table} row {number} ({row[source.file]})"
        stated = {name: row[column].strip() for name, column in source.columns.items()}
        meaning = _meaning(source, mapping, _names(source, row), stated)
        _add(source, found, where, meaning, _film(source, folder, row, places), _fold(source, mapping, row))


@dataclass(frozen=True)
class _Film:
    path: Path
    below: str
    patient: str


@dataclass(frozen=True)
class _Meaning:
    label: str
    columns: dict[str, str]
    left_out: str = ""  # why


def _film(source: TableSource, folder: Path, row: Row, places: dict[str, list[str]] | None) -> _Film | str:
    """The film of a row, or what is wrong with it."""
    name = row[source.file].strip() + (source.suffix if row[source.file].strip() else "")
    if places is not None:
        there = places.get(name, [])
        if len(there) != 1:
            return f"{len(there) or 'no'} files of this name lie below {folder / source.below}; wanted one"
        name = there[0]
    below = os.path.normpath(os.path.join(source.below, name)) if name else ""
    if not below or os.path.isabs(below) or below.split(os.sep)[0] == os.pardir:
        return f"{name!r} is not a path below {folder}"
    if not (folder / below).is_file():
        return f"there is no file {folder / below}"
    if not row[source.patient].strip():
        return "no patient"
    return _Film(folder / below, Path(below).as_posix(), row[source.patient].strip())


def _fold(source: TableSource, mapping: Mapping, row: Row) -> int | str | None:
    """The fold that the source keeps, if it does, or what is wrong with it."""
    if not source.keep_folds:
        return None
    fold = row[source.fold].strip()
    if not (fold.isascii() and fold.isdigit() and int(fold) < mapping.folds):
        return f"fold {fold!r} is not one of 0 to {mapping.folds - 1} (`folds: {mapping.folds}` of the mapping)"
    return int(fold)


def _names(source: TableSource, row: Row) -> list[str]:
    if source.label is None:
        return []
    cell = row[source.label]
    return [part.strip() for part in (cell.split(source.separator) if source.separator else [cell])]


def _add(
    source: Source,
    found: Contribution,
    where: str,
    meaning: _Meaning | str,
    film: _Film | str,
    fold: int | str | None = None,
) -> None:
    """The film as its labels say, or what is wrong; of one that is left out, only its labels can be."""
    if isinstance(meaning, str):
        found.problems.append(f"{where}: {meaning}")
    elif meaning.left_out:
        found.left_out[meaning.left_out] += 1
        if isinstance(film, _Film):
            found.aside.append(_entry(source, where, meaning, film, None))
    elif isinstance(film, str):
        found.problems.append(f"{where}: {film}")
    elif isinstance(fold, str):
        found.problems.append(f"{where}: {fold}")
    else:
        found.entries.append(_entry(source, where, meaning, film, fold))


def _entry(source: Source, where: str, meaning: _Meaning, film: _Film, fold: int | None) -> Entry:
    patient, left_out = f"{source.people}-{film.patient}", bool(meaning.left_out)
    return Entry(film.path, source.name, film.below, patient, meaning.label, meaning.columns, fold, where, left_out)


def _meaning(source: Source, mapping: Mapping, labels: list[str], stated: dict[str, str]) -> _Meaning | str:
    """What a film is called after the merge, and why it is left out if it is; or what is wrong with its labels."""
    known = [name for name in labels if name in source.labels]
    if strange := [name for name in labels if name and name not in source.labels]:
        return _stranger(source, strange[0])
    meant = [name for label in known for name in source.meanings(label)]
    columns, problem = _columns(source, mapping, set(meant), stated, bool(known))
    if problem:
        return problem
    merged = sorted({name for name in meant if name in mapping.labels})
    label = " and ".join(merged)
    if LEAVE_OUT in meant or LEAVE_OUT in columns.values():
        return _Meaning(LEAVE_OUT, columns, "its label is one to leave out")
    if len(merged) > 1:
        return _Meaning(label, columns, f"it is {label} at once")
    if not merged and not any(columns.values()):
        return _Meaning("", columns, "nothing is known of it")
    return _Meaning(label, columns)


def _columns(
    source: Source, mapping: Mapping, meant: set[str], stated: dict[str, str], labelled: bool
) -> tuple[dict[str, str], str | None]:
    """Each merged column of a film: what its labels say of those that the source knows, or its own cells."""
    heard = {name for label in source.labels for name in source.meanings(label)}
    values = {name: ("1" if name in meant else "0") if labelled and name in heard else "" for name in mapping.columns}
    for name, cell in stated.items():
        if cell in ("-1", "-1.0"):
            doubt = source.uncertain if isinstance(source, TableSource) else None
            if doubt is None:
                return {}, f"{name} is {cell}; say `uncertain: unknown`, `positive`, `negative` or `leave out`"
            values[name] = LEAVE_OUT if doubt == LEAVE_OUT else UNCERTAIN[doubt]
        elif cell in CELLS:
            values[name] = CELLS[cell]
        else:
            return {}, f"{name} is {cell!r}; wanted 1, 0, -1, or nothing where it is unknown"
    return values, None


def _stranger(source: Source, label: str) -> str:
    near = difflib.get_close_matches(label, source.labels, 1, 0.6)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    choices = ", ".join(source.labels)
    return (
        f"label {label!r} is not one of those that source {source.name!r} maps: {choices}{hint}; "
        f"add it to its `labels`, as {LEAVE_OUT!r} or {IGNORE!r} if need be"
    )


def _collapse(entries: list[Entry]) -> list[str]:
    """Each film once; one problem for each row that names a film again and says something else of it."""
    first: dict[str, Entry] = {}
    problems = []
    for entry in entries:
        earlier = first.setdefault(entry.below, entry)
        pairs = {
            "label": ((earlier.label, earlier.columns), (entry.label, entry.columns)),
            "patient": (earlier.patient, entry.patient),
            "fold": (earlier.fold, entry.fold),
        }
        if others := [name for name, (one, another) in pairs.items() if one != another]:
            problems.append(f"{entry.where}: the same film as {earlier.where}, but of another {' and '.join(others)}")
    entries[:] = first.values()
    return problems


def _once(aside: list[Entry], entries: list[Entry]) -> list[Entry]:
    """Each film that is left out once for its patient and label; not where other rows know of it what it lacks."""
    known = {(entry.below, entry.patient, "") for entry in entries}
    first: dict[tuple[str, str, str], Entry] = {}
    for entry in aside:
        first.setdefault((entry.below, entry.patient, entry.label), entry)
    return [entry for key, entry in first.items() if key not in known]
