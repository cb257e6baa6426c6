"""A Screener on a device that fails in a chosen way: run by test_device_faults.py, with a stub driver and real pycuda.

``python faulty_device.py BUNDLE WHEN FAIL``: the call of the driver named in FAIL fails from WHEN on, "opening" or
"screening". The kernel is any bytes, which the stub takes. Prints what came of it as one JSON object.
"""

import json
import os
import sys

import numpy as np
import onnxruntime

from edgecxr.bundle import Bundle
from edgecxr.phantom import chest
from edgecxr.runtimes import frame_kernel
from edgecxr.runtimes.compiler import Candidate
from edgecxr.runtimes.cuda import Buffer
from edgecxr.runtimes.engine import Engine
from edgecxr.runtimes.gpu import GpuEngine, GpuGraph, Port, ordered
from edgecxr.runtimes.graph import OUTPUTS
from edgecxr.runtimes.screener import Screener

FAMILY = "stub-gpu"


class OnHost(GpuGraph):
    """The bundle's network in ONNX Runtime, between a download and an upload: a GPU's part without TensorRT."""

    library = "stub"
    capturing = False

    @classmethod
    def version(cls) -> str:
        return "1"

    def _load(self, model: bytes) -> tuple[Port, tuple[Port, ...]]:
        self._session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        tensors = [*self._session.get_inputs(), *self._session.get_outputs()]
        ports = [Port(item.name, tuple(item.shape), np.dtype(np.float32)) for item in tensors]
        return ordered({port.name: port for port in ports}, self.library)

    def _bind(self, buffers: dict[str, Buffer]) -> None:
        self._named = buffers

    def _enqueue(self) -> None:
        image = self._named["image"]
        image.download()
        self.device.stream.synchronize()
        shown = image.array(self._ports[0].shape, np.float32).copy()
        for name, values in zip(OUTPUTS, self._session.run(list(OUTPUTS), {"image": shown}), strict=True):
            self._named[name].array(values.shape, np.float32)[...] = values
            self._named[name].upload()


class StubEngine(GpuEngine):
    family = FAMILY
    graph = OnHost


class OverStub(StubEngine):
    """The stub's kernel writes a constant, so no golden film is reproduced through it: the network alone is proven."""

    def prove(self, bundle: Bundle) -> None:
        Engine.prove(self, bundle)


def main(path: str, when: str, fail: str) -> None:
    """Open, take over, screen two films while nothing fails or something does, and say what came of it."""
    name, _, value = fail.partition("=")
    variable = {"SHORT": ("SHORT", value)}.get(name, ("FAIL", fail))

    def make() -> Engine:
        if when == "opening":
            os.environ.update([variable])
        return OverStub.open(bundle, "fp32", golden=False)

    for form in ("fatbin", "compile_cubin", "compile_ptx"):
        setattr(frame_kernel, form, lambda *_: b"an image")
    bundle = Bundle.open(path)
    film = chest(5, "covid", size=128)
    with Screener(bundle, precision="fp32", threads=1, successors=lambda _: [Candidate(OverStub, "fp32", make)]) as s:
        s.wait()
        first = s.screen(film)
        os.environ.update([variable])
        second = s.screen(film)
        third = s.screen(film)
        engines = [result.engine for result in (first, second, third)]
        same = second.findings == third.findings
        reasons = [attempt.reason for attempt in s.successors()]
        s.prove()
    print(json.dumps({"engines": engines, "same": same, "reasons": reasons, "kernels": [first.kernel, third.kernel]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
