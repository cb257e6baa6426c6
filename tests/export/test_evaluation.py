"""The dictionary against figures computed one by one, and its shape as its docstring gives it."""

import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from edgecxr.decision import OperatingRule, derive_operating_point
from edgecxr.errors import StageError
from edgecxr.export.evaluation import evaluate
from edgecxr.export.scored import Scored
from edgecxr.refusal import EmbeddingGate
from edgecxr.scores import probabilities
from edgecxr.spec import Head
from edgecxr.statistics import average_precision, brier, delong, ece, sensitivity, specificity, wilson

CHEST = Head(name="chest", kind="softmax", classes=("normal", "covid", "pneumonia"), reference="normal")
SIGNS = Head(name="signs", kind="sigmoid", classes=("effusion", "mass"))
HEADS = (CHEST, SIGNS)
FILMS = 180
RANDOM = np.random.default_rng(0)
TRUTH = RANDOM.integers(0, 3, FILMS)
TRUTH[:20] = -1
MARKS = (RANDOM.random((FILMS, 2)) < 0.3).astype(np.float32)
MARKS[RANDOM.random((FILMS, 2)) < 0.2] = np.nan
LOGITS = np.concatenate([np.eye(3)[TRUTH] * 1.5, np.nan_to_num(MARKS)], axis=1) + RANDOM.normal(size=(FILMS, 5))
SCORES = probabilities(LOGITS, HEADS, (1.0, 1.0))
TARGETS = {"chest": TRUTH, "signs": MARKS}
EMBEDDINGS = RANDOM.random((FILMS, 6))
POINT = derive_operating_point(
    "covid", SCORES[20:, 1], TRUTH[20:] == 1, OperatingRule(sensitivity=0.9), precision="fp32", engine="onnxruntime-cpu"
)
SCORED = Scored(
    "student",
    LOGITS,
    SCORES,
    embeddings=EMBEDDINGS,
    points=(POINT,),
    refusal=EmbeddingGate.fit(EMBEDDINGS, validation=EMBEDDINGS),
)
FOUND = evaluate(SCORED, TARGETS, HEADS, samples=300)


def test_it_is_json_with_the_keys_that_are_documented() -> None:
    assert json.loads(json.dumps(FOUND, allow_nan=False)) == FOUND
    assert FOUND.keys() == {"name", "films", "level", "bootstrap", "heads", "classes", "refusal"}
    assert FOUND["heads"][0].keys() == FOUND["heads"][1].keys()
    answers = ["accuracy", "confusion", "ece", "brier", "reliability"]
    assert set(FOUND["heads"][0]) == {
        "name", "kind", "classes", "films", "problem", "macro_auroc", "macro_classes", *answers,
    }  # fmt: skip
    curves = ["roc", "precision_recall"]
    for row in FOUND["classes"]:
        assert set(row) == {
            "name", "head", "is_finding", "films", "positives", "problem", "auroc", "average_precision", "ece", "brier",
            "reliability", "operating_points", *curves,
        }  # fmt: skip


def test_the_figures_of_a_softmax_head() -> None:
    head, known = FOUND["heads"][0], slice(20, None)
    answer = SCORES[known, :3].argmax(axis=1)
    assert head["films"] == FILMS - 20
    assert head["accuracy"]["value"] == pytest.approx(accuracy_score(TRUTH[known], answer))
    assert np.trace(head["confusion"]) == (answer == TRUTH[known]).sum()
    macro = roc_auc_score(TRUTH[known], SCORES[known, :3], multi_class="ovr")
    assert head["macro_auroc"]["value"] == pytest.approx(macro)
    assert head["macro_auroc"]["low"] < macro < head["macro_auroc"]["high"]
    assert head["ece"]["value"] == pytest.approx(ece(SCORES[known, :3].max(axis=1), answer == TRUTH[known]))
    squares = ((SCORES[known, :3] - np.eye(3)[TRUTH[known]]) ** 2).sum(axis=1)
    assert head["brier"]["value"] == pytest.approx(squares.mean())
    assert sum(bin["count"] for bin in head["reliability"]) == FILMS - 20


def test_films_that_are_separated_without_an_error_leave_the_next_one_open() -> None:
    truth = np.repeat([0, 1, 2], 8)
    perfect = Scored("perfect", np.zeros((24, 3)), 0.9 * np.eye(3)[truth] + 0.05)
    found = evaluate(perfect, {HEADS[0].name: truth}, HEADS[:1], samples=50)["heads"][0]["macro_auroc"]
    assert (found["value"], found["high"]) == (1, 1)
    assert found["low"] == wilson(8, 8).low


def test_the_figures_of_a_sigmoid_head() -> None:
    head = FOUND["heads"][1]
    known = ~np.isnan(MARKS)
    areas = [roc_auc_score(MARKS[known[:, i], i], SCORES[known[:, i], 3 + i]) for i in range(2)]
    assert head["macro_auroc"]["value"] == pytest.approx(np.mean(areas))
    assert head["macro_classes"] == ["effusion", "mass"]
    assert (head["accuracy"], head["confusion"]) == (None, None)


def test_the_figures_of_a_class() -> None:
    row = FOUND["classes"][1]
    truth, scores = TRUTH[20:] == 1, SCORES[20:, 1]
    assert (row["name"], row["head"], row["is_finding"], row["problem"]) == ("covid", "chest", True, None)
    assert (row["films"], row["positives"]) == (FILMS - 20, truth.sum())
    assert row["auroc"] == delong(truth, scores).to_json()
    assert row["average_precision"]["value"] == pytest.approx(average_precision(truth, scores))
    assert row["ece"]["value"] == pytest.approx(ece(scores, truth))
    assert 0 <= row["ece"]["low"] <= row["ece"]["high"]
    assert row["brier"]["value"] == pytest.approx(brier(scores, truth))
    assert row["roc"]["sensitivity"][-1] == 1
    assert len(row["precision_recall"]["recall"]) == len(row["precision_recall"]["precision"]) <= 200
    (point,) = row["operating_points"]
    assert (point["name"], point["threshold"], point["rule"]) == ("screening", POINT.threshold, POINT.rule)
    assert point["sensitivity"] == sensitivity(truth, scores, POINT.threshold).to_json()
    assert point["specificity"] == specificity(truth, scores, POINT.threshold).to_json()
    assert point["called_positive"]["value"] == (scores >= POINT.threshold).mean()


def test_the_reference_class_has_figures_but_no_decision() -> None:
    row = FOUND["classes"][0]
    assert (row["name"], row["is_finding"], row["operating_points"]) == ("normal", False, [])
    assert row["auroc"] is not None


def test_refusals_of_these_films() -> None:
    refused = SCORED.refused
    assert refused is not None
    assert FOUND["refusal"]["refused"] == refused.sum()
    assert FOUND["refusal"]["rate"]["value"] == refused.mean()
    assert evaluate(Scored("a", LOGITS, SCORES), TARGETS, HEADS, samples=50)["refusal"] is None


def test_a_class_that_these_films_lack_says_so() -> None:
    truth = np.where(TRUTH == 1, 0, TRUTH)
    found = evaluate(SCORED, {"chest": truth, "signs": np.full_like(MARKS, np.nan)}, HEADS, samples=50)
    covid = found["classes"][1]
    assert covid["problem"] == f"0 positive and {FILMS - 20} negative films: at least 2 of each is needed"
    assert (covid["auroc"], covid["average_precision"], covid["roc"]) == (None, None, None)
    assert covid["operating_points"][0]["sensitivity"] is None
    assert covid["operating_points"][0]["specificity"]["value"] > 0
    assert found["heads"][0]["macro_classes"] == ["normal", "pneumonia"]
    mass = found["classes"][4]
    assert (mass["films"], mass["positives"], mass["ece"], mass["reliability"]) == (0, 0, None, [])
    assert found["heads"][1]["problem"] == "no class has both positive and negative films among 0"
    json.dumps(found, allow_nan=False)


def test_the_same_seed_gives_the_same_figures() -> None:
    assert evaluate(SCORED, TARGETS, HEADS, samples=300) == FOUND


def test_labels_of_other_films_are_refused() -> None:
    with pytest.raises(StageError, match=r"probabilities \(180, 5\), but labels \(100, 5\)"):
        evaluate(SCORED, {"chest": TRUTH[:100], "signs": MARKS[:100]}, HEADS)
