"""One model in every precision on every engine, beside the PyTorch networks it came from, on the same cores.

Scenario: single stream. One 1 x 1 x S x S film is in memory; the next is asked for when the answer is there. Each round
runs every contestant once in a rotating order: one untimed call (another's spinning threads have gone quiet, the caches
are its own), then CALLS timed ones. The number: p50 over the p50 of the PyTorch contestant.

    python bench/engines.py --bundle FILE.cxr [--peer timm:resnet101 --peer timm:densenet121]
    python bench/engines.py --onnx fp32=a.onnx --onnx int8=b.onnx [--peer ...]

Several peers are one ensemble, run one after the other; each takes films of SIDE pixels (the bundle's own unless given)
and looks VIEWS times (1 unless given), as the teachers of the recipe do. With a bundle, a fresh process per engine is
timed from its start to the first decision, and its peak memory is read.
"""

import argparse
import os
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import harness
import numpy as np
from rich.console import Console
from rich.table import Table

from edgecxr.bundle import Bundle
from edgecxr.runtimes.graph import GraphSession
from edgecxr.runtimes.latency import cold_starts
from edgecxr.runtimes.registry import PRECISIONS

BACKENDS = ("openvino", "onnxruntime")
PEER = re.compile(r"(?P<name>[\w:.]+?)(@(?P<side>\d+))?(\*(?P<views>\d+))?")
SETTLE_S = 0.02  # longer than ONNX Runtime and OpenMP spin after a call


def main() -> None:
    arguments = parsed()
    models = loaded(arguments)
    contestants = {**engines(models, arguments.threads), **peers(arguments.peer, side_of(models), arguments.threads)}
    times = blocks(contestants, arguments.rounds, arguments.calls)
    measured: dict[str, Any] = {"single_stream": rows(times)}
    if arguments.bundle:
        packed = [name for name in models if name in PRECISIONS]  # a loose model has a name of its own
        measured["cold_start"] = fresh(Path(arguments.bundle), packed, arguments.starts)
    path = harness.write_result("engines", vars(arguments), measured, bundle=arguments.bundle)
    if arguments.json:
        print(path.read_text())
    else:
        show(measured)
        Console().print(f"stored in {path}", style="dim")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", help="a .cxr file: every precision in it")
    parser.add_argument("--onnx", action="append", default=[], metavar="NAME=FILE", help="a loose model, repeatable")
    parser.add_argument(
        "--peer", action="append", default=[], metavar="timm:NAME[@SIDE][*VIEWS]", help="a PyTorch network, repeatable"
    )
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="for every contestant")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--calls", type=int, default=5, help="timed calls of a contestant in each round")
    parser.add_argument("--starts", type=int, default=5, help="fresh processes for each engine and precision")
    parser.add_argument("--json", action="store_true", help="print the stored result instead of a table")
    arguments = parser.parse_args()
    if not arguments.bundle and not arguments.onnx:
        parser.error("give --bundle FILE.cxr or --onnx NAME=FILE")
    for name in arguments.peer:
        if not PEER.fullmatch(name):
            parser.error(f"--peer {name}: wanted timm:NAME[@SIDE][*VIEWS], such as timm:resnet18@192*2")
    return arguments


def loaded(arguments: argparse.Namespace) -> dict[str, bytes]:
    """Name -> ONNX bytes; the names of a bundle's models are its precisions."""
    models: dict[str, bytes] = {}
    if arguments.bundle:
        bundle = Bundle.open(arguments.bundle)
        models |= {precision: bundle.model(precision) for precision in bundle.precisions}
    for pair in arguments.onnx:
        name, _, file = pair.partition("=")
        models[name] = Path(file).read_bytes()
    return models


def side_of(models: Mapping[str, bytes]) -> int:
    import onnx

    dims = onnx.load_from_string(next(iter(models.values()))).graph.input[0].type.tensor_type.shape.dim
    return int(dims[3].dim_value)


def engines(models: Mapping[str, bytes], threads: int) -> dict[str, Callable[[], Any]]:
    side = side_of(models)
    film = np.random.default_rng(0).random((1, 1, side, side), np.float32)
    runs: dict[str, Callable[[], Any]] = {}
    for backend in BACKENDS:
        for name, model in models.items():
            session = GraphSession(model, backend, threads=threads)  # type: ignore[arg-type]
            runs[f"{backend} {name}"] = lambda session=session: session.infer(film)  # type: ignore[misc]
    return runs


def peers(names: list[str], side: int, threads: int) -> dict[str, Callable[[], Any]]:
    """Each PyTorch network in FP32, and all of them as an ensemble where there are several."""
    if not names:
        return {}
    import torch

    from edgecxr.teachers.architecture import build

    torch.set_num_threads(threads)
    fastest = torch.channels_last  # the memory format in which PyTorch's convolutions are, and that teachers have
    networks = {name: build(name.split("@")[0].split("*")[0], 3).eval().to(memory_format=fastest) for name in names}
    films = {name: torch.rand(*views_of(name, side)) for name in names}

    def run(*chosen: str) -> None:
        with torch.inference_mode():
            for name in chosen:
                for view in films[name]:  # one after the other, as teachers look
                    networks[name](view[None])

    runs: dict[str, Callable[[], Any]] = {f"pytorch {name}": lambda name=name: run(name) for name in names}  # type: ignore[misc]
    if len(names) > 1:
        runs["pytorch ensemble"] = lambda: run(*names)
    return runs


def views_of(peer: str, side: int) -> tuple[int, int, int, int]:
    """Shape of what the peer looks at: views, 1, S, S."""
    found = PEER.fullmatch(peer)
    if found is None:
        raise ValueError(peer)
    own = int(found["side"] or side)
    return int(found["views"] or 1), 1, own, own


def blocks(contestants: Mapping[str, Callable[[], Any]], rounds: int, calls: int) -> dict[str, harness.Samples]:
    """Wall and CPU milliseconds of each timed call."""
    names = list(contestants)
    times = {name: harness.Samples([], []) for name in names}
    for number in range(rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            time.sleep(SETTLE_S)
            contestants[name]()
            for _ in range(calls):
                start, cpu_start = time.perf_counter_ns(), time.process_time_ns()
                contestants[name]()
                times[name].cpu_ms.append((time.process_time_ns() - cpu_start) / 1e6)
                times[name].wall_ms.append((time.perf_counter_ns() - start) / 1e6)
    return times


def rows(times: Mapping[str, harness.Samples]) -> dict[str, dict[str, Any]]:
    """Each contestant's times, and by how much its median beats that of the slowest PyTorch one (the ensemble)."""
    medians = {name: statistics.median(samples.wall_ms) for name, samples in times.items()}
    cpu = {name: statistics.median(samples.cpu_ms) for name, samples in times.items()}
    pytorch = {name: value for name, value in medians.items() if name.startswith("pytorch")}
    base = max(pytorch, key=lambda name: pytorch[name]) if pytorch else next(iter(medians))
    return {
        name: {
            "ms": harness.summary(samples.wall_ms),
            "cpu_ms": harness.summary(samples.cpu_ms),
            "faster_than": base,
            "times": medians[base] / medians[name],
            "cpu_times": cpu[base] / max(cpu[name], 1e-3),
        }
        for name, samples in times.items()
    }


def fresh(bundle: Path, precisions: Sequence[str], starts: int) -> dict[str, dict[str, Any]]:
    pairs = [(backend, precision) for backend in BACKENDS for precision in precisions]
    return {f"{backend} {precision}": cold_starts(bundle, backend, precision, starts) for backend, precision in pairs}


def show(measured: Mapping[str, Any]) -> None:
    table = Table(
        "contestant",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "CPU ms",
        "times faster",
        "by CPU time",
        title="single stream, one film",
    )
    for name, row in measured["single_stream"].items():
        ms = row["ms"]
        cells = [*(ms[key] for key in ("p50", "p90", "p99")), row["cpu_ms"]["p50"], row["times"], row["cpu_times"]]
        table.add_row(name, *(f"{cell:.2f}" for cell in cells))
    Console().print(table)
    if "cold_start" not in measured:
        return
    cold = Table("engine", "imports s", "opened s", "first decision s", "peak MB", title="fresh process, median")
    for name, row in measured["cold_start"].items():
        if "failed" in row:
            cold.add_row(name, row["failed"])
            continue
        seconds = [f"{row[key]:.2f}" for key in ("imported_s", "opened_s", "decided_s")]
        peak = row["peak_mb"]
        cold.add_row(name, *seconds, "–" if peak is None else f"{peak:.0f}")
    Console().print(cold)


if __name__ == "__main__":
    main()
