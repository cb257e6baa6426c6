"""Which engines there are, and the best one that proves itself on this machine."""

import importlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from edgecxr.bundle import Bundle
from edgecxr.errors import EngineError
from edgecxr.runtimes.engine import Engine
from edgecxr.runtimes.lending import check_agreement, lenders
from edgecxr.spec import Precision

__all__ = [
    "DEVICE_ENGINES",
    "ENGINES",
    "PRECISIONS",
    "EngineStatus",
    "available",
    "available_on_device",
    "check_thresholds",
    "choice_problem",
    "engine_class",
    "open_engine",
    "referred",
]

ENGINES = {  # the preferred one first: name -> module, class, what to install
    "openvino": ("edgecxr.runtimes.ov", "OpenVinoCpu", "openvino"),
    "onnxruntime": ("edgecxr.runtimes.ort", "OrtCpu", "onnxruntime"),
}
DEVICE_ENGINES = {  # the same, for an NVIDIA GPU; where there is one, `compiler` lets the first follow a CPU engine
    "tensorrt": ("edgecxr.runtimes.trt", "TensorRt", "edgecxr[nvidia]"),
    "torch-tensorrt": ("edgecxr.runtimes.torch_trt", "TorchTensorRt", "torch-tensorrt"),
    "onnxruntime-cuda": ("edgecxr.runtimes.ort_cuda", "OrtCuda", "onnxruntime-gpu"),
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
    return f"unknown engine {name!r}; choose auto, {' or '.join(ENGINES)}, on an NVIDIA GPU {', '.join(DEVICE_ENGINES)}"


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

    `auto` is the best on the CPU, which serves at once; one of a GPU only where none of the CPU can. With it each
    engine and precision that was passed over is in the returned engine's `passed_over`, with its reason. `point=None`
    asks for no thresholds (measuring only). Raises EngineError when none is left.
    """
    if problem := choice_problem(bundle, engine, precision, point):
        raise EngineError(problem)
    families = {name: engine_class(name) for name in (_present() if engine == "auto" else (engine,))}
    passed_over: list[tuple[str, str]] = []
    for name, family in families.items():
        for candidate in (item for item in family.preference if precision in ("auto", item)):
            try:
                opened = _open(bundle, (family, candidate), point, threads, golden)
            except EngineError as error:
                passed_over.append((f"{name} {candidate}", str(error)))
            else:
                opened.passed_over = passed_over
                return opened
    raise EngineError("no engine can run this bundle here:\n" + "\n".join(f"  {n}: {why}" for n, why in passed_over))


def _open(
    bundle: Bundle, choice: tuple[type[Engine], Precision], point: str | None, threads: int, golden: bool
) -> Engine:
    family, precision = choice
    if precision not in bundle.precisions:
        raise EngineError(f"not packed; the bundle holds {', '.join(bundle.precisions)}")
    references = check_thresholds(bundle, family, precision, point)
    opened = family.open(bundle, precision, threads=threads, golden=golden)
    return referred(bundle, opened, references) if references else opened


def check_thresholds(
    bundle: Bundle, family: type[Engine], precision: Precision, point: str | None
) -> tuple[type[Engine], ...]:
    """Whose thresholds an engine may borrow, () where it has its own (`lending.lenders`). Raises EngineError."""
    return lenders(bundle.spec, family, precision, point, [engine_class(name) for name in ENGINES])


def referred(bundle: Bundle, opened: Engine, references: Sequence[type[Engine]]) -> Engine:
    """`opened`, with the first of `references` that opens at its side. Raises EngineError, and closes it, where none
    does, or it does not agree with the golden set as closely as it must to borrow."""
    reasons = []
    try:
        check_agreement(bundle, opened)
        for reference in references:
            try:
                opened.reference = reference.open(bundle, opened.precision, threads=opened.threads)
            except EngineError as error:
                reasons.append(str(error))
            else:
                return opened
        raise EngineError(f"no engine whose thresholds {opened.family} may borrow opens: {'; '.join(reasons)}")
    except BaseException:
        opened.close()
        raise


def _present() -> tuple[str, ...]:
    """What `auto` tries: a machine without a GPU has nothing that TensorRT could run on, so it is not passed over."""
    from edgecxr.runtimes.driver import probe

    return tuple(ENGINES) if probe().reason else (*ENGINES, "tensorrt")
