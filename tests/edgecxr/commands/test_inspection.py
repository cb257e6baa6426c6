"""``edgecxr inspect``: thresholds, and which films their figures are of."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[..., Any]


def test_points_with_one_threshold_are_one_row_and_the_films_are_named(
    run: Run, tiny_build: Any, tmp_path: Path
) -> None:
    points = tiny_build.spec.operating_points
    moved = {"name": "late", "threshold": 0.125}
    more = [point.model_copy(update={"name": "balanced"} if point.finding == "covid" else moved) for point in points]
    spec = tiny_build.spec.model_copy(update={"operating_points": (*points, *more)})
    provenance = {"films": {"train": 5, "validate": 3, "test": 2}}
    tiny_build.write(tmp_path / "two.cxr", model=spec, provenance=provenance)
    told = run("inspect", "two.cxr").stdout
    rows = [line.split("  ")[0] for line in told.splitlines() if "  covid  " in line or "  pneumonia  " in line]
    variants = len(points) // 2
    assert rows.count("screening and balanced") == rows.count("late") == variants
    assert rows.count("screening") == variants
    assert "* of the 3 validation films, on which the thresholds were set" in told
    assert "--card tells those of the 2 test films" in told


def test_a_bundle_that_does_not_count_its_films_names_them_all_the_same(run: Run, tiny_bundle: Path) -> None:
    told = run("inspect", tiny_bundle).stdout
    assert "* of the validation films" in told
    assert "those of the test films" in told
