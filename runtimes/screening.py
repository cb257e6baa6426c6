"""The result of screening one film, and its form on the wire."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgecxr.decision import FindingResult
from edgecxr.errors import RefusalReason

__all__ = ["STAGES", "Screening"]

STAGES = ("read", "preprocess", "infer")


@dataclass(frozen=True)
class Screening:
    """One film: decided on (`ok`), or refused with a reason and then without a score, a decision or a map."""

    file: str
    status: Literal["ok", "refused"]
    engine: str  # family, e.g. "openvino-cpu"
    precision: str
    kernel: str  # preprocessing kernel, "cpp", "numpy" or "cuda"
    bundle: str  # SHA-256 of the bundle's manifest
    reason: RefusalReason | None = None
    detail: str = ""  # a sentence, for people
    findings: tuple[FindingResult, ...] = ()
    milliseconds: dict[str, float | None] = field(default_factory=dict)  # by stage; None where it was not reached
    cam: NDArray[np.float32] | None = None  # (C, h, w), one map for each class of the spec
    notes: tuple[
        str, ...
    ] = ()  # contradictions found in the header, and how the film was read; whose thresholds, where they are borrowed
    stamp: tuple[int, int] | None = field(default=None, compare=False)  # `file_stamp` before the film was read

    def __post_init__(self) -> None:
        """A refusal with a score, or a result without one, cannot be made. Raises ValueError."""
        if self.status == "refused" and (self.reason is None or self.findings or self.cam is not None):
            raise ValueError(f"{self.file}: a refused film has no finding and no map, and needs a reason")
        if self.status == "ok" and (self.reason is not None or not self.findings):
            raise ValueError(f"{self.file}: a decided film has findings and no reason")

    def to_json(self) -> dict[str, Any]:
        """The object of ``edgecxr screen --jsonl``: plain JSON values, without the map."""
        return {
            "file": self.file,
            "status": self.status,
            "reason": None if self.reason is None else self.reason.value,
            "detail": self.detail,
            "findings": [
                {
                    "name": finding.name,
                    "probability": float(finding.probability),
                    "threshold": float(finding.threshold),
                    "decision": finding.decision,
                }
                for finding in self.findings
            ],
            "engine": self.engine,
            "precision": self.precision,
            "kernel": self.kernel,
            "bundle": self.bundle,
            "milliseconds": {stage: _rounded(self.milliseconds.get(stage)) for stage in STAGES},
            "notes": list(self.notes),
        }


def _rounded(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else round(milliseconds, 3)
