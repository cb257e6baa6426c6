"""Thresholds of a site: as many films as the rule needs, no threshold that is worth nothing, no silent reversal."""

import numpy as np
import pytest
from numpy.typing import NDArray

from edgecxr.decision import OperatingRule
from edgecxr.errors import StatisticsError
from edgecxr.site import site_points, swapped_points
from edgecxr.spec import Head, OperatingPoint

HEADS = (
    Head(name="diagnosis", kind="softmax", classes=("normal", "covid"), reference="normal"),
    Head(name="others", kind="sigmoid", classes=("effusion",)),
)


def films(number: int, unknown: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Scores (2 * number, 3) that part the classes, and their labels; the first `unknown` say nothing of effusion."""
    sick = np.arange(2 * number) % 2
    high = 0.6 + 0.3 * np.linspace(0, 1, 2 * number)
    scores = np.where(sick == 1, high, 1 - high)
    labels = np.stack([1 - sick, sick, sick], axis=1).astype(np.float32)
    labels[:unknown, 2] = np.nan
    return np.stack([1 - scores, scores, scores], axis=1), labels


def points(number: int, unknown: int = 0, sensitivity: float = 0.9) -> list[OperatingPoint]:
    rule = OperatingRule(name="screening", sensitivity=sensitivity)
    return site_points(HEADS, *films(number, unknown), rule, precision="int8", engine="openvino-cpu")


def point(name: str, threshold: float, finding: str = "covid", engine: str = "openvino-cpu") -> OperatingPoint:
    place = {"finding": finding, "precision": "int8", "engine": engine}
    return OperatingPoint(name=name, threshold=threshold, rule="", sensitivity=0.9, specificity=0.9, **place)


def test_every_finding_gets_a_threshold_and_the_reference_class_none() -> None:
    found = points(20)
    assert [item.finding for item in found] == ["covid", "effusion"]
    assert all(0.4 < item.threshold < 0.9 and item.sensitivity >= 0.9 for item in found)
    assert "20 positive and 20 negative films of the site" in found[0].rule


def test_films_of_unknown_label_do_not_count() -> None:
    with pytest.raises(StatisticsError, match=r"effusion: 9 positive and 9 negative films; .* wants at least 10"):
        points(20, unknown=22)


def test_a_stricter_rule_wants_more_films() -> None:
    with pytest.raises(StatisticsError, match=r"covid: 20 positive and 20 negative films; .* wants at least 50"):
        points(20, sensitivity=0.98)
    assert points(50, sensitivity=0.98)


def test_scores_that_part_nothing_give_no_threshold() -> None:
    scores, labels = films(20)
    rule = OperatingRule(name="screening", sensitivity=0.9)
    with pytest.raises(StatisticsError, match="no better than chance; look whether the labels are right"):
        site_points(HEADS, 1 - scores, labels, rule, precision="int8", engine="openvino-cpu")


def test_two_points_that_change_places_are_told_of_once_for_all_engines() -> None:
    engines = ("openvino-cpu", "onnxruntime-cpu")
    before = [
        item
        for engine in engines
        for item in (point("screening", 0.1, engine=engine), point("sure", 0.6, engine=engine))
    ]
    after = [
        item
        for engine in engines
        for item in (point("screening", 0.7, engine=engine), point("sure", 0.6, engine=engine))
    ]
    assert swapped_points(before, after) == [
        "covid: the threshold of screening lies above that of sure now, and was below it before "
        "(int8 on openvino-cpu, int8 on onnxruntime-cpu)"
    ]


def test_points_that_stay_in_order_are_not_told_of() -> None:
    before = [point("screening", 0.1), point("sure", 0.6), point("sure", 0.2, "pneumonia")]
    assert swapped_points(before, [point("screening", 0.5), *before[1:]]) == []
    assert swapped_points(before, [point("screening", 0.6), *before[1:]]) == []  # equal: no other order
    assert swapped_points(before, [*before, point("new", 0.9)]) == []
    assert swapped_points(before, [point("screening", 0.9, engine="onnxruntime-cpu"), *before[1:]]) == []
