"""Every network of a recipe, built once before anything is trained: its name, its size, its ImageNet weights."""

from collections.abc import Iterator

from edgecxr.export.recipe import Recipe
from edgecxr.export.student import build_student
from edgecxr.export.teacher_plans import TrainedGroup, TrainedMember
from edgecxr.teachers.architecture import build

__all__ = ["check_networks"]


def check_networks(recipe: Recipe) -> None:
    """Build each architecture for films of its size, fetching the ImageNet weights that the recipe asks for.

    Raises StageError for a name that no library has, films that are too small, and weights that cannot be had.
    """
    for name, size, pretrained in sorted(set(_teachers(recipe)), key=str):
        build(name, 1, pretrained=pretrained, size=size)
    for name in recipe.student.names:
        build_student(name, 1, options=recipe.student.options, size=recipe.preprocess.size)


def _teachers(recipe: Recipe) -> Iterator[tuple[str, int, str | None]]:
    """Architecture, side of its films, and "imagenet" or None, of every network that is trained."""
    for teacher in recipe.teachers:
        if isinstance(teacher, TrainedMember | TrainedGroup):
            names = teacher.candidates if isinstance(teacher, TrainedGroup) else (teacher.architecture,)
            pretrained = "imagenet" if teacher.pretrained == "imagenet" else None
            yield from ((name, teacher.preprocess.size, pretrained) for name in names)
