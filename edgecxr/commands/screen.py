"""``edgecxr screen``: decisions for films and folders of films."""

import base64
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from itertools import combinations
from os.path import dirname, realpath
from pathlib import Path
from time import monotonic
from typing import IO, TYPE_CHECKING, Annotated

import typer

from edgecxr.commands.choices import (
    ENGINE_HELP,
    PRECISION_HELP,
    check_choices,
    check_inputs,
    check_page,
    check_results,
    make_folder,
    misuse,
    writing,
)
from edgecxr.commands.terminal import ExitCode, counted, note, print_json, progress, safe, shown

if TYPE_CHECKING:
    from edgecxr.runtimes.compiler import Attempt
    from edgecxr.runtimes.screener import Screener, Screening

__all__ = ["counts", "ending", "screen", "write_pictures"]

STDOUT = Path("-")
LONGEST_STEM = 160  # bytes of a film's name in that of its picture; a file system takes 255 in all
EVERY_S = 5.0  # between two lines on an engine that is being compiled


def screen(
    paths: Annotated[
        list[Path], typer.Argument(help="Films (DICOM, PNG, TIFF, JPEG) or folders of them.", show_default=False)
    ],
    bundle: Annotated[Path | None, typer.Option(help="The bundle.  [default: the one shipped]")] = None,
    jsonl: Annotated[
        Path | None, typer.Option(help="Write one JSON object per film to this file; - is standard output.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document at the end; nothing else.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a report with heatmaps to this file.")] = None,
    heatmaps: Annotated[
        Path | None, typer.Option(help="Write a picture per decided film and finding to this folder.")
    ] = None,
    engine: Annotated[str, typer.Option(help=ENGINE_HELP)] = "auto",
    precision: Annotated[str, typer.Option(help=PRECISION_HELP)] = "auto",
    point: Annotated[
        str | None, typer.Option(help="The operating point to decide at.  [default: the bundle's first]")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Films read at the same time; 0 is one per core.")] = 0,
) -> None:
    """Screen films and folders; each film is decided on, or refused with a reason.

    On a GPU, auto begins on the CPU, compiles for the GPU meanwhile, and goes over when that engine has proved itself.

    Ends with 1 when some films were refused, with 70 when one of them was by a fault of ours.

    Example: `edgecxr screen films/ --jsonl results.jsonl --html report.html`
    """
    from edgecxr.bundle import Bundle, default_bundle_path
    from edgecxr.runtimes.screener import Screener

    if as_json and jsonl == STDOUT:
        misuse("--json and --jsonl - both write to standard output; give --jsonl a file, or leave one of them out")
    files = _files(paths)
    opened = Bundle.open(bundle or default_bundle_path())
    check_choices(opened, engine, precision, point)
    _check_targets(files, jsonl, html, heatmaps)
    quiet = as_json or jsonl == STDOUT
    with ExitStack() as stack:
        tell = None if quiet else _Following()
        screener = stack.enter_context(Screener(opened, engine, precision, point, tell=tell))
        stream = stack.enter_context(_stream(jsonl)) if jsonl else None
        for name, reason in screener.engine.passed_over:
            note(f"{name} is passed over: {reason}")
        step = stack.enter_context(progress("screening", len(files), quiet=quiet))
        results = []
        for result in screener.screen_files(files, workers=workers):
            with writing(jsonl) if jsonl and jsonl != STDOUT else nullcontext():
                _tell(result, stream)
            if not quiet:
                print(_line(result))
            results.append(result)
            step(Path(result.file).name)
        _afterwards(screener, results, html, heatmaps)
    if as_json:
        print_json({"films": len(results), **counts(results), "results": [result.to_json() for result in results]})
    elif not quiet:
        _summary(screener, results)
    if code := ending(results):
        raise typer.Exit(code)


def ending(results: Sequence["Screening"]) -> ExitCode:
    """What the verb ends with: a fault of ours outweighs films that were refused."""
    faults = [result for result in results if result.detail.startswith("internal error")]
    if faults:
        note(
            f"edgecxr: a fault of ours on {len(faults)} of {counted(len(results))}; please report the stack trace above"
        )
        return ExitCode.FAULT
    return ExitCode.SOME_REFUSED if any(result.status == "refused" for result in results) else ExitCode.DONE


def _files(paths: list[Path]) -> list[Path]:
    """Every file to screen; ends when a named path is not there or nothing is in the folders."""
    from edgecxr.read import find_files

    check_inputs(paths)
    files = list(find_files(paths))
    if not files:
        misuse(f"no file in {', '.join(map(str, paths))}; give films or folders of films")
    return files


def _check_targets(files: Sequence[Path], jsonl: Path | None, html: Path | None, heatmaps: Path | None) -> None:
    """End before films are screened when what is written cannot be, or would replace a film or other output."""
    films = {realpath(path) for path in files}  # Path.resolve() fails on a link that leads to itself
    for target in (jsonl, html):
        if target is not None and realpath(target) in films:
            misuse(f"{target} is one of the films to screen, and is not written over; write it to another place")
    targets = [target for target in (jsonl, html, heatmaps) if target is not None and target != STDOUT]
    for one, other in combinations(targets, 2):
        if realpath(one) == realpath(other):
            misuse(f"{other} is named for two outputs, and the second would replace the first; give each its own place")
    if heatmaps is not None and realpath(heatmaps) in {dirname(path) for path in films}:
        misuse(f"{heatmaps} holds films to screen, and a picture could take the place of one; name another folder")
    if jsonl is not None and jsonl != STDOUT:
        check_results(jsonl, b"{")
    if html is not None:
        check_page(html)
    if heatmaps is not None:
        make_folder(heatmaps)


@contextmanager
def _stream(path: Path) -> Iterator[IO[str]]:
    """Where JSON lines go; what cannot be written is told of once, not again when the file is closed."""
    if path == STDOUT:
        yield sys.stdout
        return
    with writing(path):
        stream = path.open("w", encoding="utf-8", errors="backslashreplace")  # what is no text: as JSON escapes it
    try:
        yield stream
    except BaseException:
        with suppress(OSError):
            stream.close()
        raise
    with writing(path):
        stream.close()


def _tell(result: "Screening", stream: IO[str] | None) -> None:
    """One film, as it is done: a JSON line to the stream."""
    if stream is not None:
        stream.write(json.dumps(result.to_json(), ensure_ascii=False, allow_nan=False) + "\n")
        stream.flush()


def _line(result: "Screening") -> str:
    if result.status == "refused":
        return f"{shown(result.file)}  REFUSED  {result.reason.value if result.reason else ''}: {result.detail}"
    told = (
        f"{item.name} {item.probability:.3f} {item.decision.upper() if item.decision == 'positive' else item.decision}"
        for item in result.findings
    )
    return f"{shown(result.file)}  {'  '.join(told)}"


def counts(results: Sequence["Screening"]) -> dict[str, int]:
    """How many films were decided on, refused, and positive for at least one finding."""
    decided = [result for result in results if result.status == "ok"]
    positive = [result for result in decided if any(item.decision == "positive" for item in result.findings)]
    return {"decided": len(decided), "refused": len(results) - len(decided), "positive": len(positive)}


def _summary(screener: "Screener", results: Sequence["Screening"]) -> None:
    number = counts(results)
    engines = " and ".join(dict.fromkeys(f"{result.engine} {result.precision}" for result in results))
    note(
        f"{counted(len(results))}: {number['positive']} positive, {number['refused']} refused; {engines}, "
        f"bundle {screener.bundle.digest[:12]}. Research use only."
    )


class _Following:
    """A line for each step that an engine takes on its way to take over; while it compiles, one every few seconds."""

    def __init__(self) -> None:
        self._told, self._when = ("", ""), 0.0

    def __call__(self, attempt: "Attempt") -> None:
        told = (attempt.name, attempt.state)
        if told != self._told or monotonic() - self._when >= EVERY_S:
            self._told, self._when = told, monotonic()
            note(str(attempt))


def _afterwards(screener: "Screener", results: Sequence["Screening"], html: Path | None, heatmaps: Path | None) -> None:
    """What is written when all films are done: pictures and page."""
    if heatmaps is not None:
        with writing(heatmaps):
            write_pictures(screener, results, heatmaps)
    if html is not None:
        from edgecxr.report import write_report

        with writing(html):
            write_report(
                html,
                title="Screening",
                screenings=results,
                evaluation=screener.bundle.evaluation(),
                engines=[engine.describe() for engine in screener.engines()],
                manifest=screener.bundle.manifest,
            )
        note(f"report: {realpath(html)}")


def write_pictures(screener: "Screener", results: Sequence["Screening"], folder: Path) -> None:
    """`<number>-<film>.<finding>.jpg` for each finding shown; the number is that of the film in the results."""
    from edgecxr.report.pictures import picture

    folder.mkdir(parents=True, exist_ok=True)
    for number, result in enumerate(results, start=1):
        if result.status == "refused":
            continue
        film = picture(result, screener.bundle.spec)
        if film is None:
            note(f"no picture of {shown(result.file)}: the file is gone, or not as it was when it was screened")
        for overlay in film.overlays if film else ():
            data = base64.b64decode(overlay.uri.partition(",")[2])
            stem = os.fsdecode(os.fsencode(Path(result.file).stem)[:LONGEST_STEM])
            (folder / f"{number:05d}-{stem}.{safe(overlay.finding)}.jpg").write_bytes(data)
