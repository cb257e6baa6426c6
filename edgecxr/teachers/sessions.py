"""Opening somebody else's trained network: each way in ends as one function from a batch to its raw outputs."""

import importlib
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as native
from torch import Tensor, nn

from edgecxr.errors import StageError
from edgecxr.teachers.architecture import build
from edgecxr.teachers.compute import pick_device
from edgecxr.teachers.weights import read_weights

__all__ = ["Session", "open_checkpoint", "open_factory", "open_onnx", "open_program"]

Outputs = NDArray[np.floating]
# ONNX Runtime's exceptions have no base of their own: every exception class of its binding is meant.
NATIVE = [item for item in vars(native).values() if isinstance(item, type) and issubclass(item, Exception)]
FAULTS: tuple[type[Exception], ...] = (RuntimeError, ValueError, *NATIVE)


@dataclass(frozen=True)
class Session:
    """`run` maps (n, channels, S, S) float32 to (n, K); `batch` is the only n it takes, or None."""

    run: Callable[[NDArray[np.float32]], Outputs]
    batch: int | None = None
    module: nn.Module | None = None


def open_checkpoint(path: Path, architecture: str, outputs: int, channels: int, prefixes: Sequence[str]) -> Session:
    """Weights of a timm or torchvision architecture; every tensor must fit, under the names of the library."""
    network = build(architecture, outputs, channels)
    state = read_weights(path, prefixes)
    own = any(name.startswith("body.") for name in state)  # written by this package: with its normalization
    module: nn.Module = network if own else network.body
    fault = _load(module, state)
    if fault:
        raise StageError(
            f"{path} does not fit {architecture} with {outputs} outputs and {channels} channel(s): {fault}"
        )
    return _torch_session(module, None, pick_device("auto"))


def open_factory(target: str, weights: Path | None, base: Path) -> Session:
    """The module that the function `module:function` makes, searched in `base` first. This runs the user's code."""
    name, _, function = target.partition(":")
    try:
        sys.path.insert(0, str(base))
        try:
            factory = getattr(importlib.import_module(name), function)
        finally:
            sys.path.remove(str(base))
    except (ImportError, AttributeError, ValueError) as error:
        raise StageError(
            f"factory {target!r} cannot be had ({error}); write 'module:function', beside the recipe"
        ) from error
    module = factory()
    if not isinstance(module, nn.Module):
        raise StageError(f"factory {target!r} returned {type(module).__name__}; wanted a torch.nn.Module")
    fault = _load(module, read_weights(weights)) if weights is not None else ""
    if fault:
        raise StageError(f"{weights} does not fit what {target!r} makes: {fault}")
    return _torch_session(module, None, pick_device("auto"))


def open_program(path: Path, output: str | int | None) -> Session:
    """A `torch.export` program (.pt2) or a TorchScript file (any other name)."""
    if not path.is_file():
        raise StageError(f"no program at {path}; put it there, or correct the path in the recipe")
    try:
        if path.suffix != ".pt2":
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*torch.jit.load.* is deprecated", category=FutureWarning)
                script = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
            return _torch_session(script, output, torch.device("cpu"))
        program = torch.export.load(path)
    except (RuntimeError, BadZipFile, ValueError, OSError) as error:
        raise StageError(
            f"{path} is not a program that torch {torch.__version__} can load ({type(error).__name__})"
        ) from error
    first = program.graph_signature.user_inputs[0]
    count = next(node.meta["val"].shape[0] for node in program.graph.nodes if node.name == first)
    session = _torch_session(program.module(), output, torch.device("cpu"))
    return Session(session.run, count if isinstance(count, int) else None, session.module)


def open_onnx(path: Path, image: str | None, output: str | int | None, threads: int = 0) -> Session:
    """An ONNX file, run by ONNX Runtime on the CPU."""
    if not path.is_file():
        raise StageError(f"no ONNX file at {path}; put it there, or correct the path in the recipe")
    ort.disable_telemetry_events()
    options = ort.SessionOptions()
    options.log_severity_level = 4  # fatal: what goes wrong is raised, not printed
    options.intra_op_num_threads = threads or min(os.cpu_count() or 1, torch.get_num_threads())
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except FAULTS as error:
        raise StageError(f"{path} is not a model that ONNX Runtime {ort.__version__} can load: {error}") from error
    inputs = {item.name: item for item in session.get_inputs()}
    name = image or next(iter(inputs))
    if name not in inputs or len(inputs) > 1:
        raise StageError(f"{path} has the inputs {sorted(inputs)}; wanted a single one, and input: {name!r} to name it")
    names = [item.name for item in session.get_outputs()]
    count = inputs[name].shape[0]
    kind = np.float16 if "float16" in inputs[name].type else np.float32

    def run(images: NDArray[np.float32]) -> Outputs:
        try:
            raw = session.run(None, {name: images.astype(kind)})
        except FAULTS as error:
            raise StageError(f"{path} failed on films {images.shape}: {error}; check size and channels") from error
        return np.asarray(_pick(dict(zip(names, raw, strict=True)), output), dtype=np.float32)

    return Session(run, count if isinstance(count, int) else None)


def _load(module: nn.Module, state: Mapping[str, Tensor]) -> str:
    """Load every tensor by its name; returns what does not fit, empty when all does."""
    wanted = module.state_dict()
    faults = [f"{name} is absent" for name in wanted if name not in state and not name.endswith("num_batches_tracked")]
    faults += [f"{name} is not one of its weights" for name in state if name not in wanted]
    faults += [
        f"{name} is {tuple(state[name].shape)}, wanted {tuple(wanted[name].shape)}"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    if not faults:
        module.load_state_dict(state, strict=False)
    return f"{len(faults)} tensors, first: {'; '.join(faults[:3])}" if faults else ""


def _torch_session(module: nn.Module, output: str | int | None, device: torch.device) -> Session:
    module = module.to(device)
    if not isinstance(module, torch.fx.GraphModule):  # an exported program has its mode built in, and refuses eval()
        module.eval()

    def run(images: NDArray[np.float32]) -> Outputs:
        with torch.inference_mode():
            tensor = _pick(module(torch.from_numpy(images).to(device)), output)
        values: Outputs = tensor.float().cpu().numpy()
        return values

    return Session(run, None, module)


def _pick(raw: Any, output: str | int | None) -> Any:
    """The output that was asked for, of a tensor, a sequence or a mapping of them."""
    named: dict[Any, Any] = {None: raw}
    if isinstance(raw, Mapping | tuple | list):
        named = dict(raw) if isinstance(raw, Mapping) else dict(enumerate(raw))
    values = list(named.values())
    if output in named:
        return named[output]
    if isinstance(output, int) and isinstance(raw, Mapping) and 0 <= output < len(values):
        return values[output]
    if output is None and len(values) == 1:
        return values[0]
    raise StageError(
        f"the model has {len(values)} outputs ({', '.join(map(str, named))}); output: says which, got {output!r}"
    )
