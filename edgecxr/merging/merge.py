"""The merge itself: read the sources, find films that are there more than once, give folds, write the folder."""

import csv
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecxr.dataset import alike
from edgecxr.errors import DatasetError
from edgecxr.merging.clusters import Settled, people_of, settle
from edgecxr.merging.duplicates import find_duplicates, thumbnails
from edgecxr.merging.folds import assign_folds
from edgecxr.merging.mapping import EACH_FILM, Mapping, load_mapping
from edgecxr.merging.report import MergeReport, Refused, SourceReport
from edgecxr.merging.sources import Contribution, Entry, read_source

__all__ = ["Sources", "merge", "read_sources"]

FILMS = "films"  # the folder of the films in the merged folder


@dataclass(frozen=True)
class Sources:
    """A mapping and what its sources give, before a film is opened."""

    mapping: Mapping
    given: tuple[Contribution, ...]

    @property
    def entries(self) -> list[Entry]:
        """The films of all sources that come along, in their order."""
        return [entry for source in self.given for entry in source.entries]

    @property
    def films(self) -> list[Entry]:
        """Every film that is opened: those that come along, then those that are left out."""
        return [*self.entries, *(entry for source in self.given for entry in source.aside)]


def read_sources(path: str | Path) -> Sources:
    """The films of every source of a mapping file. Raises RecipeError, and DatasetError with every problem found."""
    mapping = load_mapping(path)
    given = tuple(read_source(source, mapping, Path(path).parent) for source in mapping.sources)
    sources = Sources(mapping, given)
    problems = [problem for source in given for problem in source.problems] or _split(
        sources.entries, {entry.patient: alike(entry.patient) for entry in sources.entries}
    )
    problems = problems or _absent(mapping, sources.entries)
    if problems:
        raise DatasetError(problems)
    return sources


def merge(
    sources: Sources,
    out: str | Path,
    *,
    copy: bool = False,
    workers: int = 0,
    step: Callable[[str], None] = lambda name: None,
) -> MergeReport:
    """Write the folder `out` (labels.csv, merge.json, and the films as links, or copies) and say what was done.

    `workers` films are read at once, one per core where 0; `step` is told the name of each. Raises DatasetError when
    `out` holds something already, when duplicates join folds that sources keep, or when a fold would lack a label.
    """
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DatasetError([f"{folder} is there already; name a new folder, or an empty one"])
    mapping, entries = sources.mapping, sources.films
    films, refusals = thumbnails([entry.path for entry in entries], workers=workers or os.cpu_count() or 1, step=step)
    sound = [number for number in range(len(entries)) if number not in refusals]
    readable = [entries[number] for number in sound]
    refusals = {number: why for number, why in refusals.items() if not entries[number].left_out}
    pairs = find_duplicates(films[sound])
    settled, people = settle(mapping.duplicates, readable, pairs), people_of(readable, pairs)
    if problems := _split(readable, dict(zip([entry.patient for entry in readable], people.tolist(), strict=True))):
        raise DatasetError(problems)
    folds = _folds(mapping, readable, people, settled)
    counts = _counts(mapping, list(settled.kept.values()), folds)
    if problems := _lacking(mapping, counts):
        raise DatasetError(problems)
    report = MergeReport(
        str(folder),
        len(settled.kept),
        len({entry.patient for entry in settled.kept.values()}),
        len({int(people[number]) for number in settled.kept}),
        counts,
        tuple(
            _source_report(source, mapping, settled, [entries[number] for number in refusals])
            for source in sources.given
        ),
        tuple(settled.duplicates),
        tuple(settled.conflicts),
        tuple(Refused(entries[number].told, why.reason.value, why.detail) for number, why in refusals.items()),
        tuple(_notes(mapping, counts)),
    )
    _write(folder, mapping, list(settled.kept.values()), folds, report, copy=copy)
    return report


def _split(entries: Sequence[Entry], person: dict[str, object]) -> list[str]:
    """A problem for each person whose films are in several folds that sources keep."""
    first: dict[object, Entry] = {}
    problems: dict[object, str] = {}
    for entry in entries:
        if entry.fold is None:
            continue
        earlier = first.setdefault(person[entry.patient], entry)
        if earlier.fold != entry.fold:
            one, other = (f"{item.patient!r} in fold {item.fold} ({item.where})" for item in (earlier, entry))
            text = f"patient {one} is {other} too: they share a film, or nearly a name in one cohort"
            problems.setdefault(person[entry.patient], f"{text}; let one of the sources not keep its folds")
    return list(problems.values())


def _absent(mapping: Mapping, entries: Sequence[Entry]) -> list[str]:
    """A problem for each merged label that no source gives."""
    there = Counter(entry.label for entry in entries)
    return [
        f"no film of any source is {label!r}; map a label to it, or take it out of `labels`"
        for label in mapping.labels
        if not there[label]
    ]


def _folds(mapping: Mapping, entries: Sequence[Entry], people: NDArray[np.intp], settled: Settled) -> list[int]:
    """The fold of each film that is kept: that of the person, where a source keeps theirs."""
    own = {int(person): entry.fold for entry, person in zip(entries, people, strict=True) if entry.fold is not None}
    numbers = list(settled.kept)
    _, groups = np.unique(people[numbers], return_inverse=True)
    kept = np.array([own.get(int(people[number]), -1) for number in numbers], np.intp)
    classes = np.array([_classes(mapping, entry) for entry in settled.kept.values()], bool)
    given = assign_folds(groups, classes.reshape(len(numbers), -1), kept, mapping.folds, mapping.seed)
    return [int(fold) for fold in given]


def _classes(mapping: Mapping, entry: Entry) -> list[bool]:
    return [entry.label == label for label in mapping.labels] + [entry.columns[name] == "1" for name in mapping.columns]


def _counts(mapping: Mapping, entries: Sequence[Entry], folds: Sequence[int]) -> dict[str, list[int]]:
    """Films of each label, and of each column's 1, by fold; and all of them."""
    found = {name: [0] * mapping.folds for name in (*mapping.labels, *mapping.columns, "films")}
    for entry, fold in zip(entries, folds, strict=True):
        for name, holds in zip((*mapping.labels, *mapping.columns), _classes(mapping, entry), strict=True):
            found[name][fold] += holds
        found["films"][fold] += 1
    return found


def _lacking(mapping: Mapping, counts: dict[str, list[int]]) -> list[str]:
    """A problem for each label that a fold lacks."""
    return [
        f"fold {fold} would have no film of {label!r} ({sum(counts[label])} in all, by fold {counts[label]}); "
        "choose fewer `folds` or another `seed`, or take the label out of the mapping"
        for label in mapping.labels
        for fold, count in enumerate(counts[label])
        if not count
    ]


def _notes(mapping: Mapping, counts: dict[str, list[int]]) -> list[str]:
    notes = [
        f"source {source.name!r} does not say whose films are whose: every film counts as a patient of its own"
        for source in mapping.sources
        if source.layout != "table" and source.patient == EACH_FILM
    ]
    rare = [name for name in mapping.columns if min(counts[name]) == 0]
    return notes + ([f"some fold has no film with {', '.join(rare)}"] if rare else [])


def _source_report(source: Contribution, mapping: Mapping, settled: Settled, refused: Sequence[Entry]) -> SourceReport:
    name = source.source
    own = [entry for entry in settled.kept.values() if entry.source == name]
    labels = {label: sum(entry.label == label for entry in own) for label in mapping.labels}
    labels |= {column: sum(entry.columns[column] == "1" for entry in own) for column in mapping.columns}
    return SourceReport(
        name,
        len(source.entries) + source.left_out.total(),
        dict(source.left_out),
        sum(entry.source == name for entry in refused),
        settled.dropped[name],
        settled.disputed[name],
        len(own),
        {label: count for label, count in labels.items() if count},
    )


def _write(
    folder: Path, mapping: Mapping, entries: Sequence[Entry], folds: Sequence[int], report: MergeReport, *, copy: bool
) -> None:
    """The whole folder or none of it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        rows = [_place(made, entry, fold, copy=copy) for entry, fold in zip(entries, folds, strict=True)]
        with open(made / "labels.csv", "w", newline="", encoding="utf-8") as file:
            names = ["file", "patient", "fold", *(["label"] if mapping.labels else []), *mapping.columns, "source"]
            writer = csv.DictWriter(file, names, lineterminator="\n", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        (made / "merge.json").write_text(json.dumps(report.to_json(), indent=1, ensure_ascii=False), encoding="utf-8")
        made.chmod(0o755)
        if folder.exists():
            folder.rmdir()
        made.rename(folder)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


def _place(made: Path, entry: Entry, fold: int, *, copy: bool) -> dict[str, str]:
    """Put the film below the folder, and return its row."""
    name = f"{FILMS}/{entry.source}/{entry.below}"
    target = made / name
    target.parent.mkdir(parents=True, exist_ok=True)
    if copy:
        shutil.copyfile(entry.path, target)
    else:
        target.symlink_to(os.path.abspath(entry.path))
    told = {"file": name, "patient": entry.patient, "fold": str(fold), "label": entry.label, "source": entry.source}
    return told | entry.columns
