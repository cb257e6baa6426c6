"""Distillation: a student learns the fused teachers' soft answers beside the labels.

Softmax heads: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015: KL divergence at temperature T,
times T². Sigmoid heads: binary cross-entropy against the teachers' probabilities. With a live teacher, teacher and
student see the very same augmented films (Beyer et al., "Knowledge distillation: a good teacher is patient and
consistent", CVPR 2022); without one, the teachers' logits of the films as they are serve as fixed targets.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from edgecxr.errors import StageError
from edgecxr.export.student import Student
from edgecxr.scores import columns
from edgecxr.spec import Head
from edgecxr.teachers.compute import Autocast
from edgecxr.teachers.losses import MixedLoss
from edgecxr.teachers.progress import Progress
from edgecxr.teachers.training import Samples, TrainResult, TrainSettings, train

__all__ = ["DistillLoss", "DistillSettings", "LiveTeacher", "QatSettings", "Taught", "distill", "with_soft"]

SOFT = "teacher logits"  # beside the heads' own targets: (N, C) float32


class DistillSettings(TrainSettings):
    """How a student is trained: the settings of a teacher's training, and how much it listens to the teachers."""

    epochs: Annotated[int, Field(ge=1)] = 60
    temperature: Annotated[float, Field(gt=0, le=50, description="T, softens both sides of a softmax head")] = 3.0
    hard_weight: Annotated[float, Field(ge=0, le=1, description="share of the labels; the rest is the teachers'")] = 0.3
    cam_weight: Annotated[float, Field(ge=0, description="of 1 - correlation of the maps; live teacher with maps")] = (
        0.0
    )

    @model_validator(mode="after")
    def _check(self) -> "DistillSettings":
        if self.copies or self.films_per_class is not None:
            raise ValueError(
                "copies and films_per_class are for teachers; a student learns from each film once an epoch"
            )
        return self


class QatSettings(DistillSettings):
    """How a student that has been distilled goes on between fake integers."""

    epochs: Annotated[int, Field(ge=1)] = 8
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    autocast: Autocast = "off"  # bfloat16 would round what the engines do not


class Taught(NamedTuple):
    """What a live teacher says about a batch of films."""

    logits: Tensor  # (N, C)
    cam: Tensor | None = None  # (N, C, h, w), of any h and w


LiveTeacher = Callable[[Tensor], Taught]  # (N, 1, S, S) augmented films in [0, 1]


def distill(
    student: Student,
    samples: tuple[Samples, Samples],
    teacher_logits: tuple[NDArray[np.float32], NDArray[np.float32]],
    heads: Sequence[Head],
    settings: DistillSettings,
    *,
    folder: Path,
    teacher: LiveTeacher | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Train `student` in place; it ends with the best epoch's weights, on the CPU, in evaluation mode.

    samples and teacher_logits (N, C) are (training, validation); the logits are one ensemble's, or the mean of several
    teachers' log-probabilities. With `teacher`, training films get their soft targets from it, augmented as they are.
    Resumes as `train` does. Raises StageError when logits do not fit the films, or `cam_weight` has no live teacher.
    """
    if settings.cam_weight and teacher is None:
        raise StageError("cam_weight needs a live teacher: the maps of unchanged films do not fit augmented ones")
    both = [with_soft(part, soft, heads) for part, soft in zip(samples, teacher_logits, strict=True)]
    loss = DistillLoss(heads, samples[0].targets, settings)
    classroom = _Classroom(student, teacher, settings.cam_weight > 0)
    result = train(classroom, (both[0], both[1]), heads, settings, folder, progress=progress, loss=loss)
    student.eval()
    return result


def with_soft(samples: Samples, soft: NDArray[np.float32], heads: Sequence[Head]) -> Samples:
    """Films with the teachers' logits (N, C) beside their labels, as `DistillLoss` reads them."""
    wanted = (len(samples), sum(len(head.classes) for head in heads))
    if soft.shape != wanted or not np.isfinite(soft).all():
        raise StageError(f"teacher logits are {soft.shape}; wanted finite {wanted}, one row per film and one per class")
    return Samples(samples.images, {**samples.targets, SOFT: soft.astype(np.float32)})


class DistillLoss(nn.Module):
    """hard_weight × loss against the labels + (1 - hard_weight) × loss against the teachers + cam_weight × map loss.

    forward(logits, targets): logits (N, C), or what `_Classroom` gives in training: (N, C + C), the second half a live
    teacher's, or (N, C + C + 1) with the map loss of each film last.
    """

    def __init__(self, heads: Sequence[Head], targets: Mapping[str, NDArray[Any]], settings: DistillSettings) -> None:
        super().__init__()
        self.heads, self.settings, self.columns = tuple(heads), settings, columns(heads)
        self.classes = sum(len(head.classes) for head in heads)
        self.hard = MixedLoss(heads, targets, settings.loss)

    def forward(self, output: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
        logits, live = output[:, : self.classes], output[:, self.classes : 2 * self.classes]
        soft = (live if live.shape[1] else targets[SOFT]).detach()
        share = self.settings.hard_weight
        loss: Tensor = share * self.hard(logits, targets) + (1 - share) * self.soft(logits, soft)
        if output.shape[1] > 2 * self.classes:
            loss = loss + self.settings.cam_weight * output[:, -1].mean()
        return loss

    def soft(self, logits: Tensor, teacher: Tensor) -> Tensor:
        """Sum over heads of the divergence from the teachers' answers, weighed as the heads are."""
        total = logits.new_zeros(())
        for head, place in zip(self.heads, self.columns, strict=True):
            one, other = (part[:, place].float() for part in (logits, teacher))
            divergence = self._softmax if head.kind == "softmax" else functional.binary_cross_entropy_with_logits
            other = other if head.kind == "softmax" else other.sigmoid()
            total = total + self.settings.loss.head_weights.get(head.name, 1.0) * divergence(one, other)
        return total

    def _softmax(self, logits: Tensor, teacher: Tensor) -> Tensor:
        warmth = self.settings.temperature
        student, taught = ((part / warmth).log_softmax(1) for part in (logits, teacher))
        return functional.kl_div(student, taught, reduction="batchmean", log_target=True) * warmth**2


class _Classroom(nn.Module):
    """The student; in training its logits are followed by what a live teacher says about the same films."""

    def __init__(self, student: nn.Module, teacher: LiveTeacher | None, maps: bool) -> None:
        super().__init__()
        self.student, self.maps = student, maps
        self.teacher = _Shared(teacher)

    def forward(self, images: Tensor) -> Tensor:
        if not self.training or self.teacher.held is None:
            logits: Tensor = self.student(images)
            return logits
        with torch.no_grad():
            taught = self.teacher.held(images)
        if not self.maps:
            return torch.cat([self.student(images), taught.logits.to(images.device)], 1)
        if taught.cam is None:
            raise StageError("cam_weight is above 0, but this teacher gives no maps; set it to 0")
        full = self.student.forward_full(images)  # type: ignore[operator]
        return torch.cat([full.logits, taught.logits.to(images.device), _map_loss(full.cam, taught.cam)], 1)


class _Shared:
    """A live teacher: not a part of the student, so neither saved, averaged nor copied with it."""

    def __init__(self, held: LiveTeacher | None) -> None:
        self.held = held

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Shared":
        return copy.copy(self)


def _map_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """(N, 1) 1 - correlation of the maps, the mean over classes; the teacher's are resized to the student's."""
    teacher = functional.interpolate(
        teacher.to(student.device).float(), student.shape[2:], mode="bilinear", antialias=True
    )
    a, b = (part.float().flatten(2) - part.float().mean((2, 3)).unsqueeze(2) for part in (student, teacher))
    return (1 - functional.cosine_similarity(a, b, dim=2)).mean(1, keepdim=True)
