"""Every network of a recipe, built or opened once before anything is trained: its name, its size, its weights."""

from collections.abc import Iterator
from pathlib import Path

from edgecxr.bundle.archive import LIMIT_BYTES
from edgecxr.errors import StageError
from edgecxr.export.class_maps import class_maps
from edgecxr.export.recipe import Recipe
from edgecxr.export.schooling import pretrained_file
from edgecxr.export.student import Student, build_student
from edgecxr.export.teacher_plans import TeacherSource, TrainedGroup, TrainedMember
from edgecxr.spec import Precision
from edgecxr.teachers.architecture import build
from edgecxr.teachers.compute import pick_device
from edgecxr.teachers.foreign import Source, load_foreign

__all__ = ["check_networks"]

BYTES: dict[Precision, int] = {"fp32": 4, "fp16": 2, "int8": 1}  # of a weight


def check_networks(recipe: Recipe, base: Path) -> None:
    """Build each architecture for films of its size with the weights that it starts from, fetching those of ImageNet.

    Teachers that the user brings, with paths from `base`, are opened and shown drawn films. Raises StageError for a
    name that no library has, films that are too small, a student too large for a bundle, weights that cannot be had, a
    teacher that does not fit what the recipe says of it, a device for the student that is not there, and for a student
    that is to learn from maps when no teacher is sure to have any.
    """
    for settings in (recipe.student.distillation, recipe.quantize.qat_training):
        pick_device(settings.device)
    for name, size, pretrained in sorted(set(_teachers(recipe, base)), key=str):
        build(name, 1, pretrained=pretrained, size=size)
    for name in recipe.student.names:
        student = build_student(name, 1, options=recipe.student.options, size=recipe.preprocess.size)
        _check_bytes(name, student, recipe.quantize.precisions)
    for teacher in recipe.teachers:
        if isinstance(teacher, Source):
            load_foreign(teacher, recipe.model_heads, base=base)
    if recipe.student.distillation.cam_weight and not any(_has_maps(teacher) for teacher in recipe.teachers):
        raise StageError(
            "student.distillation.cam_weight wants class activation maps, and no teacher has them: such a network ends "
            "in a mean and one linear layer, as ResNets do; add one, or set cam_weight to 0"
        )


def _check_bytes(name: str, student: Student, precisions: tuple[Precision, ...]) -> None:
    """Raises StageError when the convolutions alone, at all precisions together, are larger than a bundle may be."""
    weights = sum(weight.numel() for weight in student.parameters() if weight.ndim > 1)
    size = weights * sum(BYTES[precision] for precision in set(precisions))
    if size > LIMIT_BYTES:
        raise StageError(
            f"student {name!r} has {weights} weights, which are {size / 1e6:.1f} MB as {' and '.join(precisions)}; a "
            f"bundle has {LIMIT_BYTES / 1e6:.1f} MB at most: choose a smaller one, or fewer quantize.precisions"
        )


def _has_maps(teacher: TeacherSource) -> bool:
    """Whether every network that the entry can end with has class activation maps."""
    if isinstance(teacher, TrainedMember):
        names: tuple[str, ...] = (teacher.architecture,)
    elif isinstance(teacher, TrainedGroup) and not teacher.joint:
        names = teacher.candidates
    else:
        return False
    return all(class_maps(build(name, 1), teacher.preprocess.size) is not None for name in names)


def _teachers(recipe: Recipe, base: Path) -> Iterator[tuple[str, int, str | Path | None]]:
    """Architecture, side of its films, and the weights it starts from, of every network that is trained."""
    for teacher in recipe.teachers:
        if isinstance(teacher, TrainedMember | TrainedGroup):
            for member in teacher.members if isinstance(teacher, TrainedGroup) else (teacher,):
                start = pretrained_file(member, base) or member.pretrained
                yield member.architecture, member.preprocess.size, start
