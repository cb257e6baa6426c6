"""Films that are one: which of them is kept, with what labels, and who they are of."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from edgecxr.dataset import alike
from edgecxr.merging.duplicates import Pair
from edgecxr.merging.folds import joined
from edgecxr.merging.mapping import Duplicates
from edgecxr.merging.report import Conflict, Duplicate
from edgecxr.merging.sources import Entry

__all__ = ["Settled", "people_of", "settle"]


@dataclass
class Settled:
    """What was decided of every film; `kept` has the films that stay, by their number among all."""

    kept: dict[int, Entry] = field(default_factory=dict)
    duplicates: list[Duplicate] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)  # films by source: there from an earlier place
    disputed: Counter[str] = field(default_factory=Counter)  # films by source: labelled differently elsewhere


def settle(rules: Duplicates, entries: Sequence[Entry], pairs: Sequence[Pair]) -> Settled:
    """Keep one film of each cluster of duplicates, or all; what one of them knows, those that are kept know.

    Films that are left out come last among `entries`, and are not kept: they only tell that the others are one.
    """
    clusters = joined(len(entries), [(pair.first, pair.second) for pair in pairs])
    members: dict[int, dict[int, Entry]] = {}
    measured: dict[int, list[Pair]] = {}
    for number, entry in enumerate(entries):
        members.setdefault(int(clusters[number]), {})[number] = entry
    for pair in pairs:
        measured.setdefault(int(clusters[pair.first]), []).append(pair)
    found = Settled()
    for cluster, films in members.items():
        if cluster in measured:
            found.duplicates.append(_duplicate(list(films.values()), measured[cluster]))
        _settle_one(rules, films, found)
    found.kept = dict(sorted(found.kept.items()))
    return found


def people_of(entries: Sequence[Entry], pairs: Sequence[Pair]) -> NDArray[np.intp]:
    """(N,) the number of the person that each film is of: patients who share a film are one person.

    So are those who may be one by their names, which a data folder wants in one fold.
    """
    told = [alike(entry.patient) for entry in entries]
    names = {name: number for number, name in enumerate(dict.fromkeys(told))}
    patients = np.array([names[name] for name in told], np.intp)
    return joined(len(names), [(int(patients[pair.first]), int(patients[pair.second])) for pair in pairs])[patients]


def _settle_one(rules: Duplicates, films: dict[int, Entry], found: Settled) -> None:
    """Decide on the films of one cluster, most often a single one."""
    coming = {number: entry for number, entry in films.items() if not entry.left_out}
    if not coming:
        return
    agreed = all(one.agrees(another) for one in coming.values() for another in coming.values())
    holds = agreed or rules.conflicts == "first"
    if not agreed or any(entry.left_out and entry.label for entry in films.values()):
        labels = tuple(dict.fromkeys(entry.told_labels for entry in films.values()))
        found.conflicts.append(Conflict(tuple(entry.told for entry in films.values()), labels, holds))
    if not holds:
        found.disputed.update(entry.source for entry in coming.values())
        return
    known = _together(list(coming.values())) if agreed else next(iter(coming.values()))
    for place, (number, entry) in enumerate(coming.items()):
        if place == 0 or rules.keep == "all":
            found.kept[number] = replace(entry, label=known.label, columns=known.columns)
        else:
            found.dropped[entry.source] += 1


def _together(entries: Sequence[Entry]) -> Entry:
    """The first entry, with all that is known of any."""
    label = next((entry.label for entry in entries if entry.label), "")
    columns = {
        name: next((entry.columns[name] for entry in entries if entry.columns[name]), "") for name in entries[0].columns
    }
    return replace(entries[0], label=label, columns=columns)


def _duplicate(entries: Sequence[Entry], pairs: Sequence[Pair]) -> Duplicate:
    return Duplicate(
        tuple(entry.told for entry in entries),
        max(pair.hamming for pair in pairs),
        round(min(pair.correlation for pair in pairs), 3),
        tuple(dict.fromkeys(entry.patient for entry in entries)),
    )
