import re
from xml.etree import ElementTree

from edgecxr.report import write_report
from edgecxr.report.drawing import LEFT, SIDE, TOP
from edgecxr.report.plots import fusion_weights, learning_curves

RUN = [
    {"epoch": 1.0, "train_loss": 2.0, "validation_loss": 1.5, "validation_auroc": 0.5, "score": 0.5},
    {"epoch": 2.0, "train_loss": 1.0, "validation_loss": 1.2, "validation_auroc": 0.7, "score": 0.7},
    {"epoch": 3.0, "train_loss": 0.5, "validation_loss": 1.0, "validation_auroc": 0.9, "score": 0.9},
]
MOVING = [{"epoch": float(epoch), "weight_a": 0.5 + epoch / 10, "weight_b": 0.5 - epoch / 10} for epoch in (1, 2, 3)]


def lines(markup, kind):
    """Points of each line of this class, in the order drawn."""
    found = [item for item in ElementTree.fromstring(str(markup)).iter("polyline") if item.attrib["class"] == kind]
    numbers = [re.findall(r"([-\d.]+),([-\d.]+)", item.attrib["points"]) for item in found]
    return [[(float(x), float(y)) for x, y in points] for points in numbers]


def words(markup):
    return ["".join(item.itertext()) for item in ElementTree.fromstring(str(markup)).iter("text")]


def test_losses_and_score_of_every_run_are_drawn_to_scale():
    shorter = [record | {"train_loss": 0.5} for record in RUN[:2]]
    drawing = learning_curves({"first": RUN, "second": shorter})
    loss, score, _ = lines(drawing, "series s0")
    assert loss[0][0] == LEFT
    assert loss[-1] == (LEFT + SIDE, round(TOP + SIDE * (1 - (1.0 - 0.5) / 1.5), 2))
    assert score[0] == (LEFT, TOP + SIDE)
    assert score[-1] == (LEFT + SIDE, TOP)
    (train,) = lines(drawing, "series s0 train")
    assert (train[0][1], train[-1][1]) == (TOP, TOP + SIDE)
    assert [len(points) for points in lines(drawing, "series s1")] == [2, 2, 2]
    assert lines(drawing, "series s1")[0][-1][0] == LEFT + SIDE / 2  # its second of three epochs
    assert {"first", "second", "loss", "validation AUROC"} <= set(words(drawing))


def test_a_run_without_auroc_shows_its_score_and_an_accuracy_gets_its_own_panel():
    plain = [{"epoch": record["epoch"], "score": record["score"]} for record in RUN]
    assert "validation score" in words(learning_curves({"a": plain}))
    both = learning_curves({"a": [record | {"validation_accuracy": 0.5} for record in RUN]})
    assert {"validation AUROC", "validation accuracy"} <= set(words(both))
    assert "validation score" not in words(both)


def test_what_is_no_number_is_left_out_of_its_line():
    broken = [RUN[0], RUN[1] | {"validation_loss": float("nan")}, RUN[2]]
    assert len(lines(learning_curves({"a": broken}), "series s0")[0]) == 2


def test_one_epoch_is_a_dot_and_none_is_an_empty_frame():
    circles = list(ElementTree.fromstring(str(learning_curves({"a": RUN[:1]}))).iter("circle"))
    assert len(circles) == 3
    assert list(ElementTree.fromstring(str(learning_curves({}))).iter("circle")) == []


def test_weights_are_drawn_between_nothing_and_all():
    first, _ = lines(fusion_weights(MOVING), "series s0")
    second, _ = lines(fusion_weights(MOVING), "series s1")
    assert [round(1 - (y - TOP) / SIDE, 3) for _, y in first] == [0.6, 0.7, 0.8]
    assert [round(1 - (y - TOP) / SIDE, 3) for _, y in second] == [0.4, 0.3, 0.2]
    assert {"a", "b", "weight"} <= set(words(fusion_weights(MOVING)))


def test_the_page_shows_each_training_and_weights_where_they_moved(tmp_path):
    file = write_report(tmp_path / "page.html", title="two", history={"one": RUN, "two": MOVING, "none": []})
    text = file.read_text("utf-8")
    assert re.findall(r"<h3>(.*?)</h3>", text) == ["one", "two"]
    assert text.count('aria-label="learning curves of one"') == 1
    assert text.count('aria-label="fusion weights of a, b"') == 1
