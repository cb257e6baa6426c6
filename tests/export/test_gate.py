"""Verdicts on pairs of models whose difference is known."""

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from edgecxr.decision import OperatingRule, derive_operating_point
from edgecxr.errors import StageError, StatisticsError
from edgecxr.export.gate import GateMargins, GateReport, GateRow, compare
from edgecxr.export.scored import Scored
from edgecxr.refusal import EmbeddingGate
from edgecxr.scores import probabilities
from edgecxr.spec import Head
from edgecxr.statistics import auroc, delong_difference, ece, paired_difference

HEAD = Head(name="chest", kind="softmax", classes=("normal", "covid", "pneumonia"), reference="normal")
SIGNS = Head(name="signs", kind="sigmoid", classes=("effusion", "mass"))
FILMS = 900
RANDOM = np.random.default_rng(0)
TRUTH = RANDOM.integers(0, 3, FILMS)
LOGITS = RANDOM.normal(size=(FILMS, 3)) + 2 * np.eye(3)[TRUTH]
CAM = LOGITS[:, :, None, None] + RANDOM.normal(size=(FILMS, 3, 7, 7))


def scored(
    name: str, logits: NDArray[np.float64], truth: NDArray[np.int64], cam: NDArray[np.float64] | None = None
) -> Scored:
    scores = probabilities(logits, (HEAD,), (1.0,))
    points = [
        derive_operating_point(
            finding,
            scores[:, i],
            truth == i,
            OperatingRule(sensitivity=0.9),
            precision="fp32",
            engine="onnxruntime-cpu",
        )
        for i, finding in ((1, "covid"), (2, "pneumonia"))
        if 0 < (truth == i).sum() < len(truth)
    ]
    return Scored(name, logits, scores, cam, points=tuple(points))


def judged(report: GateReport, metric: str, finding: str = "covid") -> GateRow:
    (row,) = [row for row in report.rows if (row.metric, row.finding) == (metric, finding)]
    return row


REFERENCE = scored("student fp32", LOGITS, TRUTH, CAM)


def against(candidate: Scored, margins: GateMargins | None = None, heads: Sequence[Head] = (HEAD,)) -> GateReport:
    return compare(REFERENCE, candidate, {"chest": TRUTH}, heads, margins)


def test_a_faithful_copy_passes_every_row() -> None:
    noise = np.random.default_rng(1)
    copy = scored(
        "int8", LOGITS + noise.normal(size=LOGITS.shape) * 0.01, TRUTH, CAM + noise.normal(size=CAM.shape) * 0.05
    )
    report = against(copy)
    assert {row.verdict for row in report.rows} == {"non_inferior"}
    assert (report.passed, report.reason) == (True, "within every margin")
    assert report.comparison == "int8 against student fp32"
    assert [row.metric for row in report.rows if row.finding == "covid"] == [
        "auroc",
        "ece",
        "sensitivity",
        "specificity",
        "flip_rate",
        "cam_correlation",
        "cam_pointing",
    ]


def test_the_rows_hold_the_statistics_they_name() -> None:
    other = scored("int8", LOGITS + np.random.default_rng(2).normal(size=LOGITS.shape) * 0.5, TRUTH, CAM)
    report = against(other)
    truth = TRUTH == 1
    a, b = REFERENCE.probabilities[:, 1], other.probabilities[:, 1]
    row = judged(report, "auroc")
    assert (row.reference, row.candidate) == (auroc(truth, a), auroc(truth, b))
    assert row.difference == delong_difference(truth, a, b).interval
    called = [side.probabilities[:, 1] >= side.threshold("covid", "screening") for side in (REFERENCE, other)]
    row = judged(report, "sensitivity")
    assert row.difference == paired_difference(called[0][truth], called[1][truth])
    assert row.films == truth.sum()
    assert judged(report, "specificity").difference == paired_difference(~called[0][~truth], ~called[1][~truth])
    assert judged(report, "flip_rate").candidate == (called[0] != called[1]).mean()
    row = judged(report, "ece")
    assert (row.reference, row.candidate) == (ece(a, truth), ece(b, truth))
    assert row.difference is not None
    assert row.difference.value == pytest.approx(ece(b, truth) - ece(a, truth))


def test_a_model_that_lost_its_ranking_is_inferior() -> None:
    worse = scored("int8", LOGITS + np.random.default_rng(3).normal(size=LOGITS.shape) * 3, TRUTH, CAM)
    report = against(worse)
    assert not report.passed
    assert judged(report, "auroc").verdict == "inferior"
    assert report.reason.startswith("inferior beyond the margin: auroc covid")


def test_each_side_is_judged_at_its_own_threshold() -> None:
    """Halved log-odds rank alike: at thresholds of their own nothing flips, only the calibration is lost."""
    truth = {"signs": np.stack([TRUTH == 1, TRUTH == 2], axis=1).astype(np.float32)}

    def model(name: str, scale: float) -> Scored:
        logits = LOGITS[:, 1:] * scale
        scores = probabilities(logits, (SIGNS,), (1.0,))
        rule, where = OperatingRule(sensitivity=0.9), {"precision": "fp32", "engine": "x"}
        points = tuple(
            derive_operating_point(
                name, scores[:, i], truth["signs"][:, i], rule, precision="fp32", engine=where["engine"]
            )
            for i, name in enumerate(SIGNS.classes)
        )
        return Scored(name, logits, scores, points=points)

    report = compare(model("a", 1), model("b", 0.2), truth, (SIGNS,))
    assert judged(report, "flip_rate", "mass").candidate == 0
    assert judged(report, "auroc", "mass").candidate == judged(report, "auroc", "mass").reference
    assert judged(report, "sensitivity", "mass").verdict == "non_inferior"
    assert not [row for row in report.rows if row.metric.startswith("cam")]


def test_other_heatmaps_fail_though_the_scores_are_the_same() -> None:
    shuffled = CAM[..., ::-1, ::-1]
    report = against(scored("int8", LOGITS, TRUTH, shuffled))
    assert judged(report, "cam_correlation").verdict == "inferior"
    assert judged(report, "cam_pointing").verdict == "inferior"
    assert judged(report, "auroc").verdict == "non_inferior"


def test_a_candidate_whose_heatmaps_went_flat_has_lost_them() -> None:
    flat = np.where(np.arange(FILMS)[:, None, None, None] % 4 == 0, CAM, CAM.mean(axis=(2, 3), keepdims=True))
    report = against(scored("int8", LOGITS, TRUTH, flat))
    for metric in ("cam_correlation", "cam_pointing"):
        row = judged(report, metric)
        assert (row.verdict, row.films) == ("inferior", FILMS)
    assert judged(report, "cam_pointing").candidate == pytest.approx(0.25, abs=0.01)


def test_films_that_both_separate_without_an_error_show_nothing_where_they_are_few() -> None:
    truth = np.repeat([0, 1, 2], 10)
    noise = RANDOM.normal(size=(2, 30, 3)) / 10
    one, other = (scored(name, 9 * np.eye(3)[truth] + noise[i], truth) for i, name in enumerate(("fp32", "int8")))
    report = compare(one, other, {"chest": truth}, (HEAD,), GateMargins(accept_inconclusive=True))
    row = judged(report, "auroc")
    assert row.verdict == "inconclusive"
    assert row.detail.endswith("without any error 0.01 can be shown from 381 of each on")


RULES = (OperatingRule(sensitivity=0.9), OperatingRule(name="balanced", youden=True))


def pointed(name: str, logits: NDArray[np.float64], rules: Sequence[OperatingRule] = RULES) -> Scored:
    """With a threshold for each rule, derived on all films."""
    plain = scored(name, logits, TRUTH)
    points = [
        derive_operating_point(
            finding, plain.probabilities[:, i], i == TRUTH, rule, precision="fp32", engine="onnxruntime-cpu"
        )
        for i, finding in ((1, "covid"), (2, "pneumonia"))
        for rule in rules
    ]
    return replace(plain, points=tuple(points))


def test_every_shipped_operating_point_is_judged() -> None:
    """A candidate that is as good at the first point and worse at the second one does not pass."""
    reference = pointed("fp32", LOGITS)
    moved = tuple(
        point.model_copy(update={"threshold": 0.9}) if (point.name, point.finding) == ("balanced", "covid") else point
        for point in reference.points
    )
    report = compare(
        reference, replace(reference, points=moved), {"chest": TRUTH}, (HEAD,), points=["screening", "balanced"]
    )
    rows = {(row.metric, row.finding, row.point): row for row in report.rows}
    assert len(rows) == len(report.rows)
    for finding in HEAD.findings:
        assert [row.metric for row in report.rows if (row.finding, row.point) == (finding, "")] == ["auroc", "ece"]
        for point in ("screening", "balanced"):
            assert {row.metric for row in report.rows if (row.finding, row.point) == (finding, point)} == {
                "sensitivity",
                "specificity",
                "flip_rate",
            }
    assert rows["sensitivity", "covid", "screening"].verdict == "non_inferior"
    assert rows["sensitivity", "covid", "balanced"].verdict == "inferior"
    called = [
        side.probabilities[:, 1] >= threshold
        for side, threshold in ((reference, reference.threshold("covid", "balanced")), (reference, 0.9))
    ]
    assert rows["flip_rate", "covid", "balanced"].candidate == (called[0] != called[1]).mean()
    assert not report.passed
    assert report.reason == "inferior beyond the margin: sensitivity covid at balanced, flip_rate covid at balanced"


def test_points_with_the_same_thresholds_share_their_rows() -> None:
    twice = pointed("fp32", LOGITS, (*RULES, OperatingRule(name="triage", sensitivity=0.9)))
    few_films = GateMargins(sensitivity=0.001, accept_inconclusive=True)
    names = ["screening", "balanced", "triage"]
    report = compare(twice, twice, {"chest": TRUTH}, (HEAD,), few_films, points=names)
    assert [row.point for row in report.rows if (row.metric, row.finding) == ("sensitivity", "covid")] == [
        "screening and triage",
        "balanced",
    ]
    assert "sensitivity covid at screening and triage and balanced, sensitivity pneumonia at" in report.reason


def few(count: int) -> tuple[Scored, Scored, dict[str, NDArray[np.int64]]]:
    index = np.arange(count)
    truth = TRUTH[index]
    return scored("fp32", LOGITS[index], truth), scored("fp16", LOGITS[index] + 1e-4, truth), {"chest": truth}


def test_few_films_are_inconclusive_and_the_recipe_decides_what_that_means() -> None:
    reference, candidate, targets = few(90)
    strict = compare(reference, candidate, targets, (HEAD,))
    row = judged(strict, "sensitivity")
    assert row.verdict == "inconclusive"
    assert "0 of" in row.detail
    assert row.detail.endswith("0.02 can be shown from 189 positive films on, if none changes")
    assert not strict.passed
    assert strict.reason.startswith("too few films to tell: sensitivity covid")
    lenient = compare(reference, candidate, targets, (HEAD,), GateMargins(accept_inconclusive=True))
    assert lenient.passed
    assert "accepted undecided: sensitivity covid" in lenient.reason


def test_a_finding_without_films_is_reported_and_never_passed_silently() -> None:
    truth = np.where(TRUTH == 2, 0, TRUTH)
    rare = compare(REFERENCE, REFERENCE, {"chest": truth}, (HEAD,), GateMargins(accept_inconclusive=True))
    row = judged(rare, "auroc", "pneumonia")
    assert row.verdict == "not_judged"
    assert row.detail == f"not judged: 0 positive and {FILMS} negative films, of which at least 10 are needed"
    assert (row.reference, row.candidate, row.difference) == (None, None, None)
    assert judged(rare, "sensitivity", "pneumonia").verdict == "not_judged"
    assert judged(rare, "specificity", "pneumonia").verdict == "non_inferior"
    assert "sensitivity pneumonia" in rare.reason
    assert not compare(REFERENCE, REFERENCE, {"chest": truth}, (HEAD,)).passed


def test_where_nothing_can_be_judged_nothing_passes() -> None:
    reference, candidate, targets = few(9)
    report = compare(reference, candidate, targets, (HEAD,), GateMargins(accept_inconclusive=True))
    assert not report.passed
    assert report.reason.startswith("nothing could be shown")


def test_unlabelled_films_take_no_part() -> None:
    partial = np.where(np.arange(FILMS) % 2 == 0, -1, TRUTH)
    report = compare(REFERENCE, REFERENCE, {"chest": partial}, (HEAD,))
    assert judged(report, "sensitivity").films == (partial == 1).sum()
    assert judged(report, "flip_rate").films == FILMS  # needs no label


def test_refusals_that_differ_are_counted() -> None:
    random = np.random.default_rng(4)
    embeddings = random.random((FILMS, 6))
    gate = EmbeddingGate.fit(embeddings, validation=embeddings)
    moved = embeddings.copy()
    moved[:90] = np.eye(6)[0]
    a = Scored("a", LOGITS, REFERENCE.probabilities, None, embeddings, REFERENCE.points, gate)
    b = Scored("b", LOGITS, REFERENCE.probabilities, None, moved, REFERENCE.points, gate)
    row = judged(compare(a, b, {"chest": TRUTH}, (HEAD,)), "refusal_flips", "")
    assert row.candidate == pytest.approx(0.1)
    assert row.verdict == "inferior"
    with pytest.raises(StageError, match="a has refusal and student fp32 has none"):
        compare(a, REFERENCE, {"chest": TRUTH}, (HEAD,))


def test_the_report_is_json() -> None:
    report = against(REFERENCE)
    again = json.loads(json.dumps(report.to_json()))
    assert again["passed"] == report.passed
    assert len(again["rows"]) == len(report.rows)
    assert again["rows"][0].keys() == {
        "metric", "finding", "films", "reference", "candidate", "difference", "margin", "verdict", "detail",
        "point",
    }  # fmt: skip


def test_the_same_seed_gives_the_same_report() -> None:
    other = scored("int8", LOGITS + np.random.default_rng(5).normal(size=LOGITS.shape) * 0.3, TRUTH, CAM)
    assert against(other).to_json() == against(other).to_json()


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(StageError, match=r"fp32 scored \(50, 3\), .* the same films and classes"):
        compare(few(50)[0], REFERENCE, {"chest": TRUTH[:50]}, (HEAD,))
    with pytest.raises(StageError, match="student fp32 has cam and int8 has none"):
        against(scored("int8", LOGITS, TRUTH))
    with pytest.raises(StageError, match="has no threshold triage/covid"):
        compare(REFERENCE, REFERENCE, {"chest": TRUTH}, (HEAD,), points=["screening", "triage"])
    with pytest.raises(StatisticsError, match="no targets for head"):
        compare(REFERENCE, REFERENCE, {}, (HEAD,))
