"""One artefact on every engine: outputs on the films of the build, temperatures, thresholds and the refusal gate.

Everything fitted here sees the training films (moments of the refusal gate) or the validation films (all the rest).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecxr.decision import derive_operating_point
from edgecxr.export.bench import Bench
from edgecxr.export.films import Purpose
from edgecxr.export.scored import Scored
from edgecxr.export.stages import Stage
from edgecxr.refusal import EmbeddingGate
from edgecxr.runtimes.graph import Answer, Backend, GraphSession
from edgecxr.scores import class_labels, columns, probabilities
from edgecxr.spec import OperatingPoint, Precision
from edgecxr.statistics import fit_temperature

__all__ = ["FAMILIES", "Artefact", "Fitted", "derive_points", "fit_artefact", "fit_temperatures"]

FAMILIES: dict[str, Backend] = {"openvino-cpu": "openvino", "onnxruntime-cpu": "onnxruntime"}
PURPOSES: tuple[Purpose, ...] = ("train", "validate", "test")
ASKED = [
    (family, purpose) for family in FAMILIES for purpose in PURPOSES if purpose != "train" or family == "openvino-cpu"
]


@dataclass(frozen=True)
class Artefact:
    """One ONNX file of the student, and the stage that made it."""

    precision: Precision
    model: bytes
    stage: str
    method: str  # how it was reached: "export", "cast", "minmax", "nncf", "qat" …

    @property
    def name(self) -> str:
        """The precision, and `-qat` where it was trained for."""
        return f"{self.precision}-qat" if self.method == "qat" else self.precision


@dataclass(frozen=True)
class Fitted:
    """An artefact with what was fitted to it, and what it says about the test films on each engine family."""

    artefact: Artefact
    temperatures: tuple[float, ...]
    points: tuple[OperatingPoint, ...]  # of every engine family
    refusal: EmbeddingGate
    test: Mapping[str, Scored]  # by engine family


def fit_artefact(bench: Bench, artefact: Artefact) -> Fitted:
    """Stage `scores-…` of the artefact, then temperatures, thresholds and refusal gate from its outputs."""
    answers = {
        (family, purpose): _answer(folder, family, purpose)
        for folder in [_scores(bench, artefact)]
        for family, purpose in ASKED
    }
    first = next(iter(FAMILIES))
    known = np.isin(bench.films.rows("validate"), bench.labelled("validate"))
    temperatures = fit_temperatures(bench, answers[first, "validate"].logits[known])
    refusal = EmbeddingGate.fit(
        answers[first, "train"].embedding,
        validation=answers[first, "validate"].embedding,
        quantile=bench.recipe.refusal.quantile,
        slack=bench.recipe.refusal.slack,
    )
    points: dict[str, tuple[OperatingPoint, ...]] = {}
    test: dict[str, Scored] = {}
    for family in FAMILIES:
        logits = answers[family, "validate"].logits[known]
        points[family] = derive_points(bench, logits, temperatures, (artefact.precision, family))
        answer = answers[family, "test"]
        test[family] = Scored(
            f"student {artefact.precision} {family}",
            answer.logits,
            probabilities(answer.logits, bench.heads, temperatures),
            answer.cam,
            answer.embedding,
            points[family],
            refusal,
        )
    return Fitted(
        artefact, temperatures, tuple(point for family in FAMILIES for point in points[family]), refusal, test
    )


def _scores(bench: Bench, artefact: Artefact) -> Path:
    """Stage: the artefact's outputs on all purposes and engines, as the engine gave them."""

    def run(place: Path) -> None:
        images = bench.images(bench.recipe.preprocess)
        for family, backend in FAMILIES.items():
            with GraphSession(artefact.model, backend) as session:
                for purpose in PURPOSES:
                    if (family, purpose) in ASKED:
                        rows = bench.labelled(purpose) if purpose == "test" else bench.films.rows(purpose)
                        answer = session.infer(np.asarray(images[rows], np.float32))
                        np.savez(place / f"{family}.{purpose}.npz", **answer._asdict())

    libraries = {name: version(name) for name in FAMILIES.values()}
    inputs = {"model": hashlib.sha256(artefact.model).hexdigest(), "libraries": libraries, **bench.labels}
    return bench.workshop.run(Stage(f"scores-{artefact.name}", run, inputs, ("data", artefact.stage)))


def _answer(folder: Path, family: str, purpose: str) -> Answer:
    with np.load(folder / f"{family}.{purpose}.npz") as stored:
        return Answer(**{name: stored[name] for name in Answer._fields})


def fit_temperatures(bench: Bench, logits: NDArray[np.float32]) -> tuple[float, ...]:
    """One temperature per head, from logits (N, C) of the labelled validation films."""
    targets = bench.targets(bench.labelled("validate"))
    return tuple(
        fit_temperature(logits[:, part], targets[head.name], head.kind)
        for head, part in zip(bench.heads, columns(bench.heads), strict=True)
    )


def derive_points(
    bench: Bench, logits: NDArray[np.float32], temperatures: tuple[float, ...], origin: tuple[Precision, str]
) -> tuple[OperatingPoint, ...]:
    """Every rule of the recipe for every finding, from logits (N, C) of the labelled validation films."""
    scores = probabilities(logits, bench.heads, temperatures)
    labels = class_labels(bench.heads, bench.targets(bench.labelled("validate")))
    precision, engine = origin
    points = []
    for head in bench.heads:
        for finding in head.findings:
            column = bench.classes.index(finding)
            known = ~np.isnan(labels[:, column])
            points += [
                derive_operating_point(
                    finding, scores[known, column], labels[known, column], rule, precision=precision, engine=engine
                )
                for rule in bench.recipe.operating_points
            ]
    return tuple(points)
