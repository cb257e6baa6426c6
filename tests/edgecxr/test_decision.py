"""Thresholds against a search over every score, and the refusal to decide without one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from edgecxr.decision import OperatingRule, decide, derive_operating_point
from edgecxr.errors import EngineError, StatisticsError
from edgecxr.spec import Head, ModelSpec, OperatingPoint, Precision, PreprocessSpec

HEAD = Head(name="chest", kind="softmax", classes=("normal", "covid", "pneumonia"), reference="normal")


def point(
    finding: str, threshold: float, precision: Precision = "int8", engine: str = "openvino-cpu"
) -> OperatingPoint:
    return OperatingPoint(
        name="screening",
        finding=finding,
        precision=precision,
        engine=engine,
        threshold=threshold,
        rule="set by hand",
        sensitivity=0.9,
        specificity=0.8,
    )


def model(*points: OperatingPoint) -> ModelSpec:
    return ModelSpec(
        name="covid3",
        version="1",
        heads=(HEAD,),
        preprocess=PreprocessSpec(),
        temperatures={"int8": (1.0,)},
        operating_points=points,
        cam_shape=(7, 7),
        embedding_size=8,
    )


def derive(probabilities: NDArray[np.float64], labels: NDArray[np.bool_], rule: OperatingRule) -> OperatingPoint:
    return derive_operating_point("covid", probabilities, labels, rule, precision="fp32", engine="onnxruntime-cpu")


SPEC = model(point("covid", 0.2), point("pneumonia", 0.5), point("covid", 0.9, "fp32"), point("covid", 0.8, engine="x"))


def test_every_finding_but_the_reference_is_decided_at_its_own_threshold() -> None:
    covid, pneumonia = decide(SPEC, [0.3, 0.3, 0.4], "int8", "openvino-cpu")
    assert (covid.name, covid.probability, covid.threshold, covid.decision) == ("covid", 0.3, 0.2, "positive")
    assert (pneumonia.name, pneumonia.threshold, pneumonia.decision) == ("pneumonia", 0.5, "negative")


def test_a_probability_at_the_threshold_is_positive() -> None:
    assert decide(SPEC, [0.3, 0.2, 0.5], "int8", "openvino-cpu")[0].decision == "positive"
    assert decide(SPEC, [0.3, np.nextafter(0.2, 0), 0.5], "int8", "openvino-cpu")[0].decision == "negative"


@pytest.mark.parametrize(
    ("precision", "engine", "name", "missing"),
    [
        ("fp16", "openvino-cpu", "screening", "'screening' for fp16 on openvino-cpu for covid, pneumonia"),
        ("fp32", "openvino-cpu", "screening", "'screening' for fp32 on openvino-cpu for pneumonia"),
        ("int8", "tensorrt", "screening", "'screening' for int8 on tensorrt for covid, pneumonia"),
        ("int8", "openvino-cpu", "triage", "'triage' for int8 on openvino-cpu for covid, pneumonia"),
    ],
)
def test_nothing_is_decided_with_a_threshold_of_something_else(
    precision: Precision, engine: str, name: str, missing: str
) -> None:
    with pytest.raises(
        EngineError, match=f"no threshold {missing}; it has: 'screening' for fp32 on openvino-cpu; .*build again"
    ):
        decide(SPEC, [0.3, 0.3, 0.4], precision, engine, point=name)


def test_a_model_without_thresholds_says_so() -> None:
    with pytest.raises(EngineError, match="it has: none"):
        decide(model(), [0.3, 0.3, 0.4], "int8", "openvino-cpu")


@pytest.mark.parametrize("values", [[0.1, 0.2], [0.1, 0.2, np.nan], [0.1, 0.2, 1.2], [[0.1, 0.2, 0.7]]])
def test_what_is_no_probability_is_not_decided_on(values: list[float]) -> None:
    with pytest.raises(EngineError, match=r"want 3 probabilities in \[0, 1\], got"):
        decide(SPEC, values, "int8", "openvino-cpu")


FILMS = st.lists(st.tuples(st.booleans(), st.integers(0, 40)), min_size=2, max_size=40).filter(
    lambda films: 0 < sum(label for label, _ in films) < len(films)
)


@settings(max_examples=100, deadline=None)
@given(FILMS, st.sampled_from([0.5, 0.8, 0.9, 0.95, 1.0]))
def test_the_rules_against_a_search_over_all_thresholds(films: list[tuple[bool, int]], target: float) -> None:
    labels = np.array([label for label, _ in films])
    scores = np.array([score for _, score in films]) / 50 + 0.1
    grid = np.arange(0, 101) / 100 + 0.005  # between all scores
    found = np.array([(scores[labels] >= t).mean() for t in grid])
    cleared = np.array([(scores[~labels] < t).mean() for t in grid])

    sensitive = derive(scores, labels, OperatingRule(sensitivity=target))
    assert sensitive.sensitivity >= target - 1e-9
    assert sensitive.specificity == pytest.approx(cleared[found >= target - 1e-9].max())
    specific = derive(scores, labels, OperatingRule(specificity=target))
    assert specific.specificity >= target - 1e-9
    assert specific.sensitivity == pytest.approx(found[cleared >= target - 1e-9].max())
    balanced = derive(scores, labels, OperatingRule(youden=True))
    assert balanced.sensitivity + balanced.specificity == pytest.approx((found + cleared).max())
    for chosen in (sensitive, specific, balanced):
        assert (scores[labels] >= chosen.threshold).mean() == pytest.approx(chosen.sensitivity)
        assert (scores[~labels] < chosen.threshold).mean() == pytest.approx(chosen.specificity)


@pytest.mark.parametrize(
    "rule", [OperatingRule(sensitivity=0.9), OperatingRule(specificity=0.9), OperatingRule(youden=True)]
)
@pytest.mark.parametrize("seed", range(5))
def test_engine_noise_flips_no_film(rule: OperatingRule, seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = random.random(300) < 0.3
    scores = np.clip(random.choice([1e-9, 0.5, 0.9], 300) + random.normal(size=300) * 3e-6, 0, 1)
    threshold = derive(scores, labels, rule).threshold
    for shift in (-1e-6, 1e-6):
        assert ((np.clip(scores + shift, 0, 1) >= threshold) == (scores >= threshold)).all()


def test_the_point_says_how_it_was_set() -> None:
    chosen = derive(
        np.array([0.1, 0.4, 0.6, 0.9]), np.array([False, False, True, True]), OperatingRule(sensitivity=0.9)
    )
    assert chosen.threshold == pytest.approx(0.5)
    assert chosen.rule == "sensitivity >= 0.9 on 2 positive and 2 negative validation films"
    assert (chosen.name, chosen.precision, chosen.engine) == ("screening", "fp32", "onnxruntime-cpu")
    assert (chosen.sensitivity, chosen.specificity) == (1, 1)


def test_films_that_cannot_set_a_threshold_are_refused() -> None:
    rule = OperatingRule(sensitivity=0.9)
    with pytest.raises(StatisticsError, match="covid: 0 positive and 2 negative films"):
        derive(np.array([0.1, 0.2]), np.array([False, False]), rule)
    with pytest.raises(StatisticsError, match=r"want \(N,\) probabilities in \[0, 1\]"):
        derive(np.array([0.1, 1.2]), np.array([False, True]), rule)
    with pytest.raises(StatisticsError, match=r"no threshold has specificity >= 0.9 on 1 positive, 1 negative films"):
        derive(np.array([1.0, 1.0]), np.array([False, True]), OperatingRule(specificity=0.9))


@pytest.mark.parametrize("given", [{}, {"sensitivity": 0.9, "specificity": 0.9}, {"sensitivity": 0.9, "youden": True}])
def test_a_rule_names_one_aim(given: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match="needs exactly one of sensitivity, specificity, youden"):
        OperatingRule(**given)
