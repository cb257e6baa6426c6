"""What is fitted to one artefact: temperatures, thresholds and the refusal gate; and its scores of the test films.

Fitting sees the training films (the refusal gate's picture of a film) and the validation films (all the rest).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecxr.decision import derive_operating_point
from edgecxr.export.bench import Bench
from edgecxr.export.outputs import FAMILIES, Artefact, Outputs, collect_outputs
from edgecxr.export.scored import Scored
from edgecxr.refusal import EmbeddingGate
from edgecxr.scores import class_labels, columns, probabilities
from edgecxr.spec import OperatingPoint, Precision
from edgecxr.statistics import fit_temperature

__all__ = ["Fitted", "derive_points", "fit_artefact", "fit_temperatures"]


@dataclass(frozen=True)
class Fitted:
    """An artefact with what was fitted to it, and what it says about the test films on each engine family."""

    artefact: Artefact
    temperatures: tuple[float, ...]
    refusal: EmbeddingGate
    test: Mapping[str, Scored]  # by engine family, each with its own thresholds

    @property
    def points(self) -> tuple[OperatingPoint, ...]:
        """Thresholds of every engine family."""
        return tuple(point for scored in self.test.values() for point in scored.points)


def fit_artefact(bench: Bench, artefact: Artefact) -> Fitted:
    """Stage `scores-…` of the artefact, then everything that is fitted to its outputs."""
    outputs = collect_outputs(bench, artefact)
    known = np.isin(bench.films.rows("validate"), bench.labelled("validate"))
    logits = {family: answer.logits[known] for family, answer in outputs.validate.items()}
    temperatures = fit_temperatures(bench, logits[next(iter(FAMILIES))])
    refusal = _fit_refusal(bench, outputs)
    test: dict[str, Scored] = {}
    for family, answer in outputs.test.items():
        test[family] = Scored(
            f"student {artefact.name} {family}",
            answer.logits,
            probabilities(answer.logits, bench.heads, temperatures),
            answer.cam,
            answer.embedding,
            derive_points(bench, logits[family], temperatures, (artefact.precision, family)),
            refusal,
        )
    return Fitted(artefact, temperatures, refusal, test)


def _fit_refusal(bench: Bench, outputs: Outputs) -> EmbeddingGate:
    plan = bench.recipe.refusal
    return EmbeddingGate.fit(
        outputs.train,
        validation=outputs.validate[next(iter(FAMILIES))].embedding,
        misfits=outputs.misfit,
        variants=outputs.variant,
        quantile=plan.quantile,
        slack=plan.slack,
    )


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
