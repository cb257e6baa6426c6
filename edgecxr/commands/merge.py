"""``edgecxr merge``: several data sets into one folder of films."""

from pathlib import Path
from typing import Annotated

import typer

from edgecxr.commands.terminal import ExitCode, print_json, progress

__all__ = ["merge"]


def merge(
    mapping: Annotated[Path, typer.Argument(help="The mapping file (YAML; docs/data.md).", show_default=False)],
    out: Annotated[Path, typer.Option(help="The folder to write; it must not be there yet.", show_default=False)],
    copy: Annotated[bool, typer.Option("--copy", help="Copy the films in place of linking to them.")] = False,
    workers: Annotated[int, typer.Option(min=0, help="Films read at the same time; 0 is one per core.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Merge data sets of different layouts and label names, each film once, each person in one fold.

    Films that are there more than once are found whatever their format, size or window. Ends with 1 when some files
    were refused.

    Example: `edgecxr merge nine-sets.yaml --out films`
    """
    from edgecxr.merging import merge as run
    from edgecxr.merging import read_sources

    sources = read_sources(mapping)
    with progress("reading", len(sources.films), quiet=as_json) as step:
        report = run(sources, out, copy=copy, workers=workers, step=step)
    if as_json:
        print_json(report.to_json())
    else:
        print(report.text())
    if report.refused:
        raise typer.Exit(ExitCode.SOME_REFUSED)
