"""The precisions of a student: FP16 by cast, INT8 by calibration, INT8 by training where the gate asks for it."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecxr.export import calibration, lint, qdq, to_fp16, to_int8
from edgecxr.export.bench import Bench
from edgecxr.export.libraries import versions
from edgecxr.export.outputs import Artefact
from edgecxr.export.stages import Stage, code_of
from edgecxr.export.to_int8 import METHODS, OutputLoss, Quantized

__all__ = ["MEASURING", "calibration_rows", "make_fp16", "make_int8", "quantize_student"]

MODEL = "model.onnx"
REPORT = "report.json"
MEASURING = ("onnx", "onnxruntime", "openvino")  # whose versions decide what calibration measures and chooses


def make_fp16(bench: Bench, fp32: Artefact) -> Artefact:
    """Stage `fp16`."""

    def run(place: Path) -> None:
        model = to_fp16.to_fp16(fp32.model)
        lint.lint(model, "fp16")
        (place / MODEL).write_bytes(model)

    inputs = {"code": code_of(to_fp16, lint), "libraries": versions("onnx", "onnxconverter-common")}
    folder = bench.workshop.run(Stage("fp16", run, inputs, (fp32.stage,)))
    return Artefact("fp16", (folder / MODEL).read_bytes(), "fp16", "cast")


def make_int8(bench: Bench, fp32: Artefact) -> Artefact:
    """Stage `int8`: the method that loses least on the validation films."""

    def run(place: Path) -> None:
        write_quantized(place, quantize_student(bench, fp32.model))

    own = {"code": code_of(calibration, qdq, to_int8, lint), "libraries": versions(*MEASURING)}
    inputs = {**own, **bench.calibration, **bench.labels}
    folder = bench.workshop.run(Stage("int8", run, inputs, (fp32.stage, "data")))
    return Artefact("int8", (folder / MODEL).read_bytes(), "int8", json.loads((folder / REPORT).read_text())["method"])


def quantize_student(bench: Bench, fp32: bytes) -> Quantized:
    """INT8 calibrated on training films, its method chosen on validation films."""
    images = bench.images(bench.recipe.preprocess)
    methods = [method for method in METHODS if method.ranges in bench.recipe.quantize.methods]
    score = OutputLoss(fp32, np.asarray(images[bench.labelled("validate")], np.float32))
    return to_int8.quantize(fp32, np.asarray(images[calibration_rows(bench)], np.float32), methods=methods, score=score)


def calibration_rows(bench: Bench) -> NDArray[np.intp]:
    """Training films for calibration: drawn once from the recipe's seed."""
    rows = bench.labelled("train")
    count = min(bench.recipe.quantize.calibration_films, len(rows))
    return np.sort(np.random.default_rng(bench.recipe.seed).choice(rows, count, replace=False))


def write_quantized(place: Path, quantized: Quantized) -> None:
    """The model, and every method that was tried."""
    (place / MODEL).write_bytes(quantized.model)
    tried = [{"method": item.method, "loss": item.loss, "problem": item.problem} for item in quantized.tried]
    (place / REPORT).write_text(
        json.dumps({"method": quantized.method, "loss": quantized.loss, "tried": tried}, indent=1)
    )
