"""INT8 by training, where calibration alone does not pass the gate."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecxr.export import calibration, qat, qdq
from edgecxr.export.bench import Bench
from edgecxr.export.calibration import observe
from edgecxr.export.lint import lint
from edgecxr.export.outputs import Artefact
from edgecxr.export.precisions import calibration_rows
from edgecxr.export.stages import Stage, code_of
from edgecxr.export.students import soft_targets
from edgecxr.teachers.weights import write_atomic

__all__ = ["make_qat"]

MODEL = "model.onnx"
RANGES = "ranges.json"
STAGE = "int8-qat"


def make_qat(bench: Bench, fp32: Artefact, fused: NDArray[np.float32]) -> Artefact:
    """Stage `int8-qat`: the student goes on learning between fake integers."""
    settings = bench.recipe.quantize.qat_training

    def run(place: Path) -> None:
        ranges, soft = _ranges(bench, fp32, place), soft_targets(bench, fused)
        own = bench.seeded(settings, STAGE)
        with bench.watch(STAGE) as progress:
            model, result = qat.fine_tune(
                fp32.model, ranges, bench.samples(), soft, bench.heads, own, folder=place, progress=progress
            )
        lint(model, "int8")
        (place / MODEL).write_bytes(model)
        (place / "report.json").write_text(json.dumps({"best_epoch": result.best_epoch, "best": result.best}))

    chosen = {"settings": settings.model_dump(mode="json"), "films": bench.recipe.quantize.calibration_films}
    inputs = {"code": code_of(calibration, qat, qdq), **chosen, **bench.labels}
    folder = bench.workshop.run(Stage(STAGE, run, inputs, ("data", "fuse", fp32.stage), resumable=True))
    return Artefact("int8", (folder / MODEL).read_bytes(), STAGE, "qat")


def _ranges(bench: Bench, fp32: Artefact, place: Path) -> dict[str, float]:
    """What calibration observes, once: a training that is taken up again must begin with the very same numbers."""
    path = place / RANGES
    if not path.is_file():
        images = np.asarray(bench.images(bench.recipe.preprocess)[calibration_rows(bench)], np.float32)
        write_atomic(path, json.dumps(observe(fp32.model, images).ranges("percentile"), indent=1).encode())
    found: dict[str, float] = json.loads(path.read_bytes())
    return found
