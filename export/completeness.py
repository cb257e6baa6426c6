"""Whether the folds of a recipe hold films of every class, and enough, asked before anything is trained."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecxr.dataset import Dataset, HeadColumns
from edgecxr.errors import DatasetError
from edgecxr.export.recipe import Recipe
from edgecxr.export.teacher_plans import Pretrain
from edgecxr.refusal import FEWEST

__all__ = ["check_completeness"]


def check_completeness(dataset: Dataset, recipe: Recipe) -> None:
    """Raise DatasetError with a sentence for each class that no film shows where it is learned, weighed or judged.

    A softmax class needs a film; a sigmoid class one that has it and one that has not. The heads of `pretrain` need
    them in its own training folds, and in the validation folds what tells one epoch from another: two kinds of films of
    at least one class, or any label where the loss is the metric. The refusal gate wants a number of films.
    """
    folds, table = recipe.data.folds, recipe.data.labels
    problems = [
        problem
        for item in recipe.heads
        for purpose in ("train", "validate", "test")
        for problem in _lacking(dataset, item, folds.of(purpose), (purpose, dataset.folder / table))
    ]
    for purpose in ("train", "validate"):
        problems += _too_few(dataset, folds.of(purpose), (purpose, dataset.folder / table))
    if recipe.pretrain:
        numbers = recipe.pretrain.folds or folds.train
        for item in recipe.pretrain.heads:
            problems += _lacking(dataset, item, numbers, ("pretrain", dataset.folder / table))
        problems += _unjudged(dataset, recipe.pretrain, folds.of("validate"), dataset.folder / table)
    if problems:
        raise DatasetError(list(dict.fromkeys(problems)))


def _too_few(dataset: Dataset, numbers: tuple[int, ...], wanted: tuple[str, Path]) -> Iterator[str]:
    """One sentence when the refusal gate could not be fitted to the films, labelled or not, of these folds."""
    purpose, table = wanted
    count = sum(film.fold in numbers for film in dataset.films)
    if count < FEWEST:
        yield (
            f"{table}: {count} films in {_named(numbers)}, for {purpose}; the refusal gate wants {FEWEST} or more: add "
            "films, or change data.folds"
        )


def _unjudged(dataset: Dataset, plan: Pretrain, numbers: tuple[int, ...], table: Path) -> Iterator[str]:
    """One sentence when nothing in the validation folds tells one epoch of `plan` from another."""
    folds = np.array([film.fold for film in dataset.films])
    there, elsewhere = np.isin(folds, numbers), set[int]()
    needed = 2 if plan.training.metric == "auroc" else 1
    for item in plan.heads:
        kinds = [shown for _, shown in _kinds(dataset, item)]
        wanted = [kinds] if item.head.kind == "softmax" else list(zip(kinds[::2], kinds[1::2], strict=True))
        for group in wanted:
            if sum(bool(shown[there].any()) for shown in group) >= needed:
                return
            elsewhere |= {int(fold) for shown in group for fold in folds[shown]}
    others = ", ".join(map(str, sorted(elsewhere - set(numbers))))
    hint = f"films with such labels are in fold {others}: change data.folds" if others else "label some"
    names = ", ".join(repr(item.head.name) for item in plan.heads)
    yield (
        f"{table}: no class of pretrain (head {names}) has films of {'both kinds' if needed == 2 else 'any kind'} in "
        f"{_named(numbers)}, which choose its best epoch; {hint}, or leave pretrain out"
    )


def _lacking(dataset: Dataset, item: HeadColumns, numbers: tuple[int, ...], wanted: tuple[str, Path]) -> Iterator[str]:
    """`wanted` is for what the folds are, and the table of films."""
    purpose, table = wanted
    folds = np.array([film.fold for film in dataset.films])
    for kind, shown in _kinds(dataset, item):
        if shown[np.isin(folds, numbers)].any():
            continue
        others = ", ".join(map(str, sorted(set(folds[shown].tolist()))))
        hint = f"such films are in fold {others}: change data.folds" if others else "no fold has one: add some"
        yield (
            f"{table}: no film {kind} (head {item.head.name!r}) in {_named(numbers)}, for {purpose}; "
            f"{hint}, or take the class out of the head"
        )


def _kinds(dataset: Dataset, item: HeadColumns) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """What must occur, in words, and which films show it."""
    targets = dataset.targets(item)
    for index, name in enumerate(item.head.classes):
        if item.head.kind == "softmax":
            yield f"of {name!r}", targets == index
        else:
            yield f"with {name!r}", targets[:, index] == 1
            yield f"without {name!r}", targets[:, index] == 0


def _named(numbers: tuple[int, ...]) -> str:
    return f"fold {numbers[0]}" if len(numbers) == 1 else f"folds {', '.join(map(str, numbers))}"
