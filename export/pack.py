"""Packing: what passed becomes one file, and the file proves itself before the build is called done."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgecxr.bundle import Bundle, write_bundle
from edgecxr.errors import EngineError
from edgecxr.export.bench import Bench
from edgecxr.export.card import write_card
from edgecxr.export.golden_set import make_golden
from edgecxr.export.lint import lint
from edgecxr.export.scoring import Fitted
from edgecxr.runtimes.registry import ENGINES, open_engine
from edgecxr.spec import ModelSpec, Precision

__all__ = ["model_spec", "pack", "verify"]


def model_spec(bench: Bench, fp32: Fitted, packed: Mapping[Precision, Fitted]) -> ModelSpec:
    """The model's typed form: temperatures and thresholds of every packed precision."""
    recipe, answer = bench.recipe, next(iter(fp32.test.values()))
    if answer.cam is None or answer.embeddings is None:
        raise EngineError("the student gave no map or no embedding")
    return ModelSpec(
        name=recipe.name,
        version=recipe.version,
        heads=bench.heads,
        preprocess=recipe.preprocess,
        temperatures={"fp32": fp32.temperatures, **{name: item.temperatures for name, item in packed.items()}},
        operating_points=tuple(point for item in packed.values() for point in item.points),
        cam_shape=(answer.cam.shape[2], answer.cam.shape[3]),
        embedding_size=answer.embeddings.shape[1],
        reading=recipe.reading,
    )


def pack(
    bench: Bench,
    path: Path,
    fitted: tuple[Fitted, Mapping[Precision, Fitted]],
    evaluation: Mapping[str, Any],
    origin: Mapping[str, Any],
) -> Path:
    """Write the bundle of `fitted` = (FP32 student, what passed the gate)."""
    fp32, packed = fitted
    recipe, spec = bench.recipe, model_spec(bench, *fitted)
    models = {name: item.artefact.model for name, item in packed.items()}
    for name, model in models.items():
        lint(model, name, spec)
    count, size, tolerance = recipe.golden.frames, recipe.golden.size, recipe.quantize.tolerance
    golden = make_golden(spec, {"fp32": fp32.artefact.model, **models}, count=count, size=size)
    return write_bundle(
        path,
        model=spec,
        models=models,
        golden=golden,
        gates={name: item.refusal for name, item in packed.items()},
        evaluation=evaluation,
        card=write_card(bench, origin, evaluation),
        provenance=origin,
        tolerance=tolerance,
    )


def verify(path: Path) -> list[str]:
    """Open the written file as a user would, and run its golden set on every engine here; one line each.

    Raises BundleError when the file is not whole, EngineError when an engine does not reproduce it.
    """
    bundle = Bundle.open(path)
    bundle.verify()
    lines = [f"digest {bundle.digest[:12]}, every member whole"]
    for engine in ENGINES:
        for precision in bundle.precisions:
            with open_engine(bundle, engine, precision, point=None) as running:
                lines.append(f"{running.family} {precision}: reproduces the golden set")
    return lines
