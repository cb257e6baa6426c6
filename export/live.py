"""The fused teachers as live teachers: they answer every augmented film anew, each at the size that it was made for.

The student's films are shrunk or enlarged for a teacher of another size; that differs from the chain on the film itself
by one more interpolation, so that soft targets are a teacher's up to that. Where the student learns from maps, those of
the teachers that have any (`export.class_maps`) are fused by the weights of the logits, which are their means.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from edgecxr.errors import StageError
from edgecxr.export.bench import Bench
from edgecxr.export.class_maps import ClassMaps, class_maps
from edgecxr.export.distillation import LiveTeacher, Taught
from edgecxr.export.fusion import read_fusion
from edgecxr.export.schooling import stage_of
from edgecxr.spec import PreprocessSpec
from edgecxr.teachers.compute import autocast
from edgecxr.teachers.ensemble import Ensemble
from edgecxr.teachers.foreign import Source, load_foreign
from edgecxr.teachers.names import RECORD
from edgecxr.teachers.teacher import MemberTeacher, Teacher, open_member

__all__ = ["live_teacher"]


def live_teacher(bench: Bench) -> LiveTeacher:
    """The ensemble of the finished stage `fuse`: (N, 1, S, S) films of the student in [0, 1] -> fused logits (N, C).

    Trained teachers compute where and as precisely as the settings of the distillation say, teachers that were brought
    as they did when they were asked for the fusion. With `cam_weight`, it also gives maps (N, C, h, w).
    """
    fusion = read_fusion(bench)
    ensemble = Ensemble([_opened(bench, name) for name in fusion.members], fusion)
    maps = _FusedMaps(ensemble) if bench.recipe.student.distillation.cam_weight else None

    def answer(images: Tensor) -> Taught:
        with torch.autocast(images.device.type, enabled=False):  # the student's; each teacher begins its own
            logits = ensemble.logits(lambda spec: _resized(images, spec))
            cam = maps(images) if maps else None
        return Taught(torch.from_numpy(logits.astype(np.float32)), cam)

    return answer


class _FusedMaps:
    """The maps of an ensemble; members without any have no part in them."""

    def __init__(self, ensemble: Ensemble) -> None:
        """Raises StageError when no member has maps."""
        self.ensemble = ensemble
        trained = [member if isinstance(member, MemberTeacher) else None for member in ensemble.members]
        self.maps = [class_maps(one.module, one.preprocess.size) if one else None for one in trained]
        if not any(self.maps):
            raise StageError("cam_weight is above 0, but no teacher has class activation maps; set it to 0")

    def __call__(self, images: Tensor) -> Tensor:
        """(N, C, h, w) of (N, 1, S, S) films, h and w being the largest of any member."""
        pairs = list(zip(self.ensemble.members, self.maps, strict=True))
        found = [self._of(member, maps, images) if maps else None for member, maps in pairs]
        side = max(item.shape[-1] for item in found if item is not None)
        votes = [_cells(item, side, len(images), member) for item, (member, _) in zip(found, pairs, strict=True)]
        fused = self.ensemble.fusion.logits(votes, [member.heads for member, _ in pairs])
        cells = torch.from_numpy(fused.astype(np.float32)).view(len(images), side, side, -1)
        return cells.permute(0, 3, 1, 2).contiguous()

    def _of(self, member: Teacher, maps: ClassMaps, images: Tensor) -> Tensor:
        """(N, C, h, w) of one member, for the films as they are, without its `zooms`."""
        setting = member.autocast if isinstance(member, MemberTeacher) else "off"
        films = torch.from_numpy(_resized(images, member.preprocess)).to(maps.network.mean.device)
        with autocast(films.device, setting), torch.no_grad():
            found: Tensor = maps(films)
        return found.float().cpu()


def _cells(maps: Tensor | None, side: int, films: int, member: Teacher) -> NDArray[np.float32]:
    """(N · side · side, C) votes of a member, cell by cell; zeros where it has no maps."""
    if maps is None:
        return np.zeros((films * side * side, len(member.classes)), np.float32)
    maps = functional.interpolate(maps, (side, side), mode="bilinear", align_corners=False)
    cells: NDArray[np.float32] = maps.permute(0, 2, 3, 1).flatten(0, 2).numpy()
    return cells


def _opened(bench: Bench, name: str) -> Teacher:
    """The member as it was trained here, or as its user brought it."""
    folder, settings = bench.workshop.outcomes[stage_of(name)].folder, bench.recipe.student.distillation
    if (folder / RECORD).is_file():
        return open_member(folder, device=settings.device, autocast=settings.autocast)
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
