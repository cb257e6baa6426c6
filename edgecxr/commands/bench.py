"""``edgecxr bench``: how fast this machine screens, to choose hardware by."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgecxr.commands.choices import check_choices, check_inputs, misuse
from edgecxr.commands.terminal import ExitCode, note, print_json, progress

if TYPE_CHECKING:
    from edgecxr.bundle import Bundle
    from edgecxr.runtimes.screener import Screener

__all__ = ["bench"]

SIDE = 3000  # pixels of the drawn film, 12 bits in 16, as a portable unit sends it
Json = dict[str, Any]


def bench(
    bundle: Annotated[Path | None, typer.Argument(help="The bundle.  [default: the one shipped]")] = None,
    film: Annotated[
        Path | None, typer.Option(help="A film of yours.  [default: a drawn one, 3000 x 3000, uncompressed DICOM]")
    ] = None,
    engine: Annotated[
        list[str] | None, typer.Option("--engine", help="One of several.  [default: all of the CPU]")
    ] = None,
    precision: Annotated[
        list[str] | None, typer.Option("--precision", help="One of several.  [default: all packed]")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each engine, of five films each.")] = 20,
    starts: Annotated[int, typer.Option(min=0, help="Fresh processes for each engine; 0: none.")] = 3,
    threads: Annotated[int, typer.Option(min=0, help="Of the engine; 0: its own choice.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Time one film from its file to the decision on every engine and precision of this machine, side by side.

    Latency by stage (p50, p90, p99), films a second of a folder, time and memory of a fresh process up to its first
    decision. Compare figures of one run; leave the machine alone meanwhile. Ends with 3 when no engine
    can decide here, or one that can does not in a fresh process.

    Example: `edgecxr bench covid3.cxr --film film.dcm`
    """
    from edgecxr.bundle import Bundle, default_bundle_path

    path = bundle or default_bundle_path()
    opened = Bundle.open(path)
    choices = [(name, item) for name in engine or _engines() for item in precision or opened.precisions]
    for name, item in choices:
        check_choices(opened, name, item)
    if film is not None:
        check_inputs([film])
    with _film(film) as file:
        measured = _measured(opened, path, choices, file, (rounds, starts, threads), quiet=as_json)
    asked = {"film": str(film or f"drawn, {SIDE} x {SIDE}"), "rounds": rounds, "starts": starts, "threads": threads}
    if as_json:
        print_json({"bundle": opened.digest, "model": opened.spec.name, "asked": asked, **measured})
    else:
        _print(opened, asked, measured)
    failed = any("failed" in (row["fresh_process"] or {}) for row in measured["engines"])
    if failed or not measured["engines"]:
        raise typer.Exit(ExitCode.CANNOT)


def _engines() -> list[str]:
    from edgecxr.runtimes.registry import ENGINES

    return list(ENGINES)


@contextmanager
def _film(given: Path | None) -> Iterator[Path]:
    """The user's film, or a drawn one that lies on disk as long as it is needed."""
    if given is not None:
        yield given
        return
    from edgecxr.phantom import chest, write_dicom

    with TemporaryDirectory() as folder:
        yield write_dicom(chest(1, size=SIDE), Path(folder) / "film.dcm")


def _measured(
    bundle: "Bundle",
    path: Path,
    choices: list[tuple[str, str]],
    film: Path,
    numbers: tuple[int, int, int],
    *,
    quiet: bool,
) -> Json:
    """`engines`: a row for each that can decide here, `passed_over`: why the others cannot, `machine`."""
    from edgecxr.errors import Refusal
    from edgecxr.machine import machine
    from edgecxr.runtimes.latency import cold_starts, latencies, throughputs

    rounds, starts, threads = numbers
    before = machine()  # its load is that of others
    with ExitStack() as stack:
        screeners, passed_over = _opened(stack, bundle, choices, threads)
        try:
            with progress("one by one", rounds, quiet=quiet) as step:
                times = latencies(screeners, film, rounds, step) if screeners else {}
        except Refusal as error:
            misuse(f"{film} is refused ({error}), so there is nothing to time; give a film that the bundle decides on")
        films_a_second = throughputs(screeners, film)
        described = {name: screener.engine.describe() for name, screener in screeners.items()}
    rows = []
    for name in times:
        engine, precision = name.split()
        row = {"name": name, "milliseconds": times[name], "films_a_second": films_a_second[name]}
        fresh = cold_starts(path, engine, precision, starts, threads) if starts else None
        rows.append({**row, "fresh_process": fresh, "described": described[name]})
    return {"engines": rows, "passed_over": passed_over, "machine": before}


def _opened(
    stack: ExitStack, bundle: "Bundle", choices: list[tuple[str, str]], threads: int
) -> tuple[dict[str, "Screener"], list[Json]]:
    from edgecxr.errors import EngineError
    from edgecxr.runtimes.screener import Screener

    screeners: dict[str, Screener] = {}
    passed_over = []
    for engine, precision in choices:
        try:
            screener = Screener(bundle, engine, precision, threads=threads)
        except EngineError as error:
            passed_over.append({"name": f"{engine} {precision}", "reason": str(error)})
        else:
            screeners[f"{engine} {precision}"] = stack.enter_context(screener)
    return screeners, passed_over


def _print(bundle: "Bundle", asked: Json, measured: Json) -> None:
    here = measured["machine"]
    extensions = " ".join(here["vector_extensions"]) or "vector extensions not known"
    print(f"{bundle.spec.name} {bundle.spec.version}, {bundle.digest[:12]}; film: {asked['film']}")
    print(f"{here['cpu']}, {here['cores']} cores, {here['memory_gb']} GB, load {here['load_average'][0]:.1f}")
    print(extensions)
    if measured["engines"]:
        print(_line(("", "p50", "p90", "p99", "read", "kernel", "infer", "film/s", "start", "MB")))
        for row in measured["engines"]:
            print(_line((row["name"], *_cells(row))))
        print("p50, p90, p99: ms from file to decision, one film at a time; read, kernel, infer: p50 of the parts")
        print("film/s: of a folder; start, MB: s from a fresh process to its first decision, and its peak memory")
    for item in measured["passed_over"]:
        note(f"{item['name']}: {item['reason']}")


def _line(cells: tuple[str, ...]) -> str:
    return f"{cells[0]:<17}" + "".join(f"{cell:>7}" for cell in cells[1:])


def _cells(row: Json) -> list[str]:
    times, fresh = row["milliseconds"], row["fresh_process"] or {}
    if "failed" in fresh:
        note(f"{row['name']}: {fresh['failed']}")
    values = [times["whole"][key] for key in ("p50", "p90", "p99")]
    values += [times[stage]["p50"] for stage in ("read", "preprocess", "infer")]
    start, peak = fresh.get("decided_s"), fresh.get("peak_mb")
    return [
        *(f"{value:.2f}" for value in values),
        f"{row['films_a_second']:.1f}",
        "–" if start is None else f"{start:.2f}",
        "–" if peak is None else f"{peak:.0f}",
    ]
