"""Labelled films for `edgecxr evaluate` and `calibrate`: which folds, what the model has seen of them, its answers."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import typer

from edgecxr.commands.evaluated import Answer, Evaluated, Running
from edgecxr.commands.terminal import note, progress
from edgecxr.errors import DatasetError, Refusal

if TYPE_CHECKING:
    from edgecxr.dataset import Dataset, Film, HeadColumns

__all__ = ["Asked", "ask_films", "fold_numbers", "labelled", "taught_folds", "test_folds", "warnings_of_seen"]


class Asked(NamedTuple):
    """One film: the answer of each model, and the film's target for each head."""

    answers: list[Answer]
    targets: dict[str, Any]


def fold_numbers(folds: str) -> list[int]:
    """``"3,4"`` as numbers, none of an empty text. Ends as misuse of --folds."""
    if not folds:
        return []
    parts = folds.split(",")
    if not all(re.fullmatch(r"\s*[0-9]{1,9}\s*", part) for part in parts):
        raise typer.BadParameter(f"{folds!r} is not a list of folds such as 4 or 3,4", param_hint="--folds")
    return [int(part) for part in parts]


def test_folds(model: Evaluated, dataset: "Dataset") -> list[int]:
    """The folds to take when none is named: those that the build kept for testing; none for other data: all."""
    if not _is_built_on(model, dataset):
        return []
    test = list(model.folds.get("test", ()))
    if test:
        note(
            f"the {model.kind} was built on this data: evaluating on fold {_listed(test)}, which its recipe kept for "
            "testing"
        )
    return test


def warnings_of_seen(model: Evaluated, dataset: "Dataset", wanted: list[int], harm: str) -> list[str]:
    """Folds of `wanted` (none: all) whose films the build has learned from, and the harm of it; or that none can tell.

    A model holds the digest of its data and no list of films, so one changed cell makes other data of the same films.
    """
    built = {purpose: list(folds) for purpose, folds in model.folds.items()}
    if not built or not _is_built_on(model, dataset):
        folds = "; ".join(f"{purpose} {_listed(numbers)}" for purpose, numbers in built.items())
        told = f"the folds of the data that it was built on were: {folds}" if folds else "it does not name its folds"
        return [
            f"cannot tell whether these films taught the {model.kind}: no list of films travels in it, and its build "
            f"is not known to be of exactly this data; {told}. On films that taught it, {harm}"
        ]
    used = set(wanted) or {film.fold for film in dataset.films}
    seen = {purpose: sorted(used & set(built[purpose])) for purpose in ("train", "validate")}
    return [
        f"fold {_listed(folds)} served to {purpose} this {model.kind}; {harm}"
        for purpose, folds in seen.items()
        if folds
    ]


def taught_folds(model: Evaluated, dataset: "Dataset", wanted: list[int]) -> str:
    """Folds of `wanted` (none: all) that the model is known to have been trained on, as a list; empty where none is."""
    used = set(wanted) or {film.fold for film in dataset.films}
    return _listed(sorted(used & set(model.folds.get("train", ())))) if _is_built_on(model, dataset) else ""


def _is_built_on(model: Evaluated, dataset: "Dataset") -> bool:
    """Whether this is exactly the data of the model's build: every film, every row."""
    return bool(model.data_digest) and model.data_digest == dataset.digest


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def labelled(dataset: "Dataset", heads: tuple["HeadColumns", ...]) -> list[tuple["Film", dict[str, Any]]]:
    """Films with at least one label, each with its target per head."""
    targets = {item.head.name: dataset.targets(item) for item in heads}
    rows = []
    for index, film in enumerate(dataset.films):
        own = {name: values[index] for name, values in targets.items()}
        if any(
            bool(np.all(value >= 0)) if np.ndim(value) == 0 else not np.isnan(value).all() for value in own.values()
        ):
            rows.append((film, own))
    if not rows:
        raise DatasetError([f"no film of {dataset.folder} has a label of the model's heads"])
    return rows


def ask_films(
    runnings: Sequence[Running], rows: list[tuple["Film", dict[str, Any]]], *, quiet: bool
) -> tuple[list[Asked], list[dict[str, str]]]:
    """What each model says of the films that could be read, and the others with their reasons; each is read once.

    The models read films alike: they are one bundle on several engines, or there is only one.
    """
    from edgecxr.read import read_radiograph

    asked, refused = [], []
    with progress("asking", len(rows), quiet=quiet) as step:
        for film, targets in rows:
            try:
                radiograph = read_radiograph(film.path, reduced_for=runnings[0].reduced_for)
                asked.append(Asked([running.ask(radiograph) for running in runnings], targets))
            except Refusal as error:
                refused.append({"file": str(film.path), "reason": error.reason.value, "detail": error.detail})
                note(f"{film.path}: {error}")
            step(film.path.name)
    if not asked:
        raise DatasetError([f"{row['file']}: {row['reason']}: {row['detail']}" for row in refused])
    return asked, refused
