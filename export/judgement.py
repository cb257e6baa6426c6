"""The gate over a whole build: ensemble, student and every precision on every engine, on the test films only."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecxr.export.bench import Bench
from edgecxr.export.ensemble_maps import maps_of_test_films
from edgecxr.export.evaluation import evaluate
from edgecxr.export.gate import GateMargins, GateReport, compare
from edgecxr.export.outputs import FAMILIES
from edgecxr.export.scored import Scored
from edgecxr.export.scoring import Fitted, derive_points, fit_temperatures
from edgecxr.scores import columns, probabilities

__all__ = ["Verdict", "agreement", "figures", "judge_precision", "judge_student", "score_ensemble"]


@dataclass(frozen=True)
class Verdict:
    """Whether a candidate may be packed, and the comparisons that say so."""

    passed: bool
    reason: str
    reports: tuple[GateReport, ...]

    @classmethod
    def of(cls, reports: Sequence[GateReport]) -> "Verdict":
        """Passed when every comparison is."""
        failed = [f"{report.comparison}: {report.reason}" for report in reports if not report.passed]
        return cls(not failed, "; ".join(failed) or reports[0].reason, tuple(reports))


def score_ensemble(bench: Bench, logits: NDArray[np.float32]) -> Scored:
    """The fused teachers on the test films, with their own temperature and thresholds; `logits` (N, C): all films."""
    temperatures = fit_temperatures(bench, logits[bench.labelled("validate")])
    points = derive_points(bench, logits[bench.labelled("validate")], temperatures, ("fp32", "pytorch"))
    test = logits[bench.labelled("test")]
    return Scored("ensemble fp32 pytorch", test, probabilities(test, bench.heads, temperatures), points=points)


def judge_student(bench: Bench, ensemble: Scored, student: Fitted) -> Verdict:
    """The FP32 student against the ensemble, on the first engine family."""
    reference, candidate = _with_like_maps(bench, ensemble, student.test[next(iter(FAMILIES))])
    return Verdict.of([_compare(bench, reference, candidate, bench.recipe.student_margins)])


def judge_precision(bench: Bench, student: Fitted, candidate: Fitted) -> Verdict:
    """One precision against FP32, on every engine family."""
    pairs = [(student.test[family], candidate.test[family]) for family in FAMILIES]
    return Verdict.of([_compare(bench, reference, other, bench.recipe.gate) for reference, other in pairs])


def _with_like_maps(bench: Bench, ensemble: Scored, student: Scored) -> tuple[Scored, Scored]:
    """Both with maps that can be compared: of one size, and centred over the classes of a softmax head.

    What all classes of such a head share says nothing of any, and two networks that were trained apart share none.
    """
    if student.cam is None:
        return ensemble, student
    maps = maps_of_test_films(bench, (student.cam.shape[2], student.cam.shape[3]))
    own = np.array(student.cam, np.float32)
    for head, part in zip(bench.heads, columns(bench.heads), strict=True):
        if head.kind == "softmax":
            own[:, part] -= own[:, part].mean(axis=1, keepdims=True)
    return replace(ensemble, cam=maps), replace(student, cam=own)


def _compare(bench: Bench, reference: Scored, candidate: Scored, margins: GateMargins) -> GateReport:
    targets = bench.targets(bench.labelled("test"))
    return compare(reference, candidate, targets, bench.heads, margins, points=_points(bench), seed=bench.recipe.seed)


def _points(bench: Bench) -> list[str]:
    """Names of the operating points that are shipped."""
    return [rule.name for rule in bench.recipe.operating_points]


def figures(bench: Bench, models: Sequence[Scored]) -> list[dict[str, Any]]:
    """Every metric of every model on the test films, with its interval."""
    targets = bench.targets(bench.labelled("test"))
    return [evaluate(model, targets, bench.heads, seed=bench.recipe.seed) for model in models]


def agreement(bench: Bench, fitted: Fitted) -> dict[str, Any]:
    """How far the engines are apart on the test films: largest difference of a probability, decisions that flip."""
    first, second = (fitted.test[family] for family in FAMILIES)
    return {
        "name": fitted.artefact.name,
        "precision": fitted.artefact.precision,
        "engines": list(FAMILIES),
        "films": first.films,
        "largest_difference": float(np.abs(first.probabilities - second.probabilities).max()),
        "points": [
            {
                "name": point,
                "flips": _flips(bench, first, second, point),
                "flips_at_one_threshold": _flips(bench, first, second, point, shared=True),
            }
            for point in _points(bench)
        ],
    }


def _flips(bench: Bench, first: Scored, second: Scored, point: str, *, shared: bool = False) -> dict[str, int]:
    """Films decided differently, by finding: each engine at its own threshold, or both at the first one's."""
    flips = {}
    for column, name in enumerate(bench.classes):
        if name in {finding for head in bench.heads for finding in head.findings}:
            here = first.threshold(name, point)
            there = here if shared else second.threshold(name, point)
            differ = (first.probabilities[:, column] >= here) != (second.probabilities[:, column] >= there)
            flips[name] = int(differ.sum())
    return flips
