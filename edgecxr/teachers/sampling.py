"""Which training films an epoch goes over: at most so many of a class, and copies of the films of a class.

Copies are made as an offline augmentation makes them (Wang, Liu & Xu, ICEIEC 2020, who have 17 of every COVID-19 film):
once, before training, so each epoch shows the same ones. Every copy is changed by the settings that change all other
films, and by nothing else afterwards, so that having been changed does not tell the class. Only training films come
here, so a copy is in the fold of its film and never validates or tests anything.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from edgecxr.errors import StageError
from edgecxr.spec import Head, class_names
from edgecxr.teachers.augment import AugmentSettings, augment
from edgecxr.teachers.samples import Samples

__all__ = ["Copies", "FilmsPerClass", "sampled", "sampling_problem"]

Copies = dict[str, Annotated[int, Field(ge=2, le=100)]]  # class to how often each of its films is shown
FilmsPerClass = Annotated[int, Field(ge=2)] | Literal["rarest"] | None  # "rarest": as many as the rarest class has


def sampling_problem(copies: Copies, films_per_class: FilmsPerClass, heads: Sequence[Head]) -> str | None:
    """Why these settings do not fit the heads, in words; None where they do."""
    classes = class_names(heads)
    strange = sorted(set(copies) - set(classes))
    if strange:
        return f"copies names {', '.join(strange)}; the classes are {', '.join(classes)}"
    exclusive = [head.name for head in heads if head.kind == "softmax"]
    if films_per_class is not None and len(exclusive) != 1:
        return f"films_per_class needs one softmax head to count by; there are {len(exclusive)}"
    return None


def sampled(
    samples: Samples,
    heads: Sequence[Head],
    drawn: tuple[Copies, FilmsPerClass],
    settings: AugmentSettings,
) -> Samples:
    """The films of every epoch: `drawn` is how many copies, then how many films of a class.

    No seed enters: networks that are compared are shown the same films and the same copies, and more films of a class
    include fewer. Films without a label of the softmax head are all left in. Raises StageError where `drawn` does not
    fit the heads.
    """
    copies, films_per_class = drawn
    problem = sampling_problem(copies, films_per_class, heads)
    if problem:
        raise StageError(problem)
    if films_per_class is not None:
        head = next(head for head in heads if head.kind == "softmax")
        samples = _taken(samples, _limited(samples.targets[head.name], len(head.classes), films_per_class))
    return _copied(samples, _times(samples, heads, copies), settings) if copies else samples


def _taken(samples: Samples, rows: NDArray[np.intp]) -> Samples:
    return Samples(samples.images[rows], {name: value[rows] for name, value in samples.targets.items()})


def _limited(labels: NDArray[np.int64], classes: int, most: int | Literal["rarest"]) -> NDArray[np.intp]:
    """Rows in order: the unlabelled ones, and of each class the first `most` of one random order."""
    order = np.random.default_rng(0).permutation(len(labels))
    counts = np.bincount(labels[labels >= 0], minlength=classes)
    limit = int(counts.min()) if most == "rarest" else most
    kept = [order[labels[order] == index][:limit] for index in range(classes)]
    return np.sort(np.concatenate([np.flatnonzero(labels < 0), *kept]))


def _times(samples: Samples, heads: Sequence[Head], copies: Mapping[str, int]) -> NDArray[np.intp]:
    """(N,) how often each film is shown: 1, or the largest number of its classes."""
    times = np.ones(len(samples), dtype=np.intp)
    for head in heads:
        targets = samples.targets[head.name]
        for index, name in enumerate(head.classes):
            shown = targets == index if head.kind == "softmax" else targets[:, index] == 1
            times = np.where(shown, np.maximum(times, copies.get(name, 1)), times)
    return times


def _copied(samples: Samples, times: NDArray[np.intp], settings: AugmentSettings) -> Samples:
    """The films that are shown once, then the copies of the others, each changed by values of its own."""
    once, often = np.flatnonzero(times == 1), np.flatnonzero(times > 1)
    rows = np.concatenate([once, np.repeat(often, times[often])])
    copies = [_variants(samples.images[row], int(times[row]), settings, int(row)) for row in often]
    images = np.concatenate([np.asarray(samples.images[once]), *copies])
    targets = {name: value[rows] for name, value in samples.targets.items()}
    return Samples(images, targets, np.arange(len(rows)) >= len(once))


def _variants(film: NDArray[np.floating], count: int, settings: AugmentSettings, seed: int) -> NDArray[np.floating]:
    """(count, 1, S, S) changed copies of one film (1, S, S), of its type; the same for the same seed."""
    images = torch.from_numpy(np.asarray(film, dtype=np.float32)).expand(count, -1, -1, -1)
    changed: NDArray[np.floating] = augment(images, settings, torch.Generator().manual_seed(seed)).numpy()
    return changed.astype(film.dtype)
