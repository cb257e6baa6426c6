"""The record: plain JSON, with all that a reader needs when the bundle is gone."""

import json
from typing import Any

import numpy as np
import pytest

from edgecxr.errors import EngineError
from edgecxr.heatmap import evidence, relevance
from edgecxr.runtimes.node.results.record import heatmap, most_urgent, urgency


def finding(name: str, probability: float, threshold: float) -> dict[str, Any]:
    decision = "positive" if probability >= threshold else "negative"
    return {"name": name, "probability": probability, "threshold": threshold, "decision": decision}


def test_the_record_is_the_line_of_screen_and_more(phantom: Any, screener: Any) -> None:
    record = phantom.result.record
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    line = screener.screen(phantom.path).to_json()
    assert {key: record[key] for key in ("status", "findings", "bundle", "engine", "precision")} == {
        key: line[key] for key in ("status", "findings", "bundle", "engine", "precision")
    }
    assert set(line) < set(record)
    spec = screener.bundle.spec
    assert record["model"] == {"name": spec.name, "version": spec.version}
    assert (record["image"], record["file"], record["operating_point"]) == (7, "film.dcm", screener.point)
    assert record["decided"] - record["received"] == 2


def test_urgency_is_half_at_the_threshold_whatever_the_threshold() -> None:
    for threshold in (0.02, 0.5, 0.9):
        assert urgency({"findings": [finding("a", threshold, threshold)]}) == pytest.approx(0.5)
    assert urgency({"findings": []}) == 0
    assert urgency({"findings": [finding("a", 1.0, 0.0)]}) <= 1


def test_the_most_urgent_is_furthest_above_its_own_threshold() -> None:
    findings = [finding("likely", 0.6, 0.5), finding("rare", 0.2, 0.02)]
    assert most_urgent({"findings": findings}) == findings[1]
    assert most_urgent({"findings": []}) is None


def test_the_heatmap_is_the_one_of_the_bundle(phantom: Any, screener: Any) -> None:
    spec, record = screener.bundle.spec, phantom.result.record
    first = record["findings"][0]
    size = spec.preprocess.size
    maps = evidence(phantom.result.cam, spec.heads, spec.temperatures[screener.engine.precision])
    cells = relevance(maps[spec.classes.index(first["name"])], first["threshold"])
    wide = heatmap(record, phantom.result.cam, first, (size, size))
    assert wide.shape == (size, size)
    step = size // cells.shape[0]
    centres = wide[step // 2 :: step, step // 2 :: step][: cells.shape[0], : cells.shape[1]]
    assert np.abs(centres - cells).max() < 0.2
    assert wide.max() <= cells.max() + 1e-6


def test_a_map_of_other_classes_is_refused(phantom: Any) -> None:
    record = phantom.result.record
    with pytest.raises(EngineError, match="class activation map has shape"):
        heatmap(record, phantom.result.cam[:1], record["findings"][0], (64, 64))


def test_the_folder_of_the_spool_is_not_told(phantom: Any) -> None:
    assert str(phantom.path.parent) not in json.dumps(phantom.result.record)
