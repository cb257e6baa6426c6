"""How the teachers learned, drawn: learning curves of all of them together, and the weights of joined networks."""

import json
from pathlib import Path
from typing import Any

from edgecxr.export.bench import Bench
from edgecxr.export.stages import Stage, code_of
from edgecxr.report import drawing, learning
from edgecxr.teachers.names import HISTORY

__all__ = ["draw_curves"]

FIGURES = {"pretrain-": "pretraining.svg", "teacher-": "learning.svg"}  # by how the names of the stages begin


def draw_curves(bench: Bench) -> Path | None:
    """Stage `curves`, after all teachers: learning.svg, pretraining.svg, and weights-<teacher>.svg of each joined one.

    None where no teacher was trained here.
    """
    outcomes = bench.workshop.outcomes.values()
    folders = {item.name: item.folder for item in outcomes if (item.folder / HISTORY).is_file()}
    teachers = tuple(name for name in folders if name.startswith(tuple(FIGURES)))
    if not teachers:
        return None

    def run(place: Path) -> None:
        _draw({name: json.loads((folders[name] / HISTORY).read_text()) for name in teachers}, place)

    return bench.workshop.run(Stage("curves", run, {"code": code_of(drawing, learning)}, teachers))


def _draw(histories: dict[str, list[dict[str, Any]]], place: Path) -> None:
    for start, name in FIGURES.items():
        own = {stage.removeprefix(start): records for stage, records in histories.items() if stage.startswith(start)}
        if own:
            drawing.write_svg(place / name, learning.learning_curves(own))
    for stage, records in histories.items():
        if any(key.startswith(learning.WEIGHT) for key in records[0]):
            figure = learning.fusion_weights(records)
            drawing.write_svg(place / f"weights-{stage.removeprefix('teacher-')}.svg", figure)
