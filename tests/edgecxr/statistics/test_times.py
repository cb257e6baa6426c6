"""Percentiles of measured times."""

from edgecxr.statistics.times import percentile, summary


def test_percentiles_are_nearest_rank() -> None:
    samples = [float(value) for value in range(200, 0, -1)]
    assert summary(samples) == {"best": 1.0, "p50": 100.0, "p90": 180.0, "p99": 198.0, "count": 200}
    assert percentile([7.0], 99) == 7.0
