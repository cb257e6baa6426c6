import re
from xml.etree import ElementTree

import pytest

from edgecxr.report import drawing, plots

INTERVAL = {"value": 0.9, "low": 0.8, "high": 0.95, "level": 0.95}
ENTRY = {
    "name": "covid",
    "films": 10,
    "positives": 4,
    "roc": {"false_positive_rate": [0, 0.5, 1], "sensitivity": [0, 0.9, 1]},
    "precision_recall": {"recall": [0, 1], "precision": [1, 0.4]},
    "reliability": [{"count": 3, "mean_probability": 0.2, "observed": INTERVAL}],
    "operating_points": [
        {"name": "screening", "threshold": 0.3, "sensitivity": INTERVAL, "specificity": INTERVAL},
        {"name": "other", "threshold": 0.3, "sensitivity": None, "specificity": INTERVAL},
    ],
}


def parse(markup):
    return ElementTree.fromstring(str(markup))


@pytest.mark.parametrize(
    "markup",
    [
        plots.roc_plot([("<a>", ENTRY), ("b", ENTRY | {"roc": None, "operating_points": []})]),
        plots.precision_recall_plot([("a", ENTRY), ("b", ENTRY | {"precision_recall": None})]),
        plots.reliability_plot(ENTRY["reliability"], 1),
        plots.reliability_plot([]),
        plots.confusion_matrix(["<b>", "n"], [[3, 1], [0, 0]]),
        plots.forest({"value": -0.01, "low": -0.03, "high": 0.01}, 0.02, -1),
        plots.bar(0.7, 0.3, True),
    ],
)
def test_plots_are_well_formed_and_stay_inside_their_box(markup):
    found = parse(markup)
    width, height = (float(value) for value in found.attrib["viewBox"].split()[2:])
    assert found.attrib["aria-label"]
    for line in found.iter("polyline"):
        for x, y in re.findall(r"([-\d.]+),([-\d.]+)", line.attrib["points"]):
            assert -1 <= float(x) <= width + 1
            assert -1 <= float(y) <= height + 1


def test_a_roc_curve_runs_from_corner_to_corner():
    line = next(item for item in parse(plots.roc_plot([("a", ENTRY)])).iter("polyline") if "s0" in item.attrib["class"])
    left, top = drawing.LEFT, drawing.TOP
    assert line.attrib["points"].split()[0] == f"{left},{top + drawing.SIDE}"
    assert line.attrib["points"].split()[-1] == f"{left + drawing.SIDE},{top}"


def test_an_operating_point_without_an_interval_is_not_drawn():
    assert len(list(parse(plots.roc_plot([("a", ENTRY)])).iter("circle"))) == 1


@pytest.mark.parametrize(("worse", "side"), [(-1, "left"), (1, "right")])
def test_the_accepted_loss_lies_on_the_side_that_is_worse(worse, side):
    found = parse(plots.forest({"value": 0.0, "low": -0.01, "high": 0.01}, 0.02, worse))
    zero, margin = (float(line.attrib["x1"]) for line in list(found.iter("line"))[:2])
    assert (margin < zero) == (side == "left")


def test_texts_are_escaped():
    assert "<b>" not in plots.confusion_matrix(["<b>", "n"], [[1, 0], [0, 1]])
    assert "&lt;b&gt;" in plots.confusion_matrix(["<b>", "n"], [[1, 0], [0, 1]])
