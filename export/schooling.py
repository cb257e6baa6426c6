"""The stages in which one teacher is trained here: on the labels of `pretrain`, then on those of the recipe."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgecxr.dataset import HeadColumns
from edgecxr.errors import StageError
from edgecxr.export.bench import Bench
from edgecxr.export.stages import Stage, sha256
from edgecxr.export.teacher_plans import Pretrain, TrainedGroup, TrainedMember
from edgecxr.spec import class_names
from edgecxr.teachers.architecture import Network, build
from edgecxr.teachers.neurons import keep_neurons, without_classifier
from edgecxr.teachers.teacher import WEIGHTS, MemberRecord, MemberTeacher, Teacher, write_member
from edgecxr.teachers.training import train
from edgecxr.teachers.weights import read_weights, transfer_weights

__all__ = ["LOGITS", "ask", "file_of", "pretrained_file", "record_of", "stage_of", "trained"]

LOGITS = "logits.npy"


def stage_of(name: str) -> str:
    """Name of a teacher's stage."""
    return f"teacher-{name}"


def trained(bench: Bench, member: TrainedMember) -> Path:
    """Stages `pretrain-<name>`, where the recipe has one, and `teacher-<name>`: the network, and its logits."""
    plan = bench.recipe.pretrain if member.pretrain else None
    first = _first(bench, member)
    before = _pretrain(bench, first, plan) if plan else None

    def run(place: Path) -> None:
        network = _teach(bench, member, place, bench.recipe.heads, before=before)
        record = write_member(place, record_of(bench, member, member.architecture), network)
        ask(bench, MemberTeacher(record, network, device=member.training.device), place)

    upstream = ("data", f"pretrain-{first.name}") if before else ("data",)
    inputs = {"member": member.model_dump(mode="json"), **bench.labels, **_pretrained_digest(bench, member)}
    return bench.workshop.run(Stage(stage_of(member.name), run, inputs, upstream, resumable=True))


def _first(bench: Bench, member: TrainedMember) -> TrainedMember:
    """The member whose `pretrain` stage this one begins with: itself, or the one that it names."""
    named = [other for other in bench.recipe.teachers if other.name == member.pretrain]
    return next((other for other in named if isinstance(other, TrainedMember)), member)


def record_of(
    bench: Bench, plan: TrainedMember | TrainedGroup, architecture: str, joint: tuple[str, ...] = ()
) -> MemberRecord:
    """`teacher.json` of a network that was trained as `plan` says, before its weights; `joint` as in `MemberRecord`.

    The folds of `pretrain`, where it takes part, taught it too.
    """
    folds, first = bench.recipe.data.folds, bench.recipe.pretrain if plan.pretrain else None
    taught = {"train": tuple(sorted({*folds.train, *((first and first.folds) or ())}))}
    return MemberRecord(
        name=plan.name,
        architecture=architecture,
        joint=joint,
        heads=bench.heads,
        columns=bench.columns,
        preprocess=plan.preprocess,
        reading=bench.recipe.reading,
        zooms=plan.zooms,
        data_digest=bench.films.dataset.digest,
        folds=taught | {purpose: folds.of(purpose) for purpose in ("validate", "test")},
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
    classes = sum(len(item.head.classes) for item in heads)
    network = build(member.architecture, classes, pretrained=start, size=member.preprocess.size)
    if before is not None:
        _transfer(bench, member, read_weights(before / WEIGHTS, ()), network)
    with bench.watch(title) as progress:
        train(network, lessons, [item.head for item in heads], settings, place, progress=progress)
    return network


def _transfer(bench: Bench, member: TrainedMember, earlier: dict[str, Tensor], network: Network) -> None:
    """All but the classifier from the network of `pretrain`; of that, the neurons that `keep` names, by class."""
    transfer_weights(without_classifier(earlier, network), network)
    plan = bench.recipe.pretrain
    if not member.keep or plan is None:
        return
    classes = class_names(item.head for item in plan.heads)
    kept = {bench.classes.index(name): classes.index(old) for name, old in member.keep.items()}
    keep_neurons(earlier, network, kept)


def ask(bench: Bench, teacher: Teacher, place: Path) -> None:
    """Write the teacher's logits for every film of the data set."""
    logits = np.full((len(bench.films.dataset.films), len(bench.classes)), np.nan, np.float32)
    columns = [bench.classes.index(name) for name in teacher.classes]
    logits[:, columns] = teacher.logits(bench.images(teacher.preprocess))
    np.save(place / LOGITS, logits)


def pretrained_file(member: TrainedMember, base: Path) -> Path | None:
    """The file of weights that the member begins with, if it is one. Raises StageError when it is not there."""
    if member.pretrained in (None, "imagenet"):
        return None
    return file_of(member.name, base / str(member.pretrained))


def _pretrained_digest(bench: Bench, member: TrainedMember) -> dict[str, str]:
    path = pretrained_file(member, bench.base)
    return {} if path is None else {"pretrained": sha256(path)}


def file_of(member: str, path: Path) -> Path:
    """The path. Raises StageError when no file is there."""
    if not path.is_file():
        raise StageError(f"teacher {member!r}: no file {path}; paths are taken from the recipe's folder")
    return path
