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


def test_what_is_told_and_not_judged_has_no_accepted_loss():
    told = plots.forest({"value": -0.5, "low": -0.6, "high": -0.4}, None, -1)
    assert [item.attrib["class"] for item in parse(told).iter("line")] == ["zero", "range"]
    assert "accepted" not in told


def test_texts_are_escaped():
    assert "<b>" not in plots.confusion_matrix(["<b>", "n"], [[1, 0], [0, 1]])
    assert "&lt;b&gt;" in plots.confusion_matrix(["<b>", "n"], [[1, 0], [0, 1]])


def words(markup):
    return ["".join(item.itertext()) for item in parse(markup).iter("text")]


def test_a_confusion_matrix_has_counts_and_shares_of_the_row():
    found = words(plots.confusion_matrix(["a", "b"], [[3, 1], [0, 0]]))
    assert [word for word in found if word[0].isdigit()] == ["3", "75.0 %", "1", "25.0 %", "0", "0.0 %", "0", "0.0 %"]


def test_a_histogram_is_drawn_as_shares_of_each_true_class():
    histogram = {"edges": [0, 0.5, 1], "counts": {"covid": [1, 3], "normal": [8, 0], "absent": [0, 0]}}
    markup = plots.histogram_plot(histogram, "covid", [{"threshold": 0.25}])
    drawn = next(line for line in parse(markup).iter("polyline") if line.attrib["class"] == "series s0")
    ys = [float(pair.split(",")[1]) for pair in drawn.attrib["points"].split()]
    assert [round(1 - (y - drawing.TOP) / drawing.SIDE, 3) for y in ys] == [0, 0.25, 0.25, 0.75, 0.75, 0]
    threshold = next(line for line in parse(markup).iter("polyline") if line.attrib["class"] == "chance")
    assert threshold.attrib["points"].split()[0].split(",")[0] == str(drawing.LEFT + drawing.SIDE // 4)
    assert {"covid, 4 films", "normal, 8 films", "score of covid"} <= set(words(markup))
    assert not any("absent" in word for word in words(markup))


def test_a_map_keeps_its_proportions_and_names_the_classes():
    found = {"head": "h", "classes": ["a", "b", "c"], "points": [[0, 0, 0], [10, 0, 1], [0, 5, 1]]}
    markup = plots.neighbour_map(found)
    places = [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in parse(markup).iter("circle")]
    across, up = places[1][0] - places[0][0], places[0][1] - places[2][1]
    assert across == pytest.approx(2 * up, abs=0.05)
    assert across == pytest.approx(drawing.SIDE / 1.06, abs=0.05)
    assert {"a, 1 film", "b, 2 films"} <= set(words(markup))
