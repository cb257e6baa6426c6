from xml.etree import ElementTree

import pytest

from edgecxr.report.drawing import COLOURS, STYLE, ticks, write_svg
from edgecxr.report.plots import confusion_matrix


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.0, 1.0, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (0.05, 1.48, ["0.2", "0.4", "0.6", "0.8", "1.0", "1.2", "1.4"]),
        (0.8701, 0.9242, ["0.88", "0.89", "0.90", "0.91", "0.92"]),
        (-30.0, 60.0, ["-20", "0", "20", "40", "60"]),
    ],
)
def test_ticks_are_round_and_in_their_places(low, high, labels):
    found = ticks(low, high)
    assert [label for _, label in found] == labels
    for place, label in found:
        assert low + place * (high - low) == pytest.approx(float(label))


def test_a_plot_alone_is_an_image_with_its_colours(tmp_path):
    path = write_svg(tmp_path / "matrix.svg", confusion_matrix(["a & b", "c"], [[3, 1], [0, 2]]))
    root = ElementTree.parse(path).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert ".cell.right" in root[0].text
    assert "a & b" in "".join(root.itertext())


def test_every_colour_has_a_line_a_dot_and_a_key():
    style = STYLE.read_text("utf-8")
    for index in range(COLOURS):
        assert style.count(f"--s{index}: #") == 2  # by day and by night
        for rule in (f"polyline.s{index} ", f".dot.s{index} ", f".k{index} "):
            assert rule in style
