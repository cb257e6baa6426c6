"""`evaluation.json`: every figure of a build, on the test films, with its interval.

models     [ `evaluate(...)` of the ensemble, of the FP32 student, and of each precision, on each engine ]
gate       [ `GateReport.to_json()`: student against ensemble, each precision against FP32, on each engine ]
agreement  [ per artefact: largest difference of a probability between the engines, and decisions that flip at each
             operating point ]
precisions [ {"name", "precision", "method", "bytes", "packed", "reason", "tensorrt"} ]
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Protocol

from edgecxr.export.bench import Bench
from edgecxr.export.judgement import Verdict, agreement, figures
from edgecxr.export.scored import Scored
from edgecxr.export.scoring import Fitted
from edgecxr.export.tensorrt_check import build_with_tensorrt

__all__ = ["evaluation_record"]


class Judged(Protocol):
    """A precision with what the gate says of it."""

    @property
    def fitted(self) -> Fitted: ...

    @property
    def verdict(self) -> Verdict: ...


def evaluation_record(
    bench: Bench, ensemble: Scored, fp32: Fitted, student: Verdict, candidates: Sequence[Judged]
) -> dict[str, Any]:
    """Plain JSON; the keys are above."""
    others = [item.fitted for item in candidates if item.fitted is not fp32]
    scored = [ensemble, *(model for fitted in (fp32, *others) for model in fitted.test.values())]
    verdicts = [student, *(item.verdict for item in candidates)]
    return {
        "models": figures(bench, scored),
        "gate": [report.to_json() for verdict in verdicts for report in verdict.reports],
        "agreement": [agreement(bench, fitted) for fitted in (fp32, *others)],
        "precisions": [_precision(item) for item in candidates],
    }


def _precision(judged: Judged) -> dict[str, Any]:
    artefact, verdict = judged.fitted.artefact, judged.verdict
    return {
        "name": artefact.name,
        "precision": artefact.precision,
        "method": artefact.method,
        "bytes": len(artefact.model),
        "packed": verdict.passed,
        "reason": verdict.reason,
        "tensorrt": _plain(asdict(build_with_tensorrt(artefact.model))),
    }


def _plain(report: dict[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in report.items()}
