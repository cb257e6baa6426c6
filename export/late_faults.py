"""Keys of a recipe that are right each by itself and together end a build after hours: found when it is read."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from edgecxr.export.teacher_plans import TrainedGroup, TrainedMember
from edgecxr.repeats import repeated
from edgecxr.spec import Head, class_names
from edgecxr.teachers.training import TrainSettings

if TYPE_CHECKING:
    from edgecxr.export.recipe import Recipe

__all__ = ["late_faults"]


def late_faults(recipe: "Recipe") -> list[str]:
    """What no training, no student or no bundle could be made of, each as a sentence."""
    classes = class_names(recipe.model_heads)
    rules = [rule.name for rule in recipe.operating_points]
    earlier = recipe.pretrain.heads if recipe.pretrain else ()
    found = [f"heads: two are called {name!r}" for name in repeated([item.head.name for item in recipe.heads])]
    found += [f"pretrain.heads: two are called {name!r}" for name in repeated([item.head.name for item in earlier])]
    found += [
        f"heads: two classes are called {name!r}; findings are known by these names" for name in repeated(classes)
    ]
    found += [
        f"operating_points: two rules are called {name!r}; decisions name one of them" for name in repeated(rules)
    ]
    return [*found, *_ranges(recipe), *_maps(recipe), *_settings(recipe)]


def _ranges(recipe: "Recipe") -> Iterator[str]:
    """Networks learn from films in [0, 1]; what an engine wants besides is in the graph."""
    low, high = recipe.preprocess.range_low, recipe.preprocess.range_high
    if low < 0 or high > 1:
        yield f"preprocess: the range is {low:g} to {high:g}; a student learns from films in [0, 1]"
    for teacher in recipe.teachers:
        ends = teacher.preprocess.range_low, teacher.preprocess.range_high
        if ends != (0, 1):
            yield f"teacher {teacher.name!r}: preprocess has the range {ends[0]:g} to {ends[1]:g}; wanted 0 to 1"


def _maps(recipe: "Recipe") -> Iterator[str]:
    student = recipe.student
    if student.distillation.cam_weight and student.teaching == "fixed":
        yield (
            "student.distillation.cam_weight wants `student.teaching: live`: maps of unchanged films do not fit "
            "augmented ones"
        )
    trained = any(isinstance(teacher, TrainedMember | TrainedGroup) for teacher in recipe.teachers)
    if student.distillation.cam_weight and not trained:
        yield "student.distillation.cam_weight wants the maps of a teacher that is trained here, and there is none"
    if recipe.quantize.qat_training.cam_weight:
        yield "quantize.qat_training.cam_weight is for distillation; training between fake integers has no live teacher"


def _settings(recipe: "Recipe") -> Iterator[str]:
    """Of every training: weights of heads that are not learned there, and a device by a name that none has."""
    heads = recipe.model_heads
    plans: list[tuple[str, TrainSettings, Sequence[Head]]] = [
        ("student.distillation", recipe.student.distillation, heads),
        ("quantize.qat_training", recipe.quantize.qat_training, heads),
    ]
    if recipe.pretrain:
        plans.append(("pretrain.training", recipe.pretrain.training, [item.head for item in recipe.pretrain.heads]))
    for teacher in recipe.teachers:
        if isinstance(teacher, TrainedMember | TrainedGroup):
            plans.append((f"teacher {teacher.name!r}: training", teacher.training, heads))
        if isinstance(teacher, TrainedGroup) and teacher.joint:
            plans.append((f"teacher {teacher.name!r}: joint.training", teacher.joint.training, heads))
    for key, settings, learned in plans:
        names = [head.name for head in learned]
        strange = sorted(set(settings.loss.head_weights) - set(names))
        if strange:
            yield f"{key}: loss.head_weights names {', '.join(strange)}; the heads are {', '.join(names)}"
        try:
            torch.device("cpu" if settings.device == "auto" else settings.device)
        except RuntimeError:
            yield f"{key}: no device is called {settings.device!r}; wanted auto, cpu, cuda or cuda:0"
