"""The object of ``screen --jsonl``: its keys, and that a refusal carries no score."""

import json
from typing import Any

import numpy as np
import pytest

from edgecxr.decision import FindingResult
from edgecxr.errors import RefusalReason
from edgecxr.runtimes.screening import Screening

ORIGIN: dict[str, Any] = {"engine": "openvino-cpu", "precision": "int8", "kernel": "cpp", "bundle": "ab" * 32}
KEYS = ["file", "status", "reason", "detail", "findings", "engine", "precision", "kernel", "bundle"]
KEYS += ["milliseconds", "notes"]


def test_a_decided_film() -> None:
    finding = FindingResult("covid", float(np.float64(0.71)), 0.5, "positive")
    spent = {"read": 12.34567, "preprocess": 1.0, "infer": 0.5}
    screening = Screening("a.dcm", "ok", **ORIGIN, findings=(finding,), milliseconds=spent, notes=("odd header",))
    told = json.loads(json.dumps(screening.to_json(), allow_nan=False))
    assert list(told) == KEYS
    assert told["findings"] == [{"name": "covid", "probability": 0.71, "threshold": 0.5, "decision": "positive"}]
    assert told["milliseconds"] == {"read": 12.346, "preprocess": 1.0, "infer": 0.5}
    assert (told["status"], told["reason"], told["notes"]) == ("ok", None, ["odd header"])
    assert (told["engine"], told["bundle"]) == ("openvino-cpu", "ab" * 32)


def test_a_refused_film_has_no_finding_and_null_for_what_was_not_reached() -> None:
    screening = Screening(
        "b.dcm", "refused", **ORIGIN, reason=RefusalReason.TRUNCATED, detail="9 bytes", milliseconds={"read": 2.0}
    )
    told = json.loads(json.dumps(screening.to_json(), allow_nan=False))
    assert list(told) == KEYS
    assert (told["status"], told["reason"], told["detail"]) == ("refused", "truncated", "9 bytes")
    assert told["findings"] == []
    assert told["milliseconds"] == {"read": 2.0, "preprocess": None, "infer": None}


def test_a_refusal_cannot_carry_a_score() -> None:
    finding = FindingResult("covid", 0.7, 0.5, "positive")
    with pytest.raises(ValueError, match="refused film has no finding and no map, and needs a reason"):
        Screening("c.dcm", "refused", **ORIGIN, reason=RefusalReason.NO_CONTRAST, findings=(finding,))
    with pytest.raises(ValueError, match="needs a reason"):
        Screening("c.dcm", "refused", **ORIGIN)


def test_a_decided_film_has_findings_and_no_reason() -> None:
    with pytest.raises(ValueError, match="decided film has findings and no reason"):
        Screening("d.dcm", "ok", **ORIGIN)
