"""ONNX Runtime's IO binding to the buffers of a stub device, whose memory is the host's: run by test_ort_cuda.py.

``python bound_buffers.py BUNDLE`` prints one JSON object: how far a batch and the kernel's film are from what the CPU's
engine says of them, and what the engine says of itself.
"""

import json
import sys
from typing import Any

import numpy as np

from edgecxr.bundle import Bundle
from edgecxr.phantom import chest
from edgecxr.runtimes import frame_kernel
from edgecxr.runtimes.ort import OrtCpu, import_onnxruntime, quiet_options
from edgecxr.runtimes.ort_cuda import OrtCuda, OrtCudaGraph


class Bound(OrtCudaGraph):
    """With ONNX Runtime's CPU in place of its CUDA."""

    provider = "CPUExecutionProvider"
    memory = "cpu"
    capturing = False

    def _options(self, onnxruntime: Any) -> Any:
        return quiet_options(onnxruntime)

    def _provider(self) -> tuple[str, dict[str, str]]:
        self.asked = super()._provider()[1]
        return self.provider, {}


class BoundEngine(OrtCuda):
    graph = Bound


def main(path: str) -> None:
    frame_kernel.fatbin = lambda: b"an image"  # type: ignore[attr-defined]
    bundle = Bundle.open(path)
    size = bundle.spec.preprocess.size
    batch = np.random.default_rng(0).random((3, 1, size, size), dtype=np.float32)
    told: dict[str, Any] = {}
    for precision in ("fp32", "fp16", "int8"):
        with (
            BoundEngine.open(bundle, precision, golden=False) as engine,
            OrtCpu.open(bundle, precision) as other,
        ):
            pairs = zip(engine.infer(batch), other.infer(batch), strict=True)
            told[precision] = max(float(np.abs(one - two).max()) for one, two in pairs)
            if precision != "fp16":  # the kernel of the stub writes float32, 0.5 in every pixel
                film = engine.run([chest(1, "covid", size=128)])[0]
                gray = other.infer(np.full((1, 1, size, size), 0.5, np.float32))
                told[f"{precision} film"] = float(np.abs(film.logits - gray.logits[0]).max())
            described, asked = engine.describe(), engine._graph.asked  # type: ignore[union-attr]
    version = import_onnxruntime()[0].__version__
    told |= {"zero_copy": described["zero_copy"], "version": described["version"] == version, "asked": sorted(asked)}
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
