"""``edgecxr explain``: where on the film a score came from, as a picture and as numbers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgecxr.commands.choices import ENGINE_HELP, PRECISION_HELP, check_inputs, make_folder, misuse, writing
from edgecxr.commands.terminal import ExitCode, counted, note, print_json, progress, safe
from edgecxr.errors import Refusal, StageError
from edgecxr.teachers.names import COMPOSITES, METHODS

if TYPE_CHECKING:
    from edgecxr.teachers.explanation import Explainer
    from edgecxr.teachers.subject import Subject

__all__ = ["explain"]


def explain(
    model: Annotated[
        Path,
        typer.Argument(
            help="A bundle, the folder of a trained teacher, or a recipe with --teacher.", show_default=False
        ),
    ],
    images: Annotated[list[Path], typer.Argument(help="Films, or folders of them.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for pictures (PNG) and maps (NPZ).", show_default=False)],
    method: Annotated[str, typer.Option(help="cam, gradcam, occlusion or lrp.")] = "cam",
    finding: Annotated[
        list[str] | None, typer.Option(help="A finding; more than one by repeating.  [default: all]")
    ] = None,
    words: Annotated[bool, typer.Option("--words", help="Measure what lies on words and borders, too.")] = False,
    layer: Annotated[str | None, typer.Option(help="gradcam: the layer.  [default: the last feature map]")] = None,
    composite: Annotated[str, typer.Option(help=f"lrp: {', '.join(COMPOSITES)}.")] = COMPOSITES[0],
    window: Annotated[int, typer.Option(min=0, help="occlusion: side in input pixels; 0: an eighth.")] = 0,
    stride: Annotated[int, typer.Option(min=0, help="occlusion: step in input pixels; 0: half the window.")] = 0,
    teacher: Annotated[str | None, typer.Option(help="Which teacher of a recipe.", show_default=False)] = None,
    engine: Annotated[str, typer.Option(help=f"Of a bundle: {ENGINE_HELP}")] = "auto",
    precision: Annotated[str, typer.Option(help=f"Of a bundle: {PRECISION_HELP}")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show where on each film the score of a finding came from. Ends with 1 when some films were refused.

    Example: `edgecxr explain covid3.cxr film.dcm --method cam --out maps`
    """
    from edgecxr.commands.subjects import open_subject
    from edgecxr.teachers.explanation import Explainer, Settings

    _check(method, composite, layer)
    check_inputs(images)
    files = _files(images)
    make_folder(out)
    with open_subject(model, teacher, engine, precision) as subject:
        findings = _findings(subject, finding)
        _require(method, subject)
        try:
            explainer = Explainer(subject, method, Settings(layer, composite, window, stride))
        except StageError as error:
            misuse(str(error))
        rows, refused = _run(explainer, files, findings, out, words=words, quiet=as_json)
        told = {"model": subject.name, "digest": subject.digest, "method": method}
    if as_json:
        print_json({**told, "explanations": rows, "refused": refused})
    note(f"{counted(len(files) - len(refused))} explained, {len(refused)} refused; {out.resolve()}. Research use only.")
    if refused:
        raise typer.Exit(ExitCode.SOME_REFUSED)


def _check(method: str, composite: str, layer: str | None) -> None:
    if method not in METHODS:
        misuse(f"unknown method {method!r}; choose {', '.join(METHODS)}")
    if composite not in COMPOSITES:
        misuse(f"unknown composite {composite!r}; choose {', '.join(COMPOSITES)}")
    if layer is not None and method != "gradcam":
        misuse(f"--layer is for gradcam; {method} has no choice of layers")


def _files(paths: list[Path]) -> list[Path]:
    from edgecxr.read import find_files

    files = list(find_files(paths))
    if not files:
        misuse(f"no file in {', '.join(map(str, paths))}; give films or folders of films")
    return files


def _findings(subject: "Subject", wanted: list[str] | None) -> tuple[str, ...]:
    for name in wanted or ():
        if name not in subject.classes:
            misuse(f"{subject.name} has no finding {name!r}; choose {', '.join(subject.classes)}")
    return tuple(wanted) if wanted else subject.findings


def _require(method: str, subject: "Subject") -> None:
    """What the method needs beyond the subject itself: cam of a bundle needs its engine only."""
    from edgecxr.commands.terminal import require_train

    if method == "occlusion" or subject.teacher is not None:
        require_train()


def _run(
    explainer: "Explainer", files: list[Path], findings: tuple[str, ...], out: Path, *, words: bool, quiet: bool
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """A row for each explained film and finding, and the refused films with their reasons."""
    from edgecxr.commands.explained_film import FilmOfSubject

    rows: list[dict[str, Any]] = []
    refused = []
    with progress("explaining", len(files) * len(findings), quiet=quiet) as step:
        for number, path in enumerate(files, start=1):
            try:
                film = FilmOfSubject.read(path, explainer.subject)
                for finding in findings:
                    stem = out / f"{number:05d}-{safe(path.stem)}.{safe(finding)}.{explainer.method}"
                    with writing(out):
                        rows.append(film.write(explainer, finding, stem, words=words))
                    if not quiet:
                        print(_line(rows[-1]))
                    step(path.name)
            except Refusal as error:
                refused.append({"file": str(path), "reason": error.reason.value, "detail": error.detail})
                note(f"{path}: {error}")
    return rows, refused


def _line(row: dict[str, Any]) -> str:
    told = f"{row['file']}  {row['finding']} {row['probability']:.3f}  {row['overlay']}"
    if "conserved" in row:
        told += f"  conserved {row['conserved']:.3f}"
    if "words" in row:
        test = row["words"]
        told += f"  words {test['share_words']:.1%}, border {test['share_border']:.1%} of the map,"
        told += f" {test['change']:+.3f} log-odds without them"
    return told
