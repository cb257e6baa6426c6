"""A film on the host to its scores on a GPU, beside nothing but the copy of its pixels to the GPU, in one run.

Scenario: one 16-bit film in ordinary memory at a time, as the reader leaves it, to logits, map and embedding in
ordinary memory, by an engine on a GPU (from the third film of a size on one CUDA graph). The copy: the same bytes from
pinned memory to the GPU, waited for. Beside them the CPU's kernel with ONNX Runtime on CUDA, where it is installed.
The number: median of the film's time over the copy's.

    python bench/cuda_frame.py [--bundle FILE.cxr] [--engine tensorrt] [--precision fp16] [--side 3072] [--rounds 200]

Needs a GPU. Not run on one yet: the stub driver of the tests has seen it, which says nothing of time.
"""

import argparse
from collections.abc import Callable
from typing import Any

import harness

from edgecxr.bundle import Bundle, default_bundle_path
from edgecxr.errors import EngineError
from edgecxr.kernels import preprocess
from edgecxr.phantom import chest
from edgecxr.radiograph import Radiograph
from edgecxr.runtimes.graph import OUTPUTS
from edgecxr.runtimes.registry import open_engine

COPY, OURS, PEER = "copy to the GPU", "film to scores", "kernel on the CPU, ONNX Runtime on CUDA"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default=str(default_bundle_path()), help="a .cxr file")
    parser.add_argument("--engine", default="tensorrt", help="tensorrt, torch-tensorrt or onnxruntime-cuda")
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--side", type=int, default=3072, help="height and width of the film in pixels")
    parser.add_argument("--rounds", type=int, default=200)
    arguments = parser.parse_args()
    bundle, film = Bundle.open(arguments.bundle), chest(1, size=arguments.side)
    with open_engine(bundle, arguments.engine, arguments.precision, point=None) as engine:
        told = engine.describe()
        measured = measure(bundle, engine, film, arguments.rounds)
    path = harness.write_result("cuda_frame", {**vars(arguments), "engine": told}, measured, bundle=arguments.bundle)
    print(path.read_text())


def measure(bundle: Bundle, engine: Any, film: Radiograph, rounds: int) -> dict[str, Any]:
    """Milliseconds of each contestant and of the parts of ours, and the number."""
    outputs: list[Any] = []
    contestants = {COPY: copying(engine, film), OURS: lambda: outputs.append(engine.run([film])[0])}
    contestants |= on_cuda(bundle, engine, film)
    times = harness.interleaved(contestants, rounds=rounds)
    parts = {
        "planned and staged on the host": [output.preprocess_ms for output in outputs[-rounds:]],
        "on the device, and read back": [output.infer_ms for output in outputs[-rounds:]],
    }
    return {
        "ms": {name: harness.summary(samples) for name, samples in {**times, **parts}.items()},
        "times_the_copy": {name: harness.ratio(samples, times[COPY]) for name, samples in {**times, **parts}.items()},
        "megabytes": film.pixels.nbytes / 1e6,
        "device": engine.describe(),
    }


def copying(engine: Any, film: Radiograph) -> Callable[[], None]:
    """The pixels from pinned memory to the GPU of the engine. Raises EngineError where nothing is copied at all."""
    device = engine._on_gpu().device
    if device.zero_copy:
        raise EngineError("this GPU shares its memory with the CPU: there is no copy to compare with")
    buffer = device.buffer(film.pixels.nbytes)
    buffer.array(film.pixels.shape, film.pixels.dtype)[...] = film.pixels

    def copy() -> None:
        with device.use():
            buffer.upload()
            device.stream.synchronize()

    return copy


def on_cuda(bundle: Bundle, engine: Any, film: Radiograph) -> dict[str, Callable[[], Any]]:
    """The peer; nothing where ONNX Runtime has no CUDA here."""
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return {}
    session = onnxruntime.InferenceSession(bundle.model(engine.precision), providers=["CUDAExecutionProvider"])
    kind = "float16" if session.get_inputs()[0].type == "tensor(float16)" else "float32"

    def run() -> Any:
        batch = preprocess([film], bundle.spec.preprocess).astype(kind, copy=False)
        return session.run(list(OUTPUTS), {"image": batch})

    return {PEER: run}


if __name__ == "__main__":
    main()
