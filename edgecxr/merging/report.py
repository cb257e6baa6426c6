"""What a merge did, in words and as JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Conflict", "Duplicate", "MergeReport", "Refused", "SourceReport"]

SHOWN = 20  # duplicates, conflicts and refusals that the text lists; the JSON has all


@dataclass(frozen=True)
class SourceReport:
    """What became of one source's films: `found` is the sum of the others and of those that are refused."""

    name: str
    found: int
    left_out: dict[str, int]  # by reason, labels and rows
    refused: int
    duplicates: int  # dropped, because the film is there from an earlier place
    conflicts: int  # left out, because duplicates are labelled differently
    kept: int
    labels: dict[str, int]  # of the films that are kept, and columns with 1


@dataclass(frozen=True)
class Duplicate:
    """One film that is there more than once; each as ``<source>: <path>``, the one that counts first."""

    films: tuple[str, ...]
    hamming: int  # the largest of its pairs
    correlation: float  # the smallest of its pairs
    patients: tuple[str, ...]  # who it is of: more than one name is one person


@dataclass(frozen=True)
class Conflict:
    """Duplicates that are labelled differently, or that one source labels and another leaves out."""

    films: tuple[str, ...]
    labels: tuple[str, ...]
    kept: bool  # whether the first one's labels hold (one that is left out is never first); else no film is kept


@dataclass(frozen=True)
class Refused:
    """One file that is not a film that can be read."""

    film: str
    reason: str
    detail: str


@dataclass(frozen=True)
class MergeReport:
    """Everything that a merge decided."""

    folder: str
    films: int
    patients: int
    people: int  # groups of patients that share films: the units of folds
    folds: Mapping[str, list[int]]  # films of each label (and each column's 1) in each fold
    sources: tuple[SourceReport, ...]
    duplicates: tuple[Duplicate, ...]
    conflicts: tuple[Conflict, ...]
    refused: tuple[Refused, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The report as JSON."""
        return asdict(self)

    def text(self) -> str:
        """The report for a person."""
        joined = f", who are {self.people} people by the films they share" if self.people != self.patients else ""
        lines = [f"{self.folder}: {self.films} films of {self.patients} patients{joined}"]
        lines += [line for source in self.sources for line in _source_lines(source)]
        width = max(map(len, self.folds))
        lines.append(f"{'fold':>{width}}  " + " ".join(f"{fold:>6}" for fold in range(len(self.folds["films"]))))
        for name, counts in self.folds.items():
            lines.append(f"{name:>{width}}  " + " ".join(f"{count:>6}" for count in counts))
        told = {
            "film(s) are there more than once": [" = ".join(item.films) for item in self.duplicates],
            "of them are labelled differently": [
                f"{' = '.join(item.films)}: {', '.join(item.labels)}; {'the first holds' if item.kept else 'left out'}"
                for item in self.conflicts
            ],
            "file(s) refused": [f"{item.film}: {item.reason}: {item.detail}" for item in self.refused],
        }
        for what, items in told.items():
            lines += [f"{len(items)} {what}", *(f"  {item}" for item in items[:SHOWN])] if items else []
            lines += [f"  … and {len(items) - SHOWN} more in merge.json"] if len(items) > SHOWN else []
        return "\n".join([*lines, *(f"note: {text}" for text in self.notes)])


def _source_lines(source: SourceReport) -> list[str]:
    labels = ", ".join(f"{name} {count}" for name, count in source.labels.items())
    lines = [f"{source.name}: {source.kept} of {source.found} films ({labels})"]
    gone = {**source.left_out, "duplicates": source.duplicates, "labels in conflict": source.conflicts}
    lines += [f"  {count} left out: {reason}" for reason, count in {**gone, "refused": source.refused}.items() if count]
    return lines
