"""``edgecxr screen``: decisions for films and folders of films."""

import base64
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from edgecxr.commands.terminal import ExitCode, note, print_json, progress

if TYPE_CHECKING:
    from edgecxr.runtimes.screener import Screener, Screening

__all__ = ["counts", "screen"]


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
    engine: Annotated[str, typer.Option(help="auto, openvino or onnxruntime.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, int8, fp16 or fp32.")] = "auto",
    point: Annotated[str, typer.Option(help="The operating point to decide at.")] = "screening",
    workers: Annotated[int, typer.Option(min=0, help="Films read at the same time; 0 is one per core.")] = 0,
) -> None:
    """Screen films and folders; each film is decided on, or refused with a reason.

    Ends with 1 when some films were refused.

    Example: `edgecxr screen films/ --jsonl results.jsonl --html report.html`
    """
    from edgecxr.read import find_files
    from edgecxr.runtimes.screener import Screener

    files = list(find_files(paths))
    if not files:
        note(f"edgecxr: no file in {', '.join(map(str, paths))}; give films or folders of films")
        raise typer.Exit(ExitCode.MISUSE)
    quiet = as_json or jsonl == Path("-")
    with ExitStack() as stack:
        screener = stack.enter_context(Screener(bundle, engine=engine, precision=precision, point=point))
        stream = stack.enter_context(_stream(jsonl)) if jsonl else None
        step = stack.enter_context(progress("screening", len(files), quiet=quiet))
        results = []
        for result in screener.screen_folder(files, workers=workers):
            _tell(result, stream, quiet)
            results.append(result)
            step(Path(result.file).name)
        _afterwards(screener, results, html, heatmaps)
    if as_json:
        print_json({"films": len(results), **counts(results), "results": [result.to_json() for result in results]})
    elif not quiet:
        _summary(screener, results)
    if any(result.status == "refused" for result in results):
        raise typer.Exit(ExitCode.SOME_REFUSED)


def _stream(path: Path) -> Any:
    return nullcontext(sys.stdout) if path == Path("-") else path.open("w", encoding="utf-8")


def _tell(result: "Screening", stream: IO[str] | None, quiet: bool) -> None:
    """One film, as it is done: a JSON line to the stream, and a line for a person unless output is for machines."""
    if stream is not None:
        stream.write(json.dumps(result.to_json(), ensure_ascii=False, allow_nan=False) + "\n")
        stream.flush()
    if not quiet:
        print(_line(result))


def _line(result: "Screening") -> str:
    if result.status == "refused":
        return f"{result.file}  REFUSED  {result.reason.value if result.reason else ''}: {result.detail}"
    told = (
        f"{item.name} {item.probability:.3f} {item.decision.upper() if item.decision == 'positive' else item.decision}"
        for item in result.findings
    )
    return f"{result.file}  {'  '.join(told)}"


def counts(results: Sequence["Screening"]) -> dict[str, int]:
    """How many films were decided on, refused, and positive for at least one finding."""
    decided = [result for result in results if result.status == "ok"]
    positive = [result for result in decided if any(item.decision == "positive" for item in result.findings)]
    return {"decided": len(decided), "refused": len(results) - len(decided), "positive": len(positive)}


def _summary(screener: "Screener", results: Sequence["Screening"]) -> None:
    number = counts(results)
    origin = f"{screener.engine.family} {screener.engine.precision}, bundle {screener.bundle.digest[:12]}"
    note(
        f"{len(results)} films: {number['positive']} positive, {number['refused']} refused; {origin}."
        " Research use only."
    )


def _afterwards(screener: "Screener", results: Sequence["Screening"], html: Path | None, heatmaps: Path | None) -> None:
    """What is written when all films are done: pictures and page."""
    if heatmaps is not None:
        _write_pictures(screener, results, heatmaps)
    if html is not None:
        from edgecxr.report import write_report

        write_report(
            html,
            title="Screening",
            screenings=results,
            evaluation=screener.bundle.evaluation(),
            engines=[screener.engine.describe()],
            manifest=screener.bundle.manifest,
        )
        note(f"report: {html.resolve()}")


def _write_pictures(screener: "Screener", results: Sequence["Screening"], folder: Path) -> None:
    """`<number>-<film>.<finding>.jpg` for each finding shown; the number is that of the film in the results."""
    from edgecxr.report.pictures import picture

    folder.mkdir(parents=True, exist_ok=True)
    for number, result in enumerate(results, start=1):
        shown = picture(result, screener.bundle.spec) if result.status == "ok" else None
        for overlay in shown.overlays if shown else ():
            data = base64.b64decode(overlay.uri.partition(",")[2])
            (folder / f"{number:05d}-{Path(result.file).stem}.{overlay.finding}.jpg").write_bytes(data)
