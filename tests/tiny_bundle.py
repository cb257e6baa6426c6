"""A real bundle small enough for every test: 64 px, two convolutions and a linear head fitted to phantoms.

The convolutions are seeded random filters; the head is a stiff ridge regression on their pooled features. It diagnoses
little, but its embedding tells a chest from a checkerboard, and its three precisions agree.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgecxr import kernels
from edgecxr.bundle import Golden, write_bundle
from edgecxr.phantom import FINDINGS, chest
from edgecxr.radiograph import Radiograph
from edgecxr.refusal import EmbeddingGate
from edgecxr.scores import probabilities
from edgecxr.spec import Head, ModelSpec, OperatingPoint, Precision, PreprocessSpec

SIZE, FILTERS, FEATURES = 64, 12, 24
CAM = SIZE // 8
FAMILIES = ("openvino-cpu", "onnxruntime-cpu")
PREPROCESS = PreprocessSpec(size=SIZE)
HEADS = (Head(name="covid3", kind="softmax", classes=FINDINGS, reference="normal"),)
Weights = dict[str, NDArray[np.float32]]
Scales = dict[str, float]


def random_weights(seed: int = 7) -> Weights:
    """Filters that sum to zero where they look at the film, so that brightness alone says little."""
    draw = np.random.default_rng(seed)
    first = draw.normal(0, 0.35, (FILTERS, 1, 5, 5))
    first[: FILTERS // 2] -= first[: FILTERS // 2].mean(axis=(2, 3), keepdims=True)
    return {
        "first": first.astype(np.float32),
        "second": draw.normal(0, 0.15, (FEATURES, FILTERS, 3, 3)).astype(np.float32),
        "head": draw.normal(0, 0.3, (len(FINDINGS), FEATURES, 1, 1)).astype(np.float32),
        "bias": np.zeros(len(FINDINGS), np.float32),
    }


def float_model(weights: Weights, dtype: type = np.float32, batch: int | str = 1) -> bytes:
    """FP32 or FP16 ONNX; `image` and the outputs have the same type as the body."""
    kept = {name: values.astype(dtype) for name, values in weights.items()}
    return _model(kept, _body(lambda name: name, lambda name: name), np.dtype(dtype), batch)


def int8_model(weights: Weights, scales: Scales) -> bytes:
    """Explicit QDQ: symmetric int8, zero point 0, weights per channel on axis 0, body FP32."""
    kept: dict[str, NDArray[Any]] = {"bias": weights["bias"]}
    nodes: list[onnx.NodeProto] = []
    for name in ("first", "second", "head"):
        scale = np.abs(weights[name]).max(axis=(1, 2, 3)) / 127
        kept[f"{name}_q"] = np.rint(weights[name] / scale[:, None, None, None]).astype(np.int8)
        kept[f"{name}_scale"], kept[f"{name}_zero"] = scale.astype(np.float32), np.zeros(len(scale), np.int8)
        inputs = [f"{name}_q", f"{name}_scale", f"{name}_zero"]
        nodes.append(helper.make_node("DequantizeLinear", inputs, [name], axis=0))
    for name, scale_value in scales.items():
        kept[f"{name}_scale"], kept[f"{name}_zero"] = np.float32(scale_value), np.int8(0)

    def quantized(name: str) -> str:
        nodes.append(helper.make_node("QuantizeLinear", [name, f"{name}_scale", f"{name}_zero"], [f"{name}_int8"]))
        inputs = [f"{name}_int8", f"{name}_scale", f"{name}_zero"]
        nodes.append(helper.make_node("DequantizeLinear", inputs, [f"{name}_dq"]))
        return f"{name}_dq"

    return _model(kept, _body(quantized, lambda name: name, nodes), np.dtype(np.float32), 1)


def _body(
    activation: Callable[[str], str], weight: Callable[[str], str], nodes: list[onnx.NodeProto] | None = None
) -> list[onnx.NodeProto]:
    nodes = [] if nodes is None else nodes

    def add(kind: str, inputs: list[str], output: str, **settings: Any) -> None:
        nodes.append(helper.make_node(kind, inputs, [output], **settings))

    add("Conv", [activation("image"), weight("first")], "a", strides=[4, 4], pads=[2, 2, 2, 2], kernel_shape=[5, 5])
    add("Relu", ["a"], "hidden")
    add("Conv", [activation("hidden"), weight("second")], "b", strides=[2, 2], pads=[1, 1, 1, 1], kernel_shape=[3, 3])
    add("Relu", ["b"], "features")
    deep = activation("features")
    add("Conv", [deep, weight("head"), "bias"], "cam", kernel_shape=[1, 1])
    for source, output in (("cam", "logits"), (deep, "embedding")):
        add("GlobalAveragePool", [source], f"{output}_pooled")
        add("Flatten", [f"{output}_pooled"], output)
    return nodes


def _model(kept: Mapping[str, NDArray[Any]], nodes: list[onnx.NodeProto], dtype: Any, batch: int | str) -> bytes:
    kind = TensorProto.FLOAT16 if dtype == np.float16 else TensorProto.FLOAT
    classes = len(FINDINGS)
    shapes = {"logits": [batch, classes], "cam": [batch, classes, CAM, CAM], "embedding": [batch, FEATURES]}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", kind, [batch, 1, SIZE, SIZE])],
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in shapes.items()],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in kept.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data


def run_ort(model: bytes, batch: NDArray[Any]) -> list[NDArray[np.float32]]:
    """logits, cam, embedding of (N, 1, S, S) films, film by film, as a build stores them."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    dtype = np.float16 if "float16" in session.get_inputs()[0].type else np.float32
    rows = [session.run(None, {"image": film[np.newaxis].astype(dtype)}) for film in batch]
    return [np.concatenate(parts).astype(np.float32) for parts in zip(*rows, strict=True)]


def fit_gate(model: bytes, train: NDArray[Any], held: NDArray[Any]) -> EmbeddingGate:
    return EmbeddingGate.fit(run_ort(model, train)[2], validation=run_ort(model, held)[2])


class TinyBuild:
    """Everything that goes into the tiny bundle; `write` makes the file, with changes where a test wants them."""

    def __init__(self) -> None:
        self.films = [chest(seed, finding, size=128) for seed in range(24) for finding in FINDINGS]
        batch = kernels.preprocess(self.films, PREPROCESS)
        self.weights = random_weights()
        features = run_ort(float_model(self.weights, batch="N"), batch)[2]
        self._fit_head(features)
        self.models = self._models(batch)
        held = kernels.preprocess([chest(seed, "normal", size=128) for seed in range(100, 130)], PREPROCESS)
        self.gates = {name: fit_gate(model, batch, held) for name, model in self.models.items()}
        self.golden = self._golden(self.films[:6])
        self.spec = self._spec()

    def _fit_head(self, features: NDArray[np.float32]) -> None:
        """Ridge regression of the pooled features on +3 (this finding) and -3 (another)."""
        level, spread = features.mean(0), features.std(0) + 1e-6
        scaled = (features - level) / spread
        targets = np.where(np.tile(np.eye(len(FINDINGS), dtype=bool), (24, 1)), 3.0, -3.0)
        solved = np.linalg.solve(scaled.T @ scaled + 50 * np.eye(FEATURES), scaled.T @ (targets - targets.mean(0))).T
        self.weights["head"] = (solved / spread)[:, :, None, None].astype(np.float32)
        self.weights["bias"] = (targets.mean(0) - (solved / spread) @ level).astype(np.float32)

    def _models(self, batch: NDArray[Any]) -> dict[Precision, bytes]:
        hidden = {"image": float(batch.max()) / 127, **_activation_scales(self.weights, batch)}
        return {
            "fp32": float_model(self.weights),
            "fp16": float_model(self.weights, np.float16),
            "int8": int8_model(self.weights, hidden),
        }

    def _golden(self, frames: list[Radiograph]) -> Golden:
        batch = kernels.preprocess(frames, PREPROCESS)
        outputs = {name: run_ort(model, batch) for name, model in self.models.items()}
        logits, cam, embedding = ({name: values[i] for name, values in outputs.items()} for i in range(3))
        return Golden(tuple(frames), logits, cam, embedding)

    def _spec(self) -> ModelSpec:
        points = [
            OperatingPoint(
                name="screening",
                finding=finding,
                precision=precision,
                engine=engine,
                threshold=self._threshold(precision, finding),
                rule="between two golden films",
                sensitivity=0.9,
                specificity=0.8,
            )
            for precision in self.models
            for engine in FAMILIES
            for finding in HEADS[0].findings
        ]
        return ModelSpec(
            name="tiny",
            version="1",
            heads=HEADS,
            preprocess=PREPROCESS,
            temperatures=dict.fromkeys(self.models, (1.0,)),
            operating_points=tuple(points),
            cam_shape=(CAM, CAM),
            embedding_size=FEATURES,
        )

    def _threshold(self, precision: Precision, finding: str) -> float:
        """The middle of the widest gap between two golden probabilities, so that no rounding moves a decision."""
        ordered = np.sort(self.golden_scores(precision)[:, FINDINGS.index(finding)])
        widest = int(np.diff(ordered).argmax())
        return float(ordered[widest : widest + 2].mean())

    def golden_scores(self, precision: Precision) -> NDArray[np.float64]:
        """(N, C) probabilities of the golden films."""
        return probabilities(self.golden.logits[precision], HEADS, (1.0,))

    def write(self, path: Path, **changes: Any) -> Path:
        """Write the bundle; `changes` replace arguments of `write_bundle`."""
        content: dict[str, Any] = {
            "model": self.spec,
            "models": self.models,
            "golden": self.golden,
            "gates": self.gates,
            "evaluation": {"schema": 1, "models": [], "note": "a test model: nothing was evaluated"},
            "card": "# tiny\n\nA test model fitted to phantoms. Not for patients.\n",
            "provenance": {"recipe": "tests/tiny_bundle.py"},
            "tolerance": 0.05,
        }
        return write_bundle(path, **{**content, **changes})


def _activation_scales(weights: Weights, batch: NDArray[Any]) -> Scales:
    """Min-max scales of the two hidden layers, from the FP32 graph."""
    model = onnx.load_from_string(float_model(weights, batch="N"))
    for name in ("hidden", "features"):
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    hidden, features = session.run(["hidden", "features"], {"image": batch.astype(np.float32)})
    return {"hidden": float(hidden.max()) / 127, "features": float(features.max()) / 127}
