"""The mapping file of a merge: which data sets, how each is laid out, and what its labels are called afterwards."""

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgecxr.errors import RecipeError
from edgecxr.repeats import repeated
from edgecxr.settings import line_of, parse, read_settings

__all__ = ["EACH_FILM", "IGNORE", "LEAVE_OUT", "FolderSource", "Mapping", "PatternSource", "Source", "TableSource"]
__all__ += ["load_mapping"]

LEAVE_OUT = "leave out"  # a film with this label does not come along
IGNORE = "ignore"  # this label says nothing about the film
EACH_FILM = "each film"  # whose film it is is unknown: every film counts as a patient of its own
RESERVED = ("file", "patient", "fold", "label", "source")  # columns of the merged labels.csv

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,39}$", description="lower case, digits, '_', '.', '-'")]
Meaning = str | tuple[str, ...]


class Keyed(BaseModel):
    """Immutable, closed to unknown keys; numbers where a name is wanted (`0: normal`) are taken as written."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)


class Source(Keyed):
    """What every data set says, however it is laid out."""

    name: Name
    folder: str  # as seen from the mapping file
    labels: dict[str, Meaning] = {}  # its label: a merged label, columns, `leave out` or `ignore`
    keep_folds: bool = False
    cohort: Name | None = None  # sources of one cohort share patient identifiers; default: the source's name

    @property
    def people(self) -> str:
        """What its patients' identifiers begin with after the merge."""
        return self.cohort or self.name

    def meanings(self, label: str) -> tuple[str, ...]:
        """What one of its labels means, as a list."""
        meaning = self.labels[label]
        return (meaning,) if isinstance(meaning, str) else meaning


class TableSource(Source):
    """A CSV table, or one with tabs (`.tsv`, `.txt`), with a row for each film."""

    layout: Literal["table"]
    table: str  # below `folder`
    file: str  # the column that names the film
    patient: str  # the column of the patient
    label: str | None = None  # the column of the label or labels
    separator: str | None = None  # between several labels in one cell
    columns: dict[str, str] = {}  # merged column: column of the table with 1, 0 or nothing
    uncertain: Literal["unknown", "positive", "negative", "leave out"] | None = None  # what -1 in these columns means
    where: dict[str, tuple[str, ...]] = {}  # only rows with one of these values in this column
    fold: str = "fold"  # read where `keep_folds`
    below: str = ""  # the folder of the films below `folder`
    suffix: str = ""  # that file names lack
    anywhere: bool = False  # films lie in folders below `below`, and the table has their bare names

    @model_validator(mode="after")
    def _says_something(self) -> "TableSource":
        if self.label is None and not self.columns:
            raise ValueError(f"source {self.name!r} has neither `label` nor `columns`: nothing would be known of it")
        if self.label is not None and not self.labels:
            raise ValueError(f"source {self.name!r} has `label` but no `labels`: say what each of its labels means")
        return self


class FolderSource(Source):
    """A folder per class: the first folder below `folder` is the label."""

    layout: Literal["folders"]
    patient: str  # a regular expression on the path below `folder`, with one group; or `each film`

    @model_validator(mode="after")
    def _check(self) -> "FolderSource":
        if self.keep_folds:
            raise ValueError(f"source {self.name!r} has no folds to keep: only a table has")
        if self.patient != EACH_FILM and _expression(self.patient).groups != 1:
            raise ValueError(f"`patient` of {self.name!r}: write a regular expression with one group, or {EACH_FILM!r}")
        return self


class PatternSource(Source):
    """Names that tell all: a regular expression with the groups `label` and `patient`."""

    layout: Literal["pattern"]
    pattern: str  # on the path below `folder`, with slashes; files of another kind of path are left out
    patient: Literal["each film"] | None = None  # in place of the group `patient`

    @model_validator(mode="after")
    def _check(self) -> "PatternSource":
        if self.keep_folds:
            raise ValueError(f"source {self.name!r} has no folds to keep: only a table has")
        groups = set(_expression(self.pattern).groupindex)
        wanted = {"label"} if self.patient else {"label", "patient"}
        if not wanted <= groups:
            lacking = ", ".join(f"(?P<{name}>…)" for name in sorted(wanted - groups))
            raise ValueError(f"`pattern` of {self.name!r} lacks {lacking}, or `patient: {EACH_FILM}`")
        return self


def _expression(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is not a regular expression: {error}") from None


class Duplicates(Keyed):
    """What becomes of films that are there more than once."""

    keep: Literal["first", "all"] = "first"  # in the order of the sources
    conflicts: Literal["leave out", "first"] = "leave out"  # where duplicates are labelled differently


class Mapping(Keyed):
    """A whole mapping file."""

    labels: tuple[str, ...] = ()  # of the column `label`: a film has at most one
    columns: tuple[str, ...] = ()  # with 1, 0 or nothing: a film may have any of them
    folds: Annotated[int, Field(ge=2, le=100)] = 5
    seed: Annotated[int, Field(ge=0)] = 0
    duplicates: Duplicates = Duplicates()
    sources: Annotated[
        tuple[Annotated[TableSource | FolderSource | PatternSource, Field(discriminator="layout")], ...],
        Field(min_length=1),
    ]

    @model_validator(mode="after")
    def _check(self) -> "Mapping":
        names = [source.name for source in self.sources]
        for what, given in (("sources", names), ("labels and columns", [*self.labels, *self.columns])):
            if twice := repeated(given):
                raise ValueError(f"{what} name {twice[0]!r} twice")
        if not given:
            raise ValueError("neither `labels` nor `columns`: name the labels that films have after the merge")
        if taken := sorted(set(self.columns) & set(RESERVED)):
            raise ValueError(f"column {taken[0]!r} has another meaning in labels.csv; call it otherwise")
        if wrong := sorted({*self.labels, *self.columns} & {"", LEAVE_OUT, IGNORE}):
            raise ValueError(f"a label cannot be called {wrong[0]!r}: that word has a meaning of its own")
        return self


def load_mapping(path: str | Path) -> Mapping:
    """The mapping in a YAML file. Raises RecipeError with every mistake as ``<file>:<line>: …``."""
    mapping = read_settings(path, Mapping, RecipeError, "mapping")
    _, tree, _ = parse(Path(path).read_text(encoding="utf-8"), str(path))
    if wrong := [(line_of(tree, location), text) for location, text in _strangers(mapping)]:
        raise RecipeError("\n".join(f"{path}:{line}: {text}" for line, text in sorted(wrong)))
    return mapping


def _strangers(mapping: Mapping) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Merged names that the mapping uses and does not have: where, and a sentence with the choices."""
    for number, source in enumerate(mapping.sources):
        for label in source.labels:
            choices = (*mapping.labels, *mapping.columns, LEAVE_OUT, IGNORE)
            for name in source.meanings(label):
                if name not in choices:
                    yield ("sources", number, "labels", label), _unknown(source, f"label {label!r} as", name, choices)
        for column in source.columns if isinstance(source, TableSource) else ():
            if column not in mapping.columns:
                place = ("sources", number, "columns", column)
                yield place, _unknown(source, "column", column, mapping.columns)


def _unknown(source: Source, what: str, name: str, choices: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name, choices, 1, 0.6)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"source {source.name!r} has {what} {name!r}, which is not one of {', '.join(choices) or 'none'}{hint}"
