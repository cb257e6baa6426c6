"""Operating points: how a threshold is set, and how a probability becomes a decision (DESIGN 5).

A threshold belongs to one finding of one model at one precision on one engine family. There is no default threshold:
where none was derived, nothing is decided.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, model_validator

from edgecxr.errors import EngineError, StatisticsError
from edgecxr.spec import ModelSpec, OperatingPoint, Precision, Strict

__all__ = ["FindingResult", "OperatingRule", "decide", "derive_operating_point"]

NOISE = 1e-6  # an engine may move a probability by this much from run to run
Target = Annotated[float, Field(gt=0, le=1)]


class OperatingRule(Strict):
    """How a threshold is set on validation films: exactly one of `sensitivity`, `specificity` and `youden`."""

    name: str = "screening"
    sensitivity: Annotated[Target | None, Field(description="highest threshold that finds this share")] = None
    specificity: Annotated[Target | None, Field(description="lowest threshold that clears this share")] = None
    youden: Annotated[bool, Field(description="largest sensitivity + specificity")] = False

    @model_validator(mode="after")
    def _check(self) -> "OperatingRule":
        given = (self.sensitivity is not None) + (self.specificity is not None) + self.youden
        if given != 1:
            raise ValueError(
                f"rule {self.name!r} needs exactly one of sensitivity, specificity, youden; it has {given}"
            )
        return self

    def __str__(self) -> str:
        if self.sensitivity is not None:
            return f"sensitivity >= {self.sensitivity:g}"
        return f"specificity >= {self.specificity:g}" if self.specificity is not None else "largest Youden index"


@dataclass(frozen=True)
class FindingResult:
    """The decision on one finding of one film."""

    name: str
    probability: float  # calibrated, 0 … 1
    threshold: float
    decision: Literal["positive", "negative"]  # positive at or above the threshold


def decide(
    spec: ModelSpec, probabilities: ArrayLike, precision: Precision, engine: str, *, point: str = "screening"
) -> tuple[FindingResult, ...]:
    """One result per finding of the model, in the order of its logits.

    `probabilities` (C,) are calibrated; `engine` is the engine family, e.g. ``"openvino-cpu"``. Raises EngineError when
    a finding has no threshold of this name for this precision on this engine family, or a probability is not one.
    """
    values = np.asarray(probabilities, np.float64)
    if values.shape != (len(spec.classes),) or not ((values >= 0) & (values <= 1)).all():
        raise EngineError(f"want {len(spec.classes)} probabilities in [0, 1], got {values}")
    scores = dict(zip(spec.classes, values.tolist(), strict=True))
    thresholds = {
        entry.finding: entry.threshold
        for entry in spec.operating_points
        if (entry.name, entry.precision, entry.engine) == (point, precision, engine)
    }
    missing = [name for name in spec.findings if name not in thresholds]
    if missing:
        raise EngineError(_no_threshold(spec, missing, f"{point!r} for {precision} on {engine}"))
    return tuple(_result(name, scores[name], thresholds[name]) for name in spec.findings)


def derive_operating_point(
    finding: str,
    probabilities: ArrayLike,
    labels: ArrayLike,
    rule: OperatingRule,
    *,
    precision: Precision,
    engine: str,
    films: str = "validation films",
) -> OperatingPoint:
    """Set the threshold of one finding by `rule`, on films that were not trained on.

    `probabilities` (N,) calibrated, as this precision on this engine gave them; `labels` (N,) 0/1 or bool. The
    threshold lies midway between two neighbouring scores that are further apart than engine noise (±1e-6), so that a
    film of this set is decided the same way in every run. Raises StatisticsError where no threshold obeys the rule.
    """
    scores, truth = np.asarray(probabilities, np.float64), np.asarray(labels)
    if scores.shape != truth.shape or scores.ndim != 1 or not ((scores >= 0) & (scores <= 1)).all():
        raise StatisticsError(f"{finding}: want (N,) probabilities in [0, 1] and as many labels")
    if not np.isin(truth, (0, 1)).all():
        raise StatisticsError(f"{finding}: labels are not all 0 or 1; leave out the films whose label is unknown")
    positives, negatives = int((truth == 1).sum()), int((truth == 0).sum())
    if not positives or not negatives:
        raise StatisticsError(f"{finding}: {positives} positive and {negatives} negative films; a threshold needs both")
    cuts = _cuts(scores)
    found = positives - np.searchsorted(np.sort(scores[truth == 1]), cuts)  # positive films at or above each cut
    cleared = np.searchsorted(np.sort(scores[truth == 0]), cuts)  # negative films below each cut
    best = _choose(rule, found / positives, cleared / negatives)
    if best is None:
        raise StatisticsError(f"{finding}: no threshold has {rule} on {positives} positive, {negatives} negative films")
    return OperatingPoint(
        name=rule.name,
        finding=finding,
        precision=precision,
        engine=engine,
        threshold=float(cuts[best]),
        rule=f"{rule} on {positives} positive and {negatives} negative {films}",
        sensitivity=float(found[best] / positives),
        specificity=float(cleared[best] / negatives),
    )


def _result(name: str, probability: float, threshold: float) -> FindingResult:
    return FindingResult(name, probability, threshold, "positive" if probability >= threshold else "negative")


def _no_threshold(spec: ModelSpec, missing: list[str], wanted: str) -> str:
    there = sorted({f"{entry.name!r} for {entry.precision} on {entry.engine}" for entry in spec.operating_points})
    return (
        f"model {spec.name} {spec.version} has no threshold {wanted} for {', '.join(missing)}; "
        f"it has: {'; '.join(there) or 'none'}. Choose one of these, or add it to the recipe and build again"
    )


def _cuts(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """(K,) rising thresholds: 0, then midway in every gap wider than engine noise, up to 1 (nothing reaches it)."""
    ladder = np.sort(scores)
    gaps = np.flatnonzero(np.diff(ladder) > 4 * NOISE)
    middle = (ladder[gaps] + ladder[gaps + 1]) / 2
    low = ladder[0] / 2  # all films positive
    high = [(ladder[-1] + 1) / 2] if 1 - ladder[-1] > 4 * NOISE else []  # none
    return np.concatenate([[low if low > 2 * NOISE else 0.0], middle, high])


def _choose(rule: OperatingRule, sensitivity: NDArray[np.float64], specificity: NDArray[np.float64]) -> int | None:
    """Index of the cut that the rule names; the higher threshold wins for sensitivity, the lower one otherwise."""
    slack = 1e-9  # 0.9 of 10 films is 9 films
    if rule.sensitivity is not None:
        good = np.flatnonzero(sensitivity >= rule.sensitivity - slack)
        return int(good[-1]) if len(good) else None
    if rule.specificity is not None:
        good = np.flatnonzero(specificity >= rule.specificity - slack)
        return int(good[0]) if len(good) else None
    return int(np.argmax(np.round(sensitivity + specificity, 9)))
