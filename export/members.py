"""The teachers of a build, each a stage of its own: pre-trained, trained, or brought by the user; then asked once."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from edgecxr.dataset import HeadColumns
from edgecxr.errors import StageError
from edgecxr.export.bench import Bench
from edgecxr.export.recipe import Pretrain, Recipe, TeacherSource, TrainedMember
from edgecxr.export.stages import Stage
from edgecxr.teachers.architecture import Network, build
from edgecxr.teachers.foreign import FactorySource, Source, load_foreign
from edgecxr.teachers.teacher import WEIGHTS, MemberRecord, MemberTeacher, Teacher, write_member
from edgecxr.teachers.training import train
from edgecxr.teachers.weights import read_weights, transfer_weights

__all__ = ["ask_members", "check_files", "file_digests", "member_stage", "pretrained_file"]

LOGITS = "logits.npy"


def ask_members(bench: Bench) -> list[NDArray[np.float32]]:
    """Stage `teacher-<name>` of each member: its logits for every film, in the order of the recipe.

    Each is (N, C), the columns of heads that a member does not vote on being NaN.
    """
    return [np.load(_stage(bench, member) / LOGITS) for member in bench.recipe.teachers]


def member_stage(member: TeacherSource) -> str:
    """Name of the member's stage."""
    return f"teacher-{member.name}"


def _stage(bench: Bench, member: TeacherSource) -> Path:
    if isinstance(member, TrainedMember):
        return _trained(bench, member)
    inputs = {"member": member.model_dump(mode="json"), "files": file_digests(member, bench.base), **bench.labels}

    def run(place: Path) -> None:
        _ask(bench, load_foreign(member, bench.heads, base=bench.base), place)

    return bench.workshop.run(Stage(member_stage(member), run, inputs, ("data",)))


def _trained(bench: Bench, member: TrainedMember) -> Path:
    plan = bench.recipe.pretrain if member.pretrain else None
    before = _pretrain(bench, member, plan) if plan else None

    def run(place: Path) -> None:
        network = _teach(bench, member, place, bench.recipe.heads, before=before)
        record = write_member(place, _record(bench, member), network)
        _ask(bench, MemberTeacher(record, network, device=member.training.device), place)

    upstream = ("data", f"pretrain-{member.name}") if before else ("data",)
    inputs = {"member": member.model_dump(mode="json"), **bench.labels, **_pretrained_digest(bench, member)}
    return bench.workshop.run(Stage(member_stage(member), run, inputs, upstream, resumable=True))


def _record(bench: Bench, member: TrainedMember) -> MemberRecord:
    return MemberRecord(
        name=member.name,
        architecture=member.architecture,
        heads=bench.heads,
        preprocess=member.preprocess,
        zooms=member.zooms,
    )


def _pretrain(bench: Bench, member: TrainedMember, plan: Pretrain) -> Path:
    """Stage `pretrain-<name>`: the member's architecture on the labels of `plan`."""
    learner = member.model_copy(update={"training": plan.training})
    own = {"architecture": member.architecture, "pretrained": member.pretrained, "chain": member.preprocess.digest}

    def run(place: Path) -> None:
        _teach(bench, learner, place, plan.heads, folds=plan.folds)

    started = _pretrained_digest(bench, member)
    inputs = {"member": own, "plan": plan.model_dump(mode="json"), **bench.labels, **started}
    return bench.workshop.run(Stage(f"pretrain-{member.name}", run, inputs, ("data",), resumable=True))


def _teach(
    bench: Bench,
    member: TrainedMember,
    place: Path,
    heads: tuple[HeadColumns, ...],
    *,
    before: Path | None = None,
    folds: tuple[int, ...] | None = None,
) -> Network:
    """Train the member's architecture on `heads` in `place`, starting from the weights in `before` where given."""
    lessons = bench.lessons(heads, member.preprocess, folds)
    title = place.name.rpartition("-")[0]
    settings = bench.seeded(member.training, title)
    torch.manual_seed(settings.seed)
    start = pretrained_file(member, bench.base) or member.pretrained
    network = build(member.architecture, sum(len(item.head.classes) for item in heads), pretrained=start)
    if before is not None:
        transfer_weights(read_weights(before / WEIGHTS, ()), network)
    with bench.watch(title) as progress:
        train(network, lessons, [item.head for item in heads], settings, place, progress=progress)
    return network


def _ask(bench: Bench, teacher: Teacher, place: Path) -> None:
    """Write the teacher's logits for every film of the data set."""
    logits = np.full((len(bench.films.dataset.films), len(bench.classes)), np.nan, np.float32)
    columns = [bench.classes.index(name) for name in teacher.classes]
    logits[:, columns] = teacher.logits(bench.images(teacher.preprocess))
    np.save(place / LOGITS, logits)


def check_files(recipe: Recipe, base: Path) -> None:
    """Look for every file of every teacher below `base`, before anything is trained. Raises StageError."""
    for member in recipe.teachers:
        if isinstance(member, TrainedMember):
            pretrained_file(member, base)
        else:
            file_digests(member, base)


def pretrained_file(member: TrainedMember, base: Path) -> Path | None:
    """The file of weights that the member begins with, if it is one. Raises StageError when it is not there."""
    if member.pretrained in (None, "imagenet"):
        return None
    return _file(member.name, base / str(member.pretrained))


def _pretrained_digest(bench: Bench, member: TrainedMember) -> dict[str, str]:
    path = pretrained_file(member, bench.base)
    return {} if path is None else {"pretrained": _sha256(path)}


def file_digests(member: Source, base: Path) -> dict[str, str]:
    """SHA-256 of each file that a foreign teacher is made of, the source of its module among them."""
    found = {name: _sha256(_file(member.name, base / name)) for name in member.files}
    source = member.module_file(base) if isinstance(member, FactorySource) else None
    return found if source is None else {**found, source.name: _sha256(source)}


def _file(member: str, path: Path) -> Path:
    if not path.is_file():
        raise StageError(f"teacher {member!r}: no file {path}; paths are taken from the recipe's folder")
    return path


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
