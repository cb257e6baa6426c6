"""Which engines there are, and the best one that proves itself on this machine."""

import importlib
from collections.abc import Iterable
from typing import NamedTuple

from edgecxr.bundle import Bundle
from edgecxr.errors import EngineError
from edgecxr.runtimes.engine import Engine
from edgecxr.spec import ModelSpec, Precision

__all__ = [
    "DEVICE_ENGINES",
    "ENGINES",
    "PRECISIONS",
    "EngineStatus",
    "available",
    "available_on_device",
    "choice_problem",
    "engine_class",
    "missing_thresholds",
    "open_engine",
]

ENGINES = {  # the preferred one first: name -> module, class, what to install
    "openvino": ("edgecxr.runtimes.ov", "OpenVinoCpu", "openvino"),
    "onnxruntime": ("edgecxr.runtimes.ort", "OrtCpu", "onnxruntime"),
}
DEVICE_ENGINES = {  # the same, for an NVIDIA GPU; they come before the others where there is one
    "tensorrt": ("edgecxr.runtimes.trt", "TensorRt", "edgecxr[nvidia]"),
    "torch-tensorrt": ("edgecxr.runtimes.torch_trt", "TorchTensorRt", "torch-tensorrt"),
}
PRECISIONS: tuple[Precision, ...] = ("int8", "fp16", "fp32")


class EngineStatus(NamedTuple):
    """One engine as `edgecxr doctor` shows it."""

    name: str
    available: bool
    detail: str


def engine_class(name: str) -> type[Engine]:
    """The class of an engine, by name ("openvino") or family ("openvino-cpu"). Raises EngineError."""
    entry = ENGINES.get(name.removesuffix("-cpu")) or DEVICE_ENGINES.get(name.removesuffix("-gpu"))
    if entry is None:
        raise EngineError(_unknown_engine(name))
    found: type[Engine] = getattr(importlib.import_module(entry[0]), entry[1])
    return found


def _unknown_engine(name: str) -> str:
    return (
        f"unknown engine {name!r}; choose auto, {' or '.join(ENGINES)}, on an NVIDIA GPU {' or '.join(DEVICE_ENGINES)}"
    )


def choice_problem(bundle: Bundle, engine: str, precision: str, point: str | None) -> str | None:
    """What is wrong with a choice on any machine, with the names there are; None when each name exists.

    `point` None is no choice. A bundle without operating points is no wrong choice: opening it says what it lacks.
    """
    known = engine.removesuffix("-cpu") in ENGINES or engine.removesuffix("-gpu") in DEVICE_ENGINES
    if engine != "auto" and not known:
        return _unknown_engine(engine)
    if precision not in ("auto", *PRECISIONS):
        return f"unknown precision {precision!r}; choose auto, {', '.join(PRECISIONS)}"
    points = list(dict.fromkeys(entry.name for entry in bundle.spec.operating_points))
    if point is not None and points and point not in points:
        return f"unknown operating point {point!r}; the bundle has {', '.join(points)}"
    return None


def available() -> list[EngineStatus]:
    """Every engine of the CPU, the preferred one first, with its library's version or why it cannot serve."""
    return _statuses(ENGINES)


def available_on_device() -> list[EngineStatus]:
    """The same for engines of an NVIDIA GPU."""
    return _statuses(DEVICE_ENGINES)


def _statuses(names: Iterable[str]) -> list[EngineStatus]:
    statuses = []
    for name in names:
        try:
            statuses.append(EngineStatus(name, True, engine_class(name).graph.version()))
        except EngineError as error:
            statuses.append(EngineStatus(name, False, str(error)))
    return statuses


def open_engine(
    bundle: Bundle,
    engine: str = "auto",
    precision: str = "auto",
    *,
    point: str | None = "screening",
    threads: int = 0,
    golden: bool = True,
) -> Engine:
    """The engine asked for, or the best that can decide at operating point `point` and passes the golden set.

    With `auto` each engine and precision that was passed over is in the returned engine's `passed_over`, with its
    reason. `point=None` asks for no thresholds (measuring only). Raises EngineError when none is left.
    """
    if problem := choice_problem(bundle, engine, precision, point):
        raise EngineError(problem)
    families = {name: engine_class(name) for name in (_present() if engine == "auto" else (engine,))}
    passed_over: list[tuple[str, str]] = []
    for name, family in families.items():
        for candidate in (item for item in family.preference if precision in ("auto", item)):
            try:
                opened = _open(bundle, (family, candidate), point, threads, golden, wait=engine != "auto")
            except EngineError as error:
                passed_over.append((f"{name} {candidate}", str(error)))
            else:
                opened.passed_over = passed_over
                return opened
    raise EngineError("no engine can run this bundle here:\n" + "\n".join(f"  {n}: {why}" for n, why in passed_over))


def _open(
    bundle: Bundle,
    choice: tuple[type[Engine], Precision],
    point: str | None,
    threads: int,
    golden: bool,
    *,
    wait: bool,
) -> Engine:
    family, precision = choice
    if precision not in bundle.precisions:
        raise EngineError(f"not packed; the bundle holds {', '.join(bundle.precisions)}")
    if reason := missing_thresholds(bundle.spec, precision, family.family, point):
        raise EngineError(reason)
    if family.device != "cpu" and not wait:
        _check_compiled(bundle, precision)
    return family.open(bundle, precision, threads=threads, golden=golden)


def _present() -> tuple[str, ...]:
    """What `auto` tries: a machine without a GPU has nothing that TensorRT could run on, so it is not passed over."""
    from edgecxr.runtimes.driver import probe

    return tuple(ENGINES) if probe().reason else ("tensorrt", *ENGINES)


def _check_compiled(bundle: Bundle, precision: Precision) -> None:
    """Compiling takes too long to wait for it unasked. Raises EngineError."""
    from edgecxr.runtimes.trt import compiled

    if not compiled(bundle, precision):
        raise EngineError(f"not compiled for this GPU yet: edgecxr compile {bundle.source} --precision {precision}")


def missing_thresholds(spec: ModelSpec, precision: Precision, family: str, point: str | None) -> str:
    """Why nothing can be decided with an engine at an operating point; empty where it can, or `point` is None."""
    if point is None:
        return ""
    decided = {
        p.finding for p in spec.operating_points if (p.name, p.precision, p.engine) == (point, precision, family)
    }
    missing = [finding for finding in spec.findings if finding not in decided]
    if not missing:
        return ""
    return (
        f"no {point!r} threshold of {', '.join(missing)} for {precision} on {family}; "
        "thresholds hold for one precision on one engine: choose another, or build again with this point"
    )
