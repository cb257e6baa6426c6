"""One conformance test for every back end, on tiny real graphs in every precision."""

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgecxr.errors import EngineError
from edgecxr.runtimes.graph import OUTPUTS, Answer, GraphSession

BACKENDS = ("openvino", "onnxruntime")
PRECISIONS = ("fp32", "fp16", "int8")
# Between FP16 engines: ONNX Runtime rounds after every node, OpenVINO computes in f32. Relative to the largest value.
TOLERANCE = {"fp32": 1e-5, "fp16": 5e-3, "int8": 2e-2}


@pytest.fixture(scope="module")
def films() -> NDArray[np.float32]:
    """(3, 1, 64, 64) in [0, 1]."""
    return np.random.default_rng(3).random((3, 1, 64, 64), np.float32)


def relu_network(weights: dict[str, NDArray[np.float32]], films: NDArray[np.float32]) -> Answer:
    """The tiny network in float64 NumPy, from the definition of convolution."""
    hidden = np.maximum(convolve(films, weights["first"], stride=4, pad=2), 0)
    features = np.maximum(convolve(hidden, weights["second"], stride=2, pad=1), 0)
    cam = np.einsum("kc,nchw->nkhw", weights["head"][:, :, 0, 0].astype(np.float64), features)
    cam += weights["bias"].astype(np.float64)[:, None, None]
    return Answer(cam.mean(axis=(2, 3)), cam, features.mean(axis=(2, 3)))


def convolve(images: NDArray[Any], kernel: NDArray[Any], stride: int, pad: int) -> NDArray[np.float64]:
    size = kernel.shape[-1]
    padded = np.pad(images.astype(np.float64), ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(2, 3))[:, :, ::stride, ::stride]
    return np.einsum("ncyxij,kcij->nkyx", windows, kernel.astype(np.float64))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_back_end_computes_the_network(backend: Any, precision: Any, tiny_build: Any, films: Any) -> None:
    wanted = relu_network(tiny_build.weights, films)
    with GraphSession(tiny_build.models[precision], backend, threads=1) as session:
        answer = session.infer(films)
    for name, got, want in zip(OUTPUTS, answer, wanted, strict=True):
        assert got.dtype == np.float32
        assert got.shape == want.shape, name
        tolerance = {"fp32": 1e-5, "fp16": 1e-2, "int8": 0.1}[precision] * np.abs(want).max()
        np.testing.assert_allclose(got, want, rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_back_ends_agree(precision: Any, tiny_build: Any, films: Any) -> None:
    model = tiny_build.models[precision]
    one, other = (GraphSession(model, backend).infer(films) for backend in ("openvino", "onnxruntime"))
    for name, a, b in zip(OUTPUTS, one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE[precision] * np.abs(b).max(), err_msg=name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_dynamic_batch_gives_what_one_by_one_gives(
    backend: Any, tiny_module: ModuleType, tiny_build: Any, films: Any
) -> None:
    twin = GraphSession(tiny_module.float_model(tiny_build.weights, batch="N"), backend)
    static = GraphSession(tiny_build.models["fp32"], backend)
    for a, b in zip(twin.infer(films), static.infer(films), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_an_answer_does_not_change_with_the_next_film(
    backend: Any, precision: Any, tiny_build: Any, films: Any
) -> None:
    session = GraphSession(tiny_build.models[precision], backend)
    first = session.infer(films[:1])
    kept = [values.copy() for values in first]
    session.infer(films[1:2])
    for values, copy in zip(first, kept, strict=True):
        np.testing.assert_array_equal(values, copy)


@pytest.mark.parametrize("backend", BACKENDS)
def test_half_precision_films_and_strided_films_are_taken(backend: Any, tiny_build: Any, films: Any) -> None:
    session = GraphSession(tiny_build.models["fp16"], backend)
    half = films.astype(np.float16)
    whole = session.infer(half)
    for batch in (half.astype(np.float32), np.asfortranarray(half), np.repeat(half, 2, axis=0)[::2]):
        for a, b in zip(session.infer(batch), whole, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("shape", [(0, 1, 64, 64), (1, 64, 64), (1, 3, 64, 64), (1, 1, 32, 64), (1, 1, 64, 65)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_batch_of_another_shape_is_refused(backend: Any, shape: tuple[int, ...], tiny_build: Any) -> None:
    session = GraphSession(tiny_build.models["fp32"], backend)
    with pytest.raises(EngineError, match=rf"batch is \({shape[0]}, .* the model takes \(1, 1, 64, 64\)"):
        session.infer(np.zeros(shape, np.float32))


@pytest.mark.parametrize("backend", BACKENDS)
def test_whole_numbers_are_not_films(backend: Any, tiny_build: Any) -> None:
    session = GraphSession(tiny_build.models["fp32"], backend)
    with pytest.raises(EngineError, match="uint8, the model takes"):
        session.infer(np.zeros((1, 1, 64, 64), np.uint8))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_or_infinity_is_never_an_answer(
    backend: Any, value: float, tiny_module: ModuleType, tiny_build: Any, films: Any
) -> None:
    weights = {**tiny_build.weights, "bias": np.array([0, value, 0], np.float32)}
    session = GraphSession(tiny_module.float_model(weights), backend)
    with pytest.raises(EngineError, match=r"1 of 3 values of output 'logits' are NaN or infinite"):
        session.infer(films[:1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_film_of_nan_is_never_an_answer(backend: Any, tiny_build: Any) -> None:
    session = GraphSession(tiny_build.models["fp32"], backend)
    film = np.full((1, 1, 64, 64), 0.5, np.float32)
    film[0, 0, 30, 31] = np.nan
    with pytest.raises(EngineError, match="the batch holds NaN or infinite values"):
        session.infer(film)


@pytest.mark.parametrize("model", [b"", b"not an onnx file", b"\x08" * 500])
@pytest.mark.parametrize(("backend", "name"), [("openvino", "OpenVINO"), ("onnxruntime", "ONNX Runtime")])
def test_what_is_not_a_model_is_refused(backend: Any, name: str, model: bytes) -> None:
    with pytest.raises(EngineError, match=f"{name} cannot (load|compile) the model"):
        GraphSession(model, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_graph_with_other_names_is_refused(backend: Any, tiny_build: Any) -> None:
    import onnx

    model = onnx.load_from_string(tiny_build.models["fp32"])
    model.graph.output[1].name = model.graph.node[4].output[0] = "map"
    for node in model.graph.node:
        node.input[:] = ["map" if name == "cam" else name for name in node.input]
    with pytest.raises(EngineError, match="cam"):
        GraphSession(model.SerializeToString(), backend)


def test_unknown_back_ends_and_thread_numbers_are_refused(tiny_build: Any) -> None:
    model = tiny_build.models["fp32"]
    with pytest.raises(EngineError, match="unknown back end 'tvm'; choose openvino or onnxruntime"):
        GraphSession(model, "tvm")  # type: ignore[arg-type]
    with pytest.raises(EngineError, match="threads is -1; wanted 0"):
        GraphSession(model, threads=-1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_closed_session_says_so(backend: Any, tiny_build: Any, films: Any) -> None:
    session = GraphSession(tiny_build.models["fp32"], backend)
    session.close()
    session.close()
    assert session.describe() == {}
    with pytest.raises(EngineError, match="this session is closed"):
        session.infer(films)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_arithmetic_is_set_on_purpose_and_reported(backend: Any, tiny_build: Any) -> None:
    told = GraphSession(tiny_build.models["int8"], backend, threads=1).describe()
    assert told["library"] == backend
    assert told["inference_precision"] == "f32"
    assert told["threads"] == 1
    assert told["version"]
