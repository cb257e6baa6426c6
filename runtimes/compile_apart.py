"""Compiling in a process of its own: a builder that crashes, or takes minutes and gigabytes, does not harm the node.

``python -m edgecxr.runtimes.compile_apart`` reads an ONNX file from standard input, builds, keeps the engine in the
cache, and prints one JSON object per line: {"phase", "step", "of"} while it works, then {"key", "bytes", "seconds"} or
{"error"}.
"""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import edgecxr
from edgecxr.errors import EngineError
from edgecxr.runtimes import tensorrt_api
from edgecxr.runtimes.driver import probe
from edgecxr.runtimes.engine_cache import EngineCache
from edgecxr.runtimes.tensorrt_api import Progress

__all__ = ["Compiled", "compile_apart"]

OFFSPRING = "edgecxr.runtimes.compile_apart"
PULSE_S = 0.2  # a builder may be silent for minutes; whoever waits is asked this often whether to go on


class Compiled(NamedTuple):
    """One engine that was built and kept."""

    path: Path
    size: int  # bytes of the engine
    seconds: float


def compile_apart(
    model: bytes,
    *,
    capability: str = "",
    folder: Path | None = None,
    kept: bool = False,
    progress: Progress | None = None,
) -> Compiled:
    """Build the engine of an ONNX file for the GPU here, or (TensorRT-RTX) for a compute capability.

    With `kept` one that is in the cache already is taken; without it, it is built anew.

    Raises EngineError: no TensorRT, no GPU where one is needed, refused, cancelled (`progress` gave False), or the
    builder crashed.
    """
    cache = EngineCache(folder)
    command = [sys.executable, "-m", OFFSPRING, capability or "-", str(cache.folder), "kept" if kept else "anew"]
    places = [str(Path(edgecxr.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places), "PYTHONSAFEPATH": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        try:
            return _attend(process, model, progress)
        finally:
            process.kill()  # nothing where it has ended


def _attend(process: "subprocess.Popen[bytes]", model: bytes, progress: Progress | None) -> Compiled:
    said: list[bytes] = []
    talk = (
        threading.Thread(target=_feed, args=(process, model), daemon=True),
        threading.Thread(target=lambda: said.extend(process.stderr or ()), daemon=True),
    )
    for thread in talk:
        thread.start()
    step = ("", 0, 0)
    for message in _messages(process):
        if "error" in message:
            raise EngineError(str(message["error"]))
        if "path" in message:
            return Compiled(Path(message["path"]), int(message["bytes"]), float(message["seconds"]))
        step = (message["phase"], message["step"], message["of"]) if message else step
        if progress is not None and not progress(*step):
            raise EngineError("compiling was cancelled")
    code = process.wait()
    talk[1].join(1)
    last = b"".join(said[-3:]).decode(errors="replace").strip() or "it said nothing"
    raise EngineError(f"the process that compiles ended with {code} and no engine: {last}")


def _feed(process: "subprocess.Popen[bytes]", model: bytes) -> None:
    if process.stdin is not None:
        try:
            process.stdin.write(model)
            process.stdin.close()
        except OSError:
            return  # it ended early: what it said is the reason


def _messages(process: "subprocess.Popen[bytes]") -> Iterator[dict[str, Any]]:
    """Each message as it comes; an empty one whenever none has come for a while."""
    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def listen() -> None:
        for line in process.stdout or ():
            lines.put(line)
        lines.put(None)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=PULSE_S)
        except queue.Empty:
            yield {}
            continue
        if line is None:
            return
        try:
            message = json.loads(line)
        except ValueError:
            continue  # a library that prints
        if isinstance(message, dict) and message.keys() & {"phase", "error", "path"}:
            yield message


def _work(capability: str, folder: str, *, kept: bool) -> None:
    from edgecxr.runtimes.trt import compile_model, engine_key

    api = tensorrt_api.load()
    gpu = None if capability and api.builds_without_gpu else probe().gpu()
    model, cache, start = sys.stdin.buffer.read(), EngineCache(Path(folder)), perf_counter()
    key = engine_key(model, api, gpu, capability)
    if api.builds_without_gpu and not capability and gpu is not None:
        capability = gpu.capability
    engine = cache.read(key) if kept else None
    if engine is None:
        with cache.building() as waited:
            engine = cache.read(key) if waited else None  # another worker of the same node builds the same
            engine = engine or compile_model(model, key, api, cache, capability=capability, progress=_print_step)
    _print({"path": str(cache.path(key)), "bytes": len(engine), "seconds": perf_counter() - start})


def _print(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


def _print_step(phase: str, step: int, of: int) -> bool:
    _print({"phase": phase, "step": step, "of": of})
    return True


def _main() -> None:
    capability, folder, kept = sys.argv[1:]
    try:
        _work("" if capability == "-" else capability, folder, kept=kept == "kept")
    except EngineError as error:
        _print({"error": str(error)})


if __name__ == "__main__":
    _main()
