"""The fused teachers as live teachers: they answer every augmented film anew, each at the size that it was made for.

The student's films are shrunk or enlarged for a teacher of another size; that differs from the chain on the film itself
by one more interpolation, so that soft targets are a teacher's up to that. Where the student learns from maps, they
give those as well (`export.ensemble_maps`).
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from edgecxr.errors import StageError
from edgecxr.export.bench import Bench
from edgecxr.export.distillation import LiveTeacher, Taught
from edgecxr.export.ensemble_maps import EnsembleMaps, ensemble_maps, open_ensemble_of
from edgecxr.spec import PreprocessSpec
from edgecxr.teachers.ensemble import Ensemble

__all__ = ["live_teacher"]


def live_teacher(bench: Bench) -> LiveTeacher:
    """The ensemble of the finished stage `fuse`: (N, 1, S, S) films of the student in [0, 1] -> fused logits (N, C).

    With `cam_weight`, it also gives maps (N, C, h, w).
    """
    ensemble = open_ensemble_of(bench)
    maps = _maps(bench, ensemble) if bench.recipe.student.distillation.cam_weight else None

    def answer(images: Tensor) -> Taught:
        with torch.autocast(images.device.type, enabled=False):  # the student's; each teacher begins its own
            logits = ensemble.logits(lambda spec: _resized(images, spec))
            cam = maps(lambda spec: _resized(images, spec)) if maps else None
        return Taught(torch.from_numpy(logits.astype(np.float32)), cam)

    return answer


def _maps(bench: Bench, ensemble: Ensemble) -> EnsembleMaps:
    maps = ensemble_maps(ensemble, bench.recipe.preprocess)
    if maps is None:
        raise StageError("cam_weight is above 0, but no teacher has class activation maps; set it to 0")
    return maps


def _resized(images: Tensor, spec: PreprocessSpec) -> NDArray[np.float32]:
    """The films at the side of `spec`, as float32 on the CPU."""
    films = images.detach().float().cpu()
    if films.shape[-1] != spec.size:
        sides = (spec.size, spec.size)
        films = functional.interpolate(films, sides, mode="bilinear", antialias=True, align_corners=False)
    resized: NDArray[np.float32] = films.clamp(0, 1).numpy()
    return resized
