"""Candidates that are trained alike: the best go on as members, or are trained further as one, by moving weights."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from edgecxr.export.bench import Bench
from edgecxr.export.schooling import LOGITS, ask, record_of, stage_of, trained
from edgecxr.export.stages import Stage
from edgecxr.export.teacher_plans import JointPlan, TrainedGroup
from edgecxr.teachers.joint import join
from edgecxr.teachers.selection import Selection, select, standing
from edgecxr.teachers.teacher import MemberTeacher, open_member, write_member
from edgecxr.teachers.training import train
from edgecxr.teachers.weights import write_atomic

__all__ = ["SELECTION", "chosen", "joined"]

SELECTION = "selection.json"


def chosen(bench: Bench, group: TrainedGroup) -> list[tuple[str, Path]]:
    """Stages `teacher-<group>-<architecture>` of every candidate, then `select-<group>`: the best, by name and folder.

    selection.json has the accuracy and the loss of all of them, on the validation films.
    """
    folders = {member.name: trained(bench, member) for member in group.members}

    def run(place: Path) -> None:
        rows = bench.labelled("validate")
        standings = [
            standing(name, architecture, np.load(folders[name] / LOGITS)[rows], bench.targets(rows), bench.heads)
            for name, architecture in zip(group.member_names, group.candidates, strict=True)
        ]
        found = select(standings, group.select)
        write_atomic(place / SELECTION, found.model_dump_json(indent=1).encode())

    inputs = {"select": group.select, **bench.labels}
    upstream = tuple(stage_of(name) for name in folders)
    place = bench.workshop.run(Stage(f"select-{group.name}", run, inputs, upstream))
    selection = Selection.model_validate_json((place / SELECTION).read_text())
    return [(name, folders[name]) for name in selection.chosen]


def joined(bench: Bench, group: TrainedGroup, members: Sequence[tuple[str, Path]]) -> Path:
    """Stage `teacher-<group>`: the chosen networks as one, trained further together (`teachers.joint`)."""
    plan = group.joint or JointPlan()
    own = group.model_dump(mode="json", include={"name", "preprocess", "zooms"})
    inputs = {"joint": plan.model_dump(mode="json"), "member": own, **bench.labels}
    upstream = ("data", f"select-{group.name}", *(stage_of(name) for name, _ in members))

    def run(place: Path) -> None:
        _join(bench, group, plan, [folder for _, folder in members], place)

    return bench.workshop.run(Stage(stage_of(group.name), run, inputs, upstream, resumable=True))


def _join(bench: Bench, group: TrainedGroup, plan: JointPlan, folders: Sequence[Path], place: Path) -> None:
    teachers = [open_member(folder, device="cpu") for folder in folders]
    architectures = tuple(teacher.member.architecture for teacher in teachers)
    settings = bench.seeded(plan.training, stage_of(group.name))
    torch.manual_seed(settings.seed)
    networks = {name: teacher.module for name, teacher in zip(architectures, teachers, strict=True)}
    network = join(networks, plan.weight_rate)
    with bench.watch(stage_of(group.name)) as progress:
        lessons = bench.lessons(bench.recipe.heads, group.preprocess)
        train(network, lessons, bench.heads, settings, place, progress=progress)
    record = record_of(bench, group, " + ".join(architectures), architectures)
    ask(bench, MemberTeacher(write_member(place, record, network), network, device=settings.device), place)
