"""Activation ranges from histograms, and what is observed of a graph."""

import numpy as np
import pytest
from numpy.typing import NDArray

onnx = pytest.importorskip("onnx")
pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from hypothesis.extra import numpy as arrays  # noqa: E402

from edgecxr.export.calibration import RANGE_METHODS, Magnitudes, observe  # noqa: E402
from edgecxr.export.qdq import quantizable  # noqa: E402

pytestmark = pytest.mark.train
FINITE = st.floats(-1e4, 1e4, width=32)


@settings(max_examples=50, deadline=None)
@given(st.lists(arrays.arrays(np.float32, st.integers(1, 40), elements=FINITE), min_size=1, max_size=5))
def test_minmax_is_the_largest_magnitude_and_nothing_is_lost(batches: list[NDArray[np.float32]]) -> None:
    seen = Magnitudes()
    for batch in batches:
        seen.add(batch)
    values = np.concatenate(batches)
    assert seen.range("minmax") == np.abs(values).max()
    assert seen.counts.sum() == values.size
    assert all(0 <= seen.range(method) <= seen.largest for method in RANGE_METHODS)


def test_least_error_cuts_a_lone_outlier_and_keeps_a_uniform_tail() -> None:
    random = np.random.default_rng(0)
    outlier, uniform = Magnitudes(), Magnitudes()
    outlier.add(np.append(random.normal(size=100_000), 60.0).astype(np.float32))
    uniform.add(random.uniform(-1, 1, 100_000).astype(np.float32))
    assert 3 < outlier.range("mse") < 50
    assert outlier.range("percentile") < 6
    assert uniform.range("mse") > 0.95


def test_an_activation_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="infinite or not a number"):
        Magnitudes().add(np.array([1, np.nan], np.float32))


def test_every_tensor_before_a_convolution_is_observed(tiny_fp32: bytes, tiny_images: NDArray[np.float32]) -> None:
    seen = observe(tiny_fp32, tiny_images, batch=5)
    nodes = quantizable(onnx.load_from_string(tiny_fp32).graph)
    assert set(seen.magnitudes) == {node.input[0] for node in nodes}
    assert len(nodes) == 4
    first = nodes[0].input[0]
    assert seen.ranges("minmax")[first] == pytest.approx(np.abs((tiny_images - 0.5) * 4).max(), rel=1e-6)
    assert seen.means[first] == pytest.approx(((tiny_images - 0.5) * 4).mean(), rel=1e-4)


def test_the_batch_does_not_matter(tiny_fp32: bytes, tiny_images: NDArray[np.float32]) -> None:
    one, other = (observe(tiny_fp32, tiny_images, batch=size).ranges("minmax") for size in (1, 24))
    assert one == pytest.approx(other, rel=1e-5)
