"""The student: pre-trained where the recipe says so, distilled from the fused teachers, one of several, as FP32."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgecxr.errors import StageError
from edgecxr.export import lint, to_onnx
from edgecxr.export.bench import Bench
from edgecxr.export.distillation import distill
from edgecxr.export.libraries import versions
from edgecxr.export.live import live_teacher
from edgecxr.export.outputs import Artefact
from edgecxr.export.precisions import MEASURING, quantize_student
from edgecxr.export.recipe import Pretrain
from edgecxr.export.stages import Stage, code_of
from edgecxr.export.student import Student, build_student
from edgecxr.runtimes.graph import GraphSession
from edgecxr.scores import columns
from edgecxr.teachers.ensemble import negative_log_likelihood
from edgecxr.teachers.training import train
from edgecxr.teachers.weights import read_weights, transfer_weights, write_weights

__all__ = ["Measured", "choose_student", "fastest_of_the_best", "soft_targets"]

WEIGHTS = "student.safetensors"
MODEL = "fp32.onnx"
RECORD = "student.json"
TIMED = 50  # runs of the INT8 graph; their median is what is compared


@dataclass(frozen=True)
class Measured:
    """A candidate after INT8: negative log-likelihood per validation film (nats), and milliseconds per film."""

    architecture: str
    loss: float
    milliseconds: float


def choose_student(bench: Bench, fused: NDArray[np.float32]) -> tuple[str, Artefact]:
    """Stages `distill-…` and `onnx-…` of each candidate, and `student`: the chosen architecture, and its FP32 graph."""
    names = bench.recipe.student.names
    folders = {name: _exported(bench, name, _distilled(bench, fused, name)) for name in names}

    def run(place: Path) -> None:
        measured = [_measure(bench, name, (folders[name] / MODEL).read_bytes()) for name in names if len(names) > 1]
        chosen = fastest_of_the_best(measured, bench.recipe.student.loss_slack) if measured else names[0]
        told = {"chosen": chosen, "measured": [vars(item) for item in measured]}
        (place / RECORD).write_text(json.dumps(told, indent=1))
        (place / MODEL).write_bytes((folders[chosen] / MODEL).read_bytes())

    slack = bench.recipe.student.loss_slack
    measuring = {"slack": slack, "libraries": versions(*MEASURING), **bench.calibration}
    inputs = {"of": list(names), **(measuring if len(names) > 1 else {})}
    folder = bench.workshop.run(Stage("student", run, inputs, tuple(f"onnx-{name}" for name in names)))
    chosen = str(json.loads((folder / RECORD).read_text())["chosen"])
    return chosen, Artefact("fp32", (folder / MODEL).read_bytes(), "student", "export")


def fastest_of_the_best(measured: list[Measured], slack: float) -> str:
    """Of the candidates whose loss is within `slack` of the smallest, the fastest."""
    least = min(item.loss for item in measured)
    return min(
        (item for item in measured if item.loss <= least + slack), key=lambda item: item.milliseconds
    ).architecture


def soft_targets(bench: Bench, fused: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The ensemble's logits of the training and the validation films that a student learns from."""
    return fused[bench.films.rows("train")], fused[bench.labelled("validate")]


def _distilled(bench: Bench, fused: NDArray[np.float32], name: str) -> Path:
    recipe = bench.recipe
    plan = recipe.pretrain if recipe.student.pretrain else None
    before = _pretrained(bench, name, plan) if plan else None
    inputs = {**_network(bench, name), "settings": recipe.student.distillation.model_dump(mode="json"), **bench.labels}
    if recipe.student.teaching == "live":
        inputs["teaching"] = "live"
    upstream = ("data", "fuse", *((_pretrain_stage(name),) if before else ()))

    def run(place: Path) -> None:
        _distill(bench, fused, name, place, before)

    return bench.workshop.run(Stage(f"distill-{name}", run, inputs, upstream, resumable=True))


def _network(bench: Bench, name: str) -> dict[str, Any]:
    return {
        "architecture": name,
        "options": bench.recipe.student.model_dump(mode="json")["options"],
        "preprocess": bench.recipe.preprocess.model_dump(mode="json"),
    }


def _pretrain_stage(name: str) -> str:
    return f"pretrain-student-{name}"


def _pretrained(bench: Bench, name: str, plan: Pretrain) -> Path:
    """Stage `pretrain-student-<name>`: the candidate on the labels of `plan`, as the teachers learn them."""
    stage = _pretrain_stage(name)

    def run(place: Path) -> None:
        settings = bench.seeded(plan.training, stage)
        student = _built(bench, name, sum(len(item.head.classes) for item in plan.heads), settings.seed)
        lessons = bench.lessons(plan.heads, bench.recipe.preprocess, plan.folds)
        with bench.watch(stage) as progress:
            train(student, lessons, [item.head for item in plan.heads], settings, place, progress=progress)
        write_weights(place / WEIGHTS, student.state_dict())

    inputs = {**_network(bench, name), "plan": plan.model_dump(mode="json"), **bench.labels}
    return bench.workshop.run(Stage(stage, run, inputs, ("data",), resumable=True))


def _distill(bench: Bench, fused: NDArray[np.float32], name: str, place: Path, before: Path | None) -> None:
    settings = bench.seeded(bench.recipe.student.distillation, name)
    student = _built(bench, name, len(bench.classes), settings.seed)
    if before is not None:
        transfer_weights(_backbone(read_weights(before / WEIGHTS, ())), student)
    with bench.watch(f"distill {name}") as progress:
        soft = soft_targets(bench, fused)
        live = live_teacher(bench) if bench.recipe.student.teaching == "live" else None
        distill(student, bench.samples(), soft, bench.heads, settings, folder=place, teacher=live, progress=progress)
    write_weights(place / WEIGHTS, student.state_dict())


def _backbone(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A student's weights without its head, whose outputs stand for the classes of `pretrain`, in their order."""
    return {name: value for name, value in weights.items() if not name.startswith("head.")}


def _built(bench: Bench, name: str, classes: int, seed: int = 0) -> Student:
    """A student with weights drawn from `seed`. Raises StageError as `build_student` does."""
    torch.manual_seed(seed)
    try:
        return build_student(name, classes, options=bench.recipe.student.options)
    except ValueError as error:
        raise StageError(f"student: {error}") from error


def _exported(bench: Bench, name: str, distilled: Path) -> Path:
    """Stage `onnx-<name>`: the FP32 graph of a distilled candidate."""

    def run(place: Path) -> None:
        student = _built(bench, name, len(bench.classes))
        student.load_state_dict(read_weights(distilled / WEIGHTS, ()))
        model = to_onnx.to_onnx(student.eval(), bench.recipe.preprocess.size, classes=bench.classes)
        lint.lint(model, "fp32")
        (place / MODEL).write_bytes(model)

    return bench.workshop.run(Stage(f"onnx-{name}", run, {"code": code_of(to_onnx, lint)}, (f"distill-{name}",)))


def _measure(bench: Bench, name: str, fp32: bytes) -> Measured:
    """INT8 by calibration, then its loss on the validation films and its speed in OpenVINO."""
    rows = bench.labelled("validate")
    images = np.asarray(bench.images(bench.recipe.preprocess)[rows], np.float32)
    with GraphSession(quantize_student(bench, fp32).model, "openvino") as session:
        logits = session.infer(images).logits
        spent = []
        for index in range(TIMED):
            start = time.perf_counter()
            session.infer(images[index % len(images)][np.newaxis])
            spent.append(time.perf_counter() - start)
    targets = bench.targets(rows)
    parts = zip(bench.heads, columns(bench.heads), strict=True)
    loss = sum(negative_log_likelihood(logits[:, part], targets[head.name], head) for head, part in parts)
    return Measured(name, loss / len(rows), float(np.median(spent)) * 1e3)
