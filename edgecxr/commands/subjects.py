"""Opening what is to be explained: a bundle, the folder of a trained teacher, or a foreign teacher of a recipe."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecxr.commands.choices import check_choices, misuse
from edgecxr.commands.terminal import require_train
from edgecxr.errors import StageError
from edgecxr.spec import ReadingSpec
from edgecxr.teachers.names import RECIPES, RECORD
from edgecxr.teachers.subject import Subject

if TYPE_CHECKING:
    from edgecxr.export.recipe import Recipe
    from edgecxr.runtimes.engine import Engine
    from edgecxr.teachers.foreign import ForeignTeacher
    from edgecxr.teachers.teacher import Teacher

__all__ = ["open_foreign", "open_subject"]

WANTED = f"give a bundle (.cxr), the folder of a trained teacher (with {RECORD}), or a recipe and --teacher NAME"


@contextmanager
def open_subject(path: Path, teacher: str | None, engine: str, precision: str) -> Iterator[Subject]:
    """The subject in `path`. Ends with one sentence when there is none, or it does not say what it is."""
    if not path.exists():
        misuse(f"there is no {path}; {WANTED}")
    if teacher is not None and path.suffix not in RECIPES:
        misuse(f"--teacher {teacher} chooses from a recipe, and {path} is none")
    if path.suffix == ".cxr":
        with _bundle(path, engine, precision) as subject:
            yield subject
        return
    if (engine, precision) != ("auto", "auto"):
        misuse("--engine and --precision are for bundles; a teacher runs in PyTorch")
    require_train()
    yield _from_recipe(path, teacher) if path.suffix in RECIPES else _from_folder(path)


@contextmanager
def _bundle(path: Path, engine: str, precision: str) -> Iterator[Subject]:
    from edgecxr.bundle import Bundle
    from edgecxr.runtimes.registry import open_engine

    bundle = Bundle.open(path)
    check_choices(bundle, engine, precision)
    with open_engine(bundle, engine, precision, point=None) as running:
        spec, gate = bundle.spec, bundle.gate(running.precision)
        points = [p for p in spec.operating_points if (p.precision, p.engine) == (running.precision, running.family)]
        default = next((point.name for point in spec.operating_points), None)  # the one that screening decides by
        first = [(point.finding, point.threshold) for point in points if point.name == default]

        def admit(image: Any) -> None:
            gate.check(running.infer(_typed(running, image)).embedding[0])

        yield Subject(
            f"the bundle {path.name} ({running.precision} on {running.family})",
            bundle.digest,
            spec.heads,
            spec.preprocess,
            spec.temperatures[running.precision],
            lambda images: np.concatenate([running.infer(_typed(running, film[None])).logits for film in images]),
            lambda image: running.infer(_typed(running, image)).cam[0],
            thresholds=tuple(first),
            reduced_for=spec.reduced_for,
            admit=admit,  # a film that is not screened is not explained either
        )


def _typed(engine: "Engine", images: Any) -> Any:
    return np.ascontiguousarray(images, engine.spec.preprocess.dtype)


def _from_folder(path: Path) -> Subject:
    from edgecxr.teachers.teacher import open_member

    folder = path if path.is_dir() else path.parent
    if not (folder / RECORD).is_file():
        misuse(f"{path} has no {RECORD} beside it that says what it is; {WANTED}")
    opened = open_member(folder)
    return _of_teacher(opened, opened.member.weights_sha256, opened.member.reading)


def _from_recipe(path: Path, name: str | None) -> Subject:
    opened, digest, recipe = open_foreign(path, name)
    return _of_teacher(opened, digest, recipe.reading)


def open_foreign(path: Path, name: str | None) -> "tuple[ForeignTeacher, str, Recipe]":
    """The teacher `name` that the recipe in `path` brings from elsewhere, the digest of its files, and the recipe."""
    from edgecxr.export.members import file_digests
    from edgecxr.export.recipe import load_recipe
    from edgecxr.teachers.foreign import Source, load_foreign

    recipe = load_recipe(path)
    foreign = {member.name: member for member in recipe.teachers if isinstance(member, Source)}
    if name not in foreign:
        trained = [member.name for member in recipe.teachers if member.name not in foreign]
        told = f"it brings {', '.join(foreign) or 'none'}"
        more = f"; {', '.join(trained)}: give the folder in which the build trained it" if trained else ""
        misuse(f"--teacher says which teacher that {path} brings from elsewhere is meant, got {name!r}; {told}{more}")
    member = foreign[name]
    digests = sorted(file_digests(member, path.parent).items())
    opened = load_foreign(member, recipe.model_heads, base=path.parent)
    return opened, hashlib.sha256(repr(digests).encode()).hexdigest(), recipe


def _of_teacher(teacher: "Teacher", digest: str, reading: ReadingSpec) -> Subject:
    if not digest:
        raise StageError(f"teacher {teacher.name!r} has no digest of its weights; train it again")
    heads = teacher.heads
    return Subject(
        f"the teacher {teacher.name}",
        digest,
        heads,
        teacher.preprocess,
        (1.0,) * len(heads),
        teacher.logits,
        teacher=teacher,
        reduced_for=reading.reduced_for(teacher.preprocess),
    )
