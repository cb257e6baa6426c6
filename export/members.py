"""The teachers of a build, each a stage of its own: trained, chosen among candidates, or brought by the user."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from edgecxr.export.bench import Bench
from edgecxr.export.groups import chosen, joined
from edgecxr.export.recipe import Recipe, TeacherSource, TrainedGroup, TrainedMember
from edgecxr.export.schooling import LOGITS, ask, file_of, pretrained_file, stage_of, trained
from edgecxr.export.stages import Stage, sha256
from edgecxr.teachers.foreign import FactorySource, OnnxSource, Source, load_foreign

__all__ = ["Vote", "ask_members", "check_files", "file_digests"]


class Vote(NamedTuple):
    """What a teacher says: logits (N, C) for every film, the columns of heads that it does not vote on being NaN."""

    name: str
    stage: str
    logits: NDArray[np.float32]


def ask_members(bench: Bench) -> list[Vote]:
    """Stage `teacher-<name>` of each member, and what it says, in the order of the recipe.

    Of a group, those that were chosen, or the one that they were joined to.
    """
    stages = [stage for teacher in bench.recipe.teachers for stage in _stages(bench, teacher)]
    return [Vote(name, stage_of(name), np.load(folder / LOGITS)) for name, folder in stages]


def _stages(bench: Bench, teacher: TeacherSource) -> list[tuple[str, Path]]:
    """Name and finished stage of each member that the entry of the recipe stands for."""
    if isinstance(teacher, TrainedMember):
        return [(teacher.name, trained(bench, teacher))]
    if isinstance(teacher, TrainedGroup):
        members = chosen(bench, teacher)
        return [(teacher.name, joined(bench, teacher, members))] if teacher.joint else members
    return [(teacher.name, _brought(bench, teacher))]


def _brought(bench: Bench, member: Source) -> Path:
    inputs = {"member": member.model_dump(mode="json"), "files": file_digests(member, bench.base), **bench.labels}

    def run(place: Path) -> None:
        ask(bench, load_foreign(member, bench.heads, base=bench.base), place)

    return bench.workshop.run(Stage(stage_of(member.name), run, inputs, ("data",)))


def check_files(recipe: Recipe, base: Path) -> None:
    """Look for every file of every teacher below `base`, before anything is trained. Raises StageError."""
    for teacher in recipe.teachers:
        if isinstance(teacher, TrainedMember):
            pretrained_file(teacher, base)
        elif not isinstance(teacher, TrainedGroup):
            file_digests(teacher, base)


def file_digests(member: Source, base: Path) -> dict[str, str]:
    """SHA-256 of each file that a foreign teacher is made of: the source of its module, weights beside an ONNX file."""
    found = {name: sha256(file_of(member.name, base / name)) for name in member.files}
    source = member.module_file(base) if isinstance(member, FactorySource) else None
    if isinstance(member, OnnxSource):
        folder = (base / member.onnx).parent
        found |= {name: sha256(file_of(member.name, folder / name)) for name in _external(base / member.onnx)}
    return found if source is None else {**found, source.name: sha256(source)}


def _external(path: Path) -> list[str]:
    """The files beside an ONNX file that hold weights of it; none of a file that is not ONNX, which nobody opens."""
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except DecodeError:
        return []
    return sorted({ExternalDataInfo(tensor).location for tensor in _tensors(graph) if uses_external_data(tensor)})


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor that a graph holds, and those of graphs within it."""
    yield from graph.initializer
    for attribute in (item for node in graph.node for item in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for inner in (attribute.g, *attribute.graphs):
            yield from _tensors(inner)
