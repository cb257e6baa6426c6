"""Choosing an INT8 form by its loss on both engines."""

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("onnx")
pytest.importorskip("torch")

from edgecxr.errors import StageError
from edgecxr.export.lint import lint
from edgecxr.export.to_int8 import METHODS, Method, OutputLoss, output_loss, quantize
from edgecxr.runtimes.graph import Answer

pytestmark = pytest.mark.train
Images = NDArray[np.float32]


def test_the_method_with_the_smallest_loss_is_taken(tiny_fp32: bytes, tiny_images: Images) -> None:
    quantized = quantize(tiny_fp32, tiny_images[:16], score=OutputLoss(tiny_fp32, tiny_images[16:]))
    lint(quantized.model, "int8")
    assert [item.method for item in quantized.tried] == [method.name for method in METHODS]
    assert quantized.loss == min(item.loss for item in quantized.tried if item.loss is not None) < 0.2
    assert len(quantized.model) < len(tiny_fp32)


def test_a_half_precision_body_passes_too(tiny_fp32: bytes, tiny_images: Images) -> None:
    quantized = quantize(tiny_fp32, tiny_images, methods=[Method("mse")], body="fp16")
    lint(quantized.model, "int8")
    assert quantized.method == "mse+bias"
    assert quantized.loss < 0.3


def test_the_graph_itself_loses_nothing(tiny_fp32: bytes, tiny_images: Images) -> None:
    assert OutputLoss(tiny_fp32, tiny_images)(tiny_fp32) == pytest.approx(0, abs=1e-4)


def test_the_loss_is_relative_logits_plus_what_the_maps_lack_in_correlation() -> None:
    random = np.random.default_rng(0)
    logits, cam = random.normal(size=(50, 3)).astype(np.float32), random.normal(size=(50, 3, 4, 4)).astype(np.float32)
    whole = Answer(logits, cam, np.zeros((50, 2), np.float32))
    assert output_loss(whole, whole) == pytest.approx(0, abs=1e-6)
    assert output_loss(whole, whole._replace(logits=logits + logits.std())) == pytest.approx(1, rel=1e-5)
    assert output_loss(whole, whole._replace(cam=-cam)) == pytest.approx(2, rel=1e-5)
    flat = whole._replace(cam=np.ones_like(cam))
    assert output_loss(flat, flat) == 0


def test_nothing_that_passes_is_a_failed_stage_with_every_reason(tiny_fp32: bytes, tiny_images: Images) -> None:
    with pytest.raises(StageError, match=r"no INT8 graph passed:\n  minmax\+bias: the loss is nan"):
        quantize(tiny_fp32, tiny_images, methods=[Method("minmax")], score=lambda _: float("nan"))


def test_calibration_needs_films(tiny_fp32: bytes, tiny_images: Images) -> None:
    with pytest.raises(StageError, match=r"calibration images are \(0, 1, 32, 32\)"):
        quantize(tiny_fp32, tiny_images[:0])
