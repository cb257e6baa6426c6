import json

import pytest

from edgecxr.statistics.interval import Interval, normal_quantile


def test_an_interval_reads_well_and_goes_into_json() -> None:
    interval = Interval(0.5, 0.25, 0.75)
    assert str(interval) == "0.500 [0.250, 0.750]"
    assert json.loads(json.dumps(interval.to_json())) == {"value": 0.5, "low": 0.25, "high": 0.75, "level": 0.95}


def test_the_normal_quantile() -> None:
    assert normal_quantile(0.95) == pytest.approx(1.959964, abs=1e-6)
    assert normal_quantile(0.90) == pytest.approx(1.644854, abs=1e-6)
