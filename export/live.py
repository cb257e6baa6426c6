"""The fused teachers as live teachers: they answer every augmented film anew, each at the size that it was made for.

The student's films are shrunk or enlarged for a teacher of another size; that differs from the chain on the film itself
by one more interpolation, so that soft targets are a teacher's up to that.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from edgecxr.errors import StageError
from edgecxr.export.bench import Bench
from edgecxr.export.distillation import LiveTeacher, Taught
from edgecxr.export.fusion import read_fusion
from edgecxr.export.schooling import stage_of
from edgecxr.spec import PreprocessSpec
from edgecxr.teachers.ensemble import Ensemble
from edgecxr.teachers.foreign import Source, load_foreign
from edgecxr.teachers.teacher import RECORD, Teacher, open_member

__all__ = ["live_teacher"]


def live_teacher(bench: Bench) -> LiveTeacher:
    """The ensemble of the finished stage `fuse`: (N, 1, S, S) films of the student in [0, 1] -> fused logits (N, C)."""
    fusion = read_fusion(bench)
    ensemble = Ensemble([_opened(bench, name) for name in fusion.members], fusion)

    def answer(images: Tensor) -> Taught:
        logits = ensemble.logits(lambda spec: _resized(images, spec))
        return Taught(torch.from_numpy(logits.astype(np.float32)))

    return answer


def _opened(bench: Bench, name: str) -> Teacher:
    """The member as it was trained here, or as its user brought it."""
    folder = bench.workshop.outcomes[stage_of(name)].folder
    if (folder / RECORD).is_file():
        return open_member(folder, autocast="auto")
    source = next((one for one in bench.recipe.teachers if one.name == name and isinstance(one, Source)), None)
    if source is None:
        raise StageError(f"{folder} holds no {RECORD}; delete the folder, so that teacher {name!r} is trained again")
    return load_foreign(source, bench.heads, base=bench.base)


def _resized(images: Tensor, spec: PreprocessSpec) -> NDArray[np.float32]:
    """The films at the side of `spec`, as float32 on the CPU."""
    films = images.detach().float().cpu()
    if films.shape[-1] != spec.size:
        sides = (spec.size, spec.size)
        films = functional.interpolate(films, sides, mode="bilinear", antialias=True, align_corners=False)
    resized: NDArray[np.float32] = films.clamp(0, 1).numpy()
    return resized
