"""What the Screener costs beyond its parts: end to end beside decode, kernel and inference measured apart.
Beside decode (as the bundle declares), decoding in full and at the coarsest resolution that suffices for the model.

Scenario: one DICOM film in a file (page cache warm) to a decision, in each transfer syntax. In each round the whole and
the three parts run once, in a rotating order. The number: median of whole over the sum of the parts; at most 1.10.

    python bench/screener.py [--bundle FILE.cxr] [--side 3000] [--rounds 30] [--json]
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import harness
from rich.console import Console
from rich.table import Table

from edgecxr.bundle import default_bundle_path
from edgecxr.kernels import preprocess
from edgecxr.phantom import chest, write_dicom
from edgecxr.read import read_radiograph
from edgecxr.runtimes.screener import Screener

SYNTAXES = ("explicit", "jpeg_lossless", "jpeg2000")
PARTS = ("decode", "kernel", "inference")
TARGET = 1.10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", help="a .cxr file; the shipped one where not given")
    parser.add_argument("--side", type=int, default=3000, help="height and width of the films in pixels")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--films", type=int, default=24, help="films of the folder run")
    parser.add_argument("--syntax", action="append", default=[], help=f"repeatable; {', '.join(SYNTAXES)} if not given")
    parser.add_argument("--threads", type=int, default=0, help="of kernel and engine; 0: the library's own choice")
    parser.add_argument("--json", action="store_true", help="print the stored result instead of a table")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Screener(arguments.bundle, threads=arguments.threads) as screener:
        measured = {
            syntax: one_syntax(screener, Path(folder) / syntax, syntax, arguments)
            for syntax in arguments.syntax or SYNTAXES
        }
        asked = {**vars(arguments), "engine": screener.engine.describe()}
    path = harness.write_result("screener", asked, measured, bundle=arguments.bundle or default_bundle_path())
    if arguments.json:
        print(path.read_text())
    else:
        show(measured)
        Console().print(f"stored in {path}", style="dim")


def one_syntax(screener: Screener, folder: Path, syntax: str, arguments: argparse.Namespace) -> dict[str, Any]:
    folder.mkdir()
    file = write_dicom(chest(1, size=arguments.side), folder / "0.dcm", syntax=syntax)
    sampled = harness.sampled(contestants(screener, file), rounds=arguments.rounds)
    times = {name: samples.wall_ms for name, samples in sampled.items()}
    cpu = {name: samples.cpu_ms for name, samples in sampled.items()}
    parts = summed(times)
    for index in range(1, arguments.films):
        (folder / f"{index}.dcm").hardlink_to(file)
    return {
        "ms": {name: harness.summary(samples) for name, samples in {**times, "sum of parts": parts}.items()},
        "whole_over_parts": harness.ratio(times["whole"], parts),
        "whole_over_parts_cpu": harness.ratio(cpu["whole"], summed(cpu)),
        "folder_over_single": folder_gain(screener, folder, file, arguments.films),
        "status": screener.screen(file).status,
    }


def summed(times: dict[str, list[float]]) -> list[float]:
    """Round by round, the three parts together."""
    return [sum(each) for each in zip(*(times[part] for part in PARTS), strict=True)]


def contestants(screener: Screener, file: Path) -> dict[str, Callable[[], Any]]:
    spec = screener.bundle.spec.preprocess
    film = read_radiograph(file, reduced_for=screener.bundle.spec.reduced_for)
    batch = preprocess([film], spec)
    return {
        "whole": lambda: screener.screen(file),
        "decode": lambda: read_radiograph(file, reduced_for=screener.bundle.spec.reduced_for),
        "decode, full": lambda: read_radiograph(file),
        "decode, reduced": lambda: read_radiograph(file, reduced_for=spec),
        "kernel": lambda: preprocess([film], spec, threads=screener.engine.threads),
        "inference": lambda: screener.engine.infer(batch),
    }


def folder_gain(screener: Screener, folder: Path, file: Path, films: int) -> float:
    """Time of a folder with its readers ahead, over the time of as many films one by one; median of three."""
    runs: dict[str, Callable[[], Any]] = {
        "folder": lambda: consumed(list(screener.screen_folder(folder, workers=len(os.sched_getaffinity(0)))), films),
        "single": lambda: consumed([screener.screen(file) for _ in range(films)], films),
    }
    times = harness.interleaved(runs, rounds=3, warm_up=1)
    return statistics.median(a / b for a, b in zip(times["folder"], times["single"], strict=True))


def consumed(results: Sequence[Any], wanted: int) -> None:
    if len(results) != wanted:
        raise RuntimeError(f"{len(results)} results for {wanted} films")


def show(measured: dict[str, dict[str, Any]]) -> None:
    stages = ("whole", *PARTS, "sum of parts", "decode, full", "decode, reduced")
    table = Table("syntax", *stages, "whole / parts", "by CPU time", "folder / single", title="Screener, p50 ms")
    for syntax, row in measured.items():
        cells = [f"{row['ms'][name]['p50']:.2f}" for name in stages]
        verdict = "" if row["whole_over_parts"] <= TARGET else f" > {TARGET}"
        ratios = [row["whole_over_parts"], row["whole_over_parts_cpu"], row["folder_over_single"]]
        shown = [f"{value:.3f}" for value in ratios]
        table.add_row(syntax, *cells, shown[0] + verdict, *shown[1:])
    Console().print(table)


if __name__ == "__main__":
    main()
