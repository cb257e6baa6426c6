import numpy as np
import pytest

from edgecxr.errors import StageError
from edgecxr.export.scored import Scored
from edgecxr.refusal import EmbeddingGate
from edgecxr.spec import OperatingPoint

LOGITS = np.zeros((4, 3))
HALF = np.full((4, 3), 0.5)
POINT = OperatingPoint(
    name="screening",
    finding="covid",
    precision="int8",
    engine="openvino-cpu",
    threshold=0.25,
    rule="sensitivity >= 0.9",
    sensitivity=0.9,
    specificity=0.8,
)


def test_a_model_knows_its_own_thresholds() -> None:
    scored = Scored("student", LOGITS, HALF, points=(POINT,))
    assert scored.films == 4
    assert scored.threshold("covid", "screening") == 0.25
    with pytest.raises(StageError, match="student has no threshold triage/covid; it has: screening/covid"):
        scored.threshold("covid", "triage")


def test_a_model_without_a_gate_refuses_nothing_and_says_so() -> None:
    assert Scored("student", LOGITS, HALF).refused is None


def test_refusals_are_those_of_the_own_gate() -> None:
    random = np.random.default_rng(0)
    films = random.random((60, 8))
    gate = EmbeddingGate.fit(films, validation=films[:30])
    embeddings = np.concatenate([films[:3], np.eye(8)[:1]])
    assert Scored("s", LOGITS, HALF, embeddings=embeddings, refusal=gate).refused is not None
    refused = Scored("s", LOGITS, HALF, embeddings=embeddings, refusal=gate).refused
    assert refused is not None
    assert refused.tolist() == [False, False, False, True]
    with pytest.raises(StageError, match="gate without embeddings"):
        Scored("s", LOGITS, HALF, refusal=gate)


def test_outputs_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(StageError, match=r"logits \(4, 3\), probabilities \(4, 2\)"):
        Scored("s", LOGITS, HALF[:, :2])
    with pytest.raises(StageError, match=r"cam has shape \(4, 2, 7, 7\)"):
        Scored("s", LOGITS, HALF, np.zeros((4, 2, 7, 7)))
    with pytest.raises(StageError, match="1 values of logits are NaN"):
        Scored("s", np.where(np.eye(4, 3, k=-3) > 0, np.nan, LOGITS), HALF)
    with pytest.raises(StageError, match=r"probabilities outside \[0, 1\]"):
        Scored("s", LOGITS, HALF * 3)
