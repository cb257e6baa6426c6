"""Which student: what INT8 keeps of each candidate, and what it costs, on both CPU engines.

Scenario: every candidate learns the same films for the same few epochs, is calibrated on training films and quantized;
then, on films that it has not seen: decisions (largest logit) that change from FP32 to INT8 and from OpenVINO to ONNX
Runtime, correlation of the maps, and the time of one film. The number: decisions changed of 100, beside p50 in ms.

    python bench/students.py                                     (phantoms)
    python bench/students.py --films FOLDER --student resnet18   (a folder with labels.csv: file, patient, label, fold)
"""

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import harness
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from edgecxr.dataset import HeadColumns, load_dataset
from edgecxr.export.student import CANDIDATES, build_student
from edgecxr.export.to_fp16 import to_fp16
from edgecxr.export.to_int8 import OutputLoss, output_loss, quantize
from edgecxr.export.to_onnx import to_onnx
from edgecxr.phantom import FINDINGS, write_dataset
from edgecxr.runtimes.graph import Answer, Backend, GraphSession
from edgecxr.spec import Head, PreprocessSpec
from edgecxr.teachers.film_cache import build_film_cache
from edgecxr.teachers.progress import bar
from edgecxr.teachers.training import Samples, TrainSettings, train

BACKENDS: tuple[Backend, ...] = ("openvino", "onnxruntime")
HEAD = Head(name="finding", kind="softmax", classes=FINDINGS, reference="normal")
CALIBRATION = 100
Row = dict[str, Any]


class Films(NamedTuple):
    """Folds 0 to 2 for training and calibration, fold 3 for choosing and judging."""

    training: Samples
    validation: Samples


def main() -> None:
    arguments = parsed()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as place:
        films = prepared(arguments, Path(place))
        rows = {name: judged(name, films, arguments, Path(place) / name) for name in arguments.student or CANDIDATES}
    path = harness.write_result("students", vars(arguments), rows)
    show(rows)
    Console().print(f"stored in {path}", style="dim")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", help="a folder with labels.csv; phantoms without it")
    parser.add_argument("--student", action="append", default=[], metavar="NAME", help="a timm backbone, repeatable")
    parser.add_argument("--phantoms", type=int, default=60, help="phantoms of each finding")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    return parser.parse_args()


def prepared(arguments: argparse.Namespace, place: Path) -> Films:
    folder = Path(arguments.films) if arguments.films else write_dataset(place / "phantoms", arguments.phantoms)
    dataset = load_dataset(folder, heads=[HeadColumns(head=HEAD, column="label")]).select((0, 1, 2, 3))
    cache = build_film_cache(dataset, PreprocessSpec(size=arguments.size), place / "cache")
    return Films(*(_samples(cache, dataset.select(folds)) for folds in ((0, 1, 2), (3,))))


def _samples(cache: Any, part: Any) -> Samples:
    targets = part.targets(HEAD, "label")
    rows = cache.rows(part)[targets >= 0]
    return Samples(np.asarray(cache.images[rows], np.float32), {HEAD.name: targets[targets >= 0]})


def judged(name: str, films: Films, arguments: argparse.Namespace, folder: Path) -> Row:
    """Train, export and quantize one candidate; its answers and times."""
    torch.manual_seed(0)
    student = build_student(name, len(FINDINGS))
    settings = TrainSettings(epochs=arguments.epochs, average=0.9)
    with bar(name) as progress:
        train(student, films, (HEAD,), settings, folder, progress=progress)
    fp32 = to_onnx(student, arguments.size, classes=FINDINGS)
    unseen = films.validation.images.astype(np.float32)
    calibration = films.training.images[:: max(1, len(films.training) // CALIBRATION)].astype(np.float32)
    int8 = quantize(fp32, calibration, score=OutputLoss(fp32, unseen))
    models = {"fp32": fp32, "fp16": to_fp16(fp32), "int8": int8.model}
    sessions = {
        (k, b): GraphSession(model, b, threads=arguments.threads) for k, model in models.items() for b in BACKENDS
    }
    answers = {key: session.infer(unseen) for key, session in sessions.items()}
    film = unseen[:1]
    calls = {" ".join(key): lambda session=session: session.infer(film) for key, session in sessions.items()}  # type: ignore[misc]
    times = harness.interleaved(calls, rounds=arguments.rounds)
    return {
        "parameters": sum(part.numel() for part in student.parameters()),
        "films": len(unseen),
        "accuracy": float((_decided(answers["fp32", "openvino"]) == films.validation.targets[HEAD.name]).mean()),
        "method": int8.method,
        "changed_int8_fp32": changed(answers["int8", "openvino"], answers["fp32", "openvino"]),
        "changed_fp16_fp32": changed(answers["fp16", "openvino"], answers["fp32", "openvino"]),
        "changed_between_engines": changed(answers["int8", "openvino"], answers["int8", "onnxruntime"]),
        "loss": output_loss(answers["fp32", "openvino"], answers["int8", "openvino"]),
        "ms": {call: harness.summary(samples) for call, samples in times.items()},
        "tried": {attempt.method: attempt.loss for attempt in int8.tried},
    }


def _decided(answer: Answer) -> NDArray[np.intp]:
    decided: NDArray[np.intp] = answer.logits.argmax(1)
    return decided


def changed(one: Answer, other: Answer) -> int:
    """Films whose decision differs."""
    return int((_decided(one) != _decided(other)).sum())


def show(rows: dict[str, Row]) -> None:
    table = Table("student", "params M", "accuracy", "fp32 ms", "fp16 ms", "int8 ms", "INT8≠FP32", "OV≠ORT", "loss")
    table.title = "OpenVINO, one film; decisions changed on unseen films"
    for name, row in rows.items():
        ms = [f"{row['ms'][f'{precision} openvino']['p50']:.2f}" for precision in ("fp32", "fp16", "int8")]
        flips = [f"{row[key]}/{row['films']}" for key in ("changed_int8_fp32", "changed_between_engines")]
        table.add_row(
            name, f"{row['parameters'] / 1e6:.1f}", f"{row['accuracy']:.2f}", *ms, *flips, f"{row['loss']:.3f}"
        )
    Console().print(table)


if __name__ == "__main__":
    main()
