"""Which engines there are, and the best one that proves itself on this machine."""

import importlib
from typing import NamedTuple

from edgecxr.bundle import Bundle
from edgecxr.errors import EngineError
from edgecxr.runtimes.engine import Engine
from edgecxr.spec import ModelSpec, Precision

__all__ = ["ENGINES", "PRECISIONS", "EngineStatus", "available", "choice_problem", "engine_class", "open_engine"]

ENGINES = {  # the preferred one first: name -> module, class, what to install
    "openvino": ("edgecxr.runtimes.ov", "OpenVinoCpu", "openvino"),
    "onnxruntime": ("edgecxr.runtimes.ort", "OrtCpu", "onnxruntime"),
}
PRECISIONS: tuple[Precision, ...] = ("int8", "fp16", "fp32")


class EngineStatus(NamedTuple):
    """One engine as `edgecxr doctor` shows it."""

    name: str
    available: bool
    detail: str


def engine_class(name: str) -> type[Engine]:
    """The class of an engine, by name ("openvino") or family ("openvino-cpu"). Raises EngineError."""
    entry = ENGINES.get(name.removesuffix("-cpu"))
    if entry is None:
        raise EngineError(_unknown_engine(name))
    found: type[Engine] = getattr(importlib.import_module(entry[0]), entry[1])
    return found


def _unknown_engine(name: str) -> str:
    return f"unknown engine {name!r}; choose auto, {' or '.join(ENGINES)}"


def choice_problem(bundle: Bundle, engine: str, precision: str, point: str | None) -> str | None:
    """What is wrong with a choice on any machine, with the names there are; None when each name exists.

    `point` None is no choice. A bundle without operating points is no wrong choice: opening it says what it lacks.
    """
    if engine != "auto" and engine.removesuffix("-cpu") not in ENGINES:
        return _unknown_engine(engine)
    if precision not in ("auto", *PRECISIONS):
        return f"unknown precision {precision!r}; choose auto, {', '.join(PRECISIONS)}"
    points = list(dict.fromkeys(entry.name for entry in bundle.spec.operating_points))
    if point is not None and points and point not in points:
        return f"unknown operating point {point!r}; the bundle has {', '.join(points)}"
    return None


def available() -> list[EngineStatus]:
    """Every engine, the preferred one first, with its library's version or the reason why it cannot serve."""
    statuses = []
    for name in ENGINES:
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
    families = {name: engine_class(name) for name in (ENGINES if engine == "auto" else (engine,))}
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
    missing = [] if point is None else _undecided(bundle.spec, precision, family.family, point)
    if missing:
        raise EngineError(
            f"no {point!r} threshold of {', '.join(missing)} for {precision} on {family.family}; "
            "thresholds hold for one precision on one engine: choose another, or build again with this point"
        )
    return family.open(bundle, precision, threads=threads, golden=golden)


def _undecided(spec: ModelSpec, precision: Precision, family: str, point: str) -> list[str]:
    decided = {
        p.finding for p in spec.operating_points if (p.name, p.precision, p.engine) == (point, precision, family)
    }
    return [finding for finding in spec.findings if finding not in decided]
