"""The class activation maps of an ensemble: those of the trained teachers that have any, fused as their logits are.

A member's map (`export.class_maps`) has its logit as its mean, so the weights that fuse the logits fuse the maps too.
Members without maps have no part in them, and films are looked at as they are, without the members' `zooms`.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from edgecxr.errors import StageError
from edgecxr.export import class_maps as class_maps_module
from edgecxr.export.bench import Bench
from edgecxr.export.class_maps import ClassMaps, class_maps
from edgecxr.export.fusion import STAGE as FUSE
from edgecxr.export.fusion import read_fusion
from edgecxr.export.schooling import stage_of
from edgecxr.export.stages import Stage, code_of
from edgecxr.scores import columns
from edgecxr.spec import PreprocessSpec
from edgecxr.teachers.compute import autocast
from edgecxr.teachers.ensemble import Ensemble
from edgecxr.teachers.foreign import Source, load_foreign
from edgecxr.teachers.names import RECORD
from edgecxr.teachers.teacher import MemberTeacher, Teacher, open_member

__all__ = ["EnsembleMaps", "ensemble_maps", "maps_of_test_films", "open_ensemble_of"]

MAPS = "maps.npy"
BATCH = 32
MOST = 0.5  # of the weight of a head

Images = Callable[[PreprocessSpec], NDArray[np.floating]]  # as of `Ensemble.logits`


class EnsembleMaps:
    """Calling it gives (N, C, h, w) maps of films, h and w being the largest of any member.

    Those of a softmax head are centred over its classes, cell by cell, as its logits are when they are fused.
    """

    def __init__(self, ensemble: Ensemble, maps: Sequence[ClassMaps | None]) -> None:
        self.ensemble, self.maps = ensemble, tuple(maps)

    @property
    def shares(self) -> tuple[float, ...]:
        """By head, the weight of the members that have maps, of 1."""
        weights = [part.weights for part in self.ensemble.fusion.heads]
        return tuple(sum(one for one, maps in zip(own, self.maps, strict=True) if maps) for own in weights)

    def __call__(self, images: Images) -> Tensor:
        pairs = list(zip(self.ensemble.members, self.maps, strict=True))
        found = [_answer(member, maps, images(member.preprocess)) if maps else None for member, maps in pairs]
        present = [item for item in found if item is not None]
        side, films = max(item.shape[-1] for item in present), len(present[0])
        votes = [_cells(item, side, films, member) for item, (member, _) in zip(found, pairs, strict=True)]
        fused = self.ensemble.fusion.logits(votes, [member.heads for member, _ in pairs])
        cells = torch.from_numpy(fused.astype(np.float32)).view(films, side, side, -1)
        return cells.permute(0, 3, 1, 2).contiguous()


def ensemble_maps(ensemble: Ensemble, student: PreprocessSpec) -> EnsembleMaps | None:
    """The maps of the members on whose input films lie as on the student's; None where no such member has any."""
    maps = [_maps_of(one) if one.preprocess.aspect == student.aspect else None for one in ensemble.members]
    return EnsembleMaps(ensemble, maps) if any(maps) else None


def open_ensemble_of(bench: Bench) -> Ensemble:
    """The ensemble of the finished stage `fuse`.

    Trained teachers compute where and as precisely as the settings of the distillation say, teachers that were brought
    as they did when they were asked for the fusion.
    """
    fusion = read_fusion(bench)
    return Ensemble([_opened(bench, name) for name in fusion.members], fusion)


def maps_of_test_films(bench: Bench, cells: tuple[int, int]) -> NDArray[np.float32] | None:
    """Stage `maps`: (N, C, h, w) of the labelled test films, resized to (h, w) = `cells`; None where there are none.

    Those of a head in which members without maps have the most weight are 0: the others' say too little of it.
    """
    settings = bench.recipe.student.distillation
    inputs = {"aspect": bench.recipe.preprocess.aspect, "autocast": settings.autocast, **bench.labels}
    inputs["code"] = code_of(class_maps_module, sys.modules[__name__])
    stage = Stage("maps", lambda place: _write(bench, place / MAPS), inputs, ("data", FUSE))
    path = bench.workshop.run(stage) / MAPS
    if not path.is_file():
        return None
    maps = torch.from_numpy(np.load(path))
    resized: NDArray[np.float32] = functional.interpolate(maps, cells, mode="bilinear", antialias=True).numpy()
    return resized


def _write(bench: Bench, path: Path) -> None:
    maps = ensemble_maps(open_ensemble_of(bench), bench.recipe.preprocess)
    if maps is None:
        return
    rows = bench.labelled("test")
    batches = np.split(rows, range(BATCH, len(rows), BATCH))
    found = np.concatenate([_of_rows(bench, maps, batch) for batch in batches])
    for share, place in zip(maps.shares, columns(maps.ensemble.heads), strict=True):
        if share < MOST:
            found[:, place] = 0
    np.save(path, found)


def _of_rows(bench: Bench, maps: EnsembleMaps, rows: NDArray[np.intp]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = maps(lambda spec: np.asarray(bench.images(spec)[rows], np.float32)).numpy()
    return found


def _maps_of(member: Teacher) -> ClassMaps | None:
    return class_maps(member.module, member.preprocess.size) if isinstance(member, MemberTeacher) else None


def _answer(member: Teacher, maps: ClassMaps, images: NDArray[np.floating]) -> Tensor:
    """(N, C, h, w) of one member."""
    setting = member.autocast if isinstance(member, MemberTeacher) else "off"
    films = torch.from_numpy(np.asarray(images, np.float32)).to(maps.network.mean.device)
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
