"""INT8 by training, where calibration alone does not pass the gate."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecxr.export import qat, qdq
from edgecxr.export.bench import Bench
from edgecxr.export.calibration import observe
from edgecxr.export.lint import lint
from edgecxr.export.outputs import Artefact
from edgecxr.export.precisions import calibration_rows
from edgecxr.export.stages import Stage, code_of
from edgecxr.export.students import soft_targets

__all__ = ["make_qat"]

MODEL = "model.onnx"
STAGE = "int8-qat"


def make_qat(bench: Bench, fp32: Artefact, fused: NDArray[np.float32]) -> Artefact:
    """Stage `int8-qat`: the student goes on learning between fake integers."""
    settings = bench.recipe.quantize.qat_training

    def run(place: Path) -> None:
        images = bench.images(bench.recipe.preprocess)
        seen = observe(fp32.model, np.asarray(images[calibration_rows(bench)], np.float32))
        ranges, soft = seen.ranges("percentile"), soft_targets(bench, fused)
        own = bench.seeded(settings, STAGE)
        with bench.watch(STAGE) as progress:
            model, result = qat.fine_tune(
                fp32.model, ranges, bench.samples(), soft, bench.heads, own, folder=place, progress=progress
            )
        lint(model, "int8")
        (place / MODEL).write_bytes(model)
        (place / "report.json").write_text(json.dumps({"best_epoch": result.best_epoch, "best": result.best}))

    inputs = {"code": code_of(qat, qdq), "settings": settings.model_dump(mode="json"), **bench.labels}
    folder = bench.workshop.run(Stage(STAGE, run, inputs, ("data", "fuse", fp32.stage), resumable=True))
    return Artefact("int8", (folder / MODEL).read_bytes(), STAGE, "qat")
