"""``edgecxr compile``: TensorRT engines of a bundle, built ahead and kept."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgecxr.commands.choices import make_folder, misuse
from edgecxr.commands.terminal import ExitCode, note, print_json, progress

if TYPE_CHECKING:
    from edgecxr.bundle import Bundle
    from edgecxr.runtimes.tensorrt_api import Tensorrt
    from edgecxr.spec import Precision

__all__ = ["compile_engines"]


def compile_engines(
    bundle: Annotated[Path | None, typer.Argument(help="The bundle.  [default: the one shipped]")] = None,
    precision: Annotated[
        list[str] | None, typer.Option("--precision", help="int8, fp16 or fp32; one of several.  [default: all packed]")
    ] = None,
    capability: Annotated[
        list[str] | None,
        typer.Option("--capability", help="Compute capability to build for, e.g. 8.9; one of several (TensorRT-RTX)."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the engines.  [default: the cache, where screening finds them]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Build TensorRT engines for the GPU here or, with TensorRT-RTX and without a GPU, for compute capabilities.

    Ends with 3 when one could not be built, and when TensorRT needs a GPU that is not there.

    Example: `edgecxr compile covid3.cxr --precision fp16 --capability 8.9 --capability 12.0`
    """
    from edgecxr.bundle import Bundle, default_bundle_path
    from edgecxr.runtimes.tensorrt_api import load

    opened = Bundle.open(bundle or default_bundle_path())
    tensorrt = load()
    targets = _targets(tensorrt, capability or [])
    precisions = _precisions(opened, precision or [])
    if out is not None:
        make_folder(out)
    rows = _build(opened, precisions, targets, out, quiet=as_json)
    if as_json:
        print_json({"bundle": opened.source, "digest": opened.digest, "library": tensorrt.name, "engines": rows})
    else:
        for row in rows:
            print(_line(row))
    if any(row["reason"] for row in rows):
        raise typer.Exit(ExitCode.CANNOT)


def _precisions(bundle: "Bundle", asked: list[str]) -> "list[Precision]":
    if unknown := sorted(set(asked) - set(bundle.precisions)):
        misuse(f"{', '.join(unknown)} is not packed; the bundle holds {', '.join(bundle.precisions)}")
    return [name for name in bundle.precisions if not asked or name in asked]


def _targets(tensorrt: "Tensorrt", asked: list[str]) -> list[str]:
    """Compute capabilities; the empty one stands for the GPU here. Raises EngineError where that is absent."""
    from edgecxr.errors import EngineError
    from edgecxr.runtimes.driver import probe

    if asked and not tensorrt.builds_without_gpu:
        misuse(f"{tensorrt.name} builds only for the GPU that it runs on: leave --capability out")
    known = tensorrt.capabilities()
    if unknown := [name for name in asked if name not in known]:
        misuse(f"{tensorrt.name} does not build for {', '.join(unknown)}; choose of {', '.join(known)}")
    report = probe()
    if not asked and report.reason:
        ways = (
            f"name what to build for: --capability {' or '.join(known)}"
            if known
            else f"{tensorrt.name} measures on the GPU that it builds for: run this there"
        )
        raise EngineError(f"{report.reason}; {ways}")
    return list(dict.fromkeys(asked)) or [""]


def _build(
    bundle: "Bundle", precisions: "list[Precision]", targets: list[str], out: Path | None, *, quiet: bool
) -> list[dict[str, Any]]:
    from edgecxr.errors import EngineError
    from edgecxr.runtimes.compile_apart import compile_apart

    rows: list[dict[str, Any]] = []
    pairs = [(precision, target) for precision in precisions for target in targets]
    with progress("compiling", len(pairs), quiet=quiet) as step:
        for precision, target in pairs:
            row: dict[str, Any] = {"precision": precision, "capability": target or None, "path": None, "reason": ""}
            if not quiet:
                note(f"{precision} for {target or 'this GPU'} …")
            try:
                made = compile_apart(bundle.model(precision), capability=target, folder=out)
                row.update(path=str(made.path), bytes=made.size, seconds=round(made.seconds, 2))
            except EngineError as error:
                row["reason"] = str(error)
            rows.append(row)
            step(precision)
    return rows


def _line(row: dict[str, Any]) -> str:
    named = f"{row['precision']} for {row['capability'] or 'this GPU'}"
    if row["reason"]:
        return f"{named}: {row['reason']}"
    return f"{named}: {row['bytes'] / 1e6:.1f} MB in {row['seconds']} s, {row['path']}"
