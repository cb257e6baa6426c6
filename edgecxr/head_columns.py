"""Where the labels of a head stand in a table of films, and what its cells may say."""

import difflib
from collections.abc import Iterator
from typing import ClassVar

from pydantic import model_validator

from edgecxr.sparse import Sparse
from edgecxr.spec import Head

__all__ = ["HeadColumns", "Row"]

KNOWN = {"0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0}  # what a sigmoid cell may say; empty is unknown
UNKNOWN = float("nan")

Row = dict[str, str]


class HeadColumns(Sparse):
    """Where the labels of a head stand in labels.csv."""

    later: ClassVar[frozenset[str]] = frozenset({"values", "otherwise"})

    head: Head
    column: str | None = (
        None  # softmax: the column that names the class, "label" unless given; an empty cell: unlabelled
    )
    columns: dict[str, str] | None = None  # sigmoid: class to column, for columns that are not named like their class
    values: dict[str, str] | None = None  # softmax: what a cell says to class, for cells that do not name their class
    otherwise: str | None = None  # sigmoid: the class without a column; it holds where every other is known to be 0

    @model_validator(mode="after")
    def _check(self) -> "HeadColumns":
        name, classes = self.head.name, ", ".join(self.head.classes)
        if self.head.kind == "sigmoid" and (self.column is not None or self.values is not None):
            key = "column" if self.column is not None else "values"
            raise ValueError(f"head {name!r} is sigmoid: give `columns` (class: column), not `{key}`")
        if self.head.kind == "softmax" and (self.columns is not None or self.otherwise is not None):
            key = "columns" if self.columns is not None else "otherwise"
            raise ValueError(f"head {name!r} is softmax: give `column`, not `{key}`")
        for key, named in (("columns", self.columns or ()), ("values", (self.values or {}).values())):
            strange = sorted(set(named) - set(self.head.classes))
            if strange:
                raise ValueError(f"`{key}` of head {name!r} names {', '.join(strange)}, not one of its classes")
        if self.otherwise is not None and (len(self.head.classes) < 2 or self.otherwise not in self.head.classes):
            raise ValueError(f"`otherwise` of head {name!r} is {self.otherwise!r}; wanted one of several: {classes}")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that this head reads: one for softmax, one for each class but `otherwise` for sigmoid."""
        if self.head.kind == "softmax":
            return (self.column or "label",)
        return tuple((self.columns or {}).get(name, name) for name in self.head.classes if name != self.otherwise)

    def label(self, row: Row) -> str:
        """The class that the row's cell means, softmax only; empty where the film is not labelled."""
        cell = row[self.names[0]]
        return (self.values or {}).get(cell, cell)

    def marks(self, row: Row) -> list[float]:
        """1, 0 or NaN (unknown) for each class, sigmoid only."""
        cells = [KNOWN.get(row[name], UNKNOWN) for name in self.names]
        if self.otherwise is None:
            return cells
        rest = 0.0 if 1.0 in cells else 1.0 - sum(cells)  # NaN where one of them is unknown
        place = self.head.classes.index(self.otherwise)
        return [*cells[:place], rest, *cells[place:]]

    def problems(self, row: Row) -> Iterator[str]:
        """What is wrong with this row's labels for this head, and the nearest that would be right."""
        for column in self.names:
            value = row[column]
            if value == "" or value in (self._cells if self.head.kind == "softmax" else KNOWN):
                continue
            if self.head.kind == "sigmoid":
                yield f"{column} is {value!r}; write 1, 0, or nothing where it is unknown"
                continue
            near = difflib.get_close_matches(value.strip().lower(), self._cells, 1, 0.6)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            yield f"{column} {value!r} is not one of {', '.join(self._cells)}{hint}"

    @property
    def _cells(self) -> tuple[str, ...]:
        """What a cell of a softmax head may say."""
        return tuple(dict.fromkeys([*self.head.classes, *(self.values or {})]))
