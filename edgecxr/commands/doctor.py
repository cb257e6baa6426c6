"""``edgecxr doctor``: what this machine can do, and why it cannot do the rest."""

import platform
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import typer

from edgecxr.commands.terminal import ExitCode, lacking_train, print_json
from edgecxr.errors import BundleError, EdgeCxrError

__all__ = ["Finding", "doctor", "examine"]

State = Literal["ok", "absent", "fault"]
MARKS: dict[State, str] = {"ok": "ok    ", "absent": "absent", "fault": "FAULT "}


class Finding(NamedTuple):
    """One line: `absent` is something optional, `fault` is something that screening needs."""

    topic: str
    state: State
    detail: str


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False) -> None:
    """List Python, kernels, engines, decoders and extras, and prove the default bundle on each engine.

    Ends with 3 when screening cannot work here.

    Example: `edgecxr doctor`
    """
    findings = examine()
    if as_json:
        print_json([finding._asdict() for finding in findings])
    else:
        for finding in findings:
            print(f"{MARKS[finding.state]}  {finding.topic:<28} {finding.detail}")
    if any(finding.state == "fault" for finding in findings):
        raise typer.Exit(ExitCode.CANNOT)


def examine() -> list[Finding]:
    """Every finding, in the order in which a film passes."""
    parts: tuple[Callable[[], list[Finding]], ...] = (_machine, _kernels, _decoders, _engines, _bundle, _extras, _gpu)
    return [finding for part in parts for finding in part()]


def _machine() -> list[Finding]:
    from edgecxr import __version__
    from edgecxr.machine import cores, vector_extensions

    extensions = " ".join(vector_extensions()) or "no vector extensions that matter here"
    return [
        Finding("edgecxr", "ok", f"{__version__} in {Path(__file__).parents[1]}"),
        Finding("python", "ok", f"{platform.python_version()} at {sys.executable}"),
        Finding("machine", "ok", f"{platform.system()} {platform.machine()}, {cores()} cores, {extensions}"),
    ]


def _kernels() -> list[Finding]:
    from edgecxr import kernels

    found = [
        Finding(f"kernel {status.name}", "ok" if status.available else "absent", status.detail)
        for status in kernels.report()
    ]
    try:
        return [*found, Finding("kernel in use", "ok", kernels.active())]
    except EdgeCxrError as error:
        return [*found, Finding("kernel in use", "fault", str(error))]


def _decoders() -> list[Finding]:
    wanted = {
        "pydicom": "DICOM headers",
        "imagecodecs": "JPEG lossless and of 12 bits, JPEG-LS, JPEG 2000, RLE, PNG, TIFF",
        "simplejpeg": "JPEG of 8 bits",
    }
    return [_package(name, f"decodes {what}", "fault") for name, what in wanted.items()]


def _package(name: str, what: str, lacking: State) -> Finding:
    try:
        return Finding(name, "ok", f"{version(name)}, {what}")
    except PackageNotFoundError:
        return Finding(name, lacking, f"not installed; {what}: pip install {name}")


def _engines() -> list[Finding]:
    from edgecxr.runtimes.registry import available

    statuses = available()
    state: State = "absent" if any(status.available for status in statuses) else "fault"
    return [Finding(f"engine {item.name}", "ok" if item.available else state, item.detail) for item in statuses]


def _bundle() -> list[Finding]:
    from edgecxr.bundle import Bundle, default_bundle_path
    from edgecxr.commands.verify import golden_rows

    path = default_bundle_path()
    if not path.exists():
        return [Finding("default bundle", "absent", f"{path} is not there; give --bundle, or make one: edgecxr build")]
    try:
        bundle = Bundle.open(path)
    except BundleError as error:
        return [Finding("default bundle", "fault", str(error))]
    rows = golden_rows(bundle, quiet=True)
    passed = any(row["passed"] for row in rows)
    return [
        Finding("default bundle", "ok" if passed else "fault", f"{path.name}, digest {bundle.digest[:12]}"),
        *(Finding(f"golden {row['engine']} {row['precision']}", *_golden(row)) for row in rows),
    ]


def _golden(row: dict[str, Any]) -> tuple[State, str]:
    return ("ok", "reproduces the golden set") if row["passed"] else ("absent", row["reason"])


def _extras() -> list[Finding]:
    if lacking := lacking_train():
        train = Finding(
            "extra train", "absent", f'no {", ".join(lacking)}; to build bundles: pip install "edgecxr[train]"'
        )
    else:
        found = ", ".join(f"{name} {version(name)}" for name in ("torch", "timm", "onnx"))
        train = Finding("extra train", "ok", found)
    return [train]


def _gpu() -> list[Finding]:
    """The NVIDIA GPU and everything that it takes to screen on it; without one, nothing here is a fault."""
    from edgecxr.runtimes.driver import probe
    from edgecxr.runtimes.registry import available_on_device

    report = probe()
    found = [
        Finding("NVIDIA GPU", "absent", report.reason)
        if report.reason
        else Finding("NVIDIA GPU", "ok", f"CUDA up to {report.cuda}; {report.release or 'it names no release'}")
    ]
    for gpu in report.devices:
        memory = f"{gpu.memory_bytes / 2**30:.1f} GiB{', shared with the CPU' if gpu.integrated else ''}"
        found.append(Finding(f"GPU {gpu.index}", "ok", f"{gpu.name}, compute capability {gpu.capability}, {memory}"))
    found += [_device_kernel(), _device_package("pycuda", "pycuda"), _device_package("cuda.bindings", "cuda-bindings")]
    found += [_tensorrt(), _engine_cache()]
    statuses = available_on_device()
    return [*found, *(Finding(f"engine {e.name}", "ok" if e.available else "absent", e.detail) for e in statuses)]


def _device_kernel() -> Finding:
    from edgecxr.errors import KernelError
    from edgecxr.kernels import device, nvrtc

    try:
        return Finding("kernel cuda", "ok", f"fatbin of {len(device.fatbin()):,} bytes, by nvcc; else NVRTC")
    except KernelError as error:
        reason = str(error)
    try:
        return Finding("kernel cuda", "ok", f"compiled when opened, by {nvrtc.find_libraries()[0]}")
    except KernelError as error:
        return Finding("kernel cuda", "absent", f"{reason}; {error}")


def _device_package(module: str, package: str) -> Finding:
    try:
        there = find_spec(module) is not None
    except ModuleNotFoundError:
        there = False
    if not there:
        return Finding(package, "absent", 'to run on a GPU: pip install "edgecxr[nvidia]"')
    return _package(package, "for the GPU", "absent")


def _tensorrt() -> Finding:
    from edgecxr.errors import EngineError
    from edgecxr.runtimes import tensorrt_api

    try:
        tensorrt = tensorrt_api.load()
    except EngineError as error:
        return Finding("TensorRT", "absent", str(error))
    if not tensorrt.builds_without_gpu:
        return Finding("TensorRT", "ok", f"{tensorrt.name}, flavour tensorrt: builds for the GPU that it runs on")
    listed = ", ".join(tensorrt.capabilities())
    return Finding("TensorRT", "ok", f"{tensorrt.name}, flavour tensorrt-rtx: builds without a GPU for {listed}")


def _engine_cache() -> Finding:
    from edgecxr.runtimes.engine_cache import EngineCache

    cache = EngineCache()
    kept = cache.list()
    if not kept:
        return Finding("compiled engines", "absent", f"none in {cache.folder}; with a GPU: edgecxr compile")
    size = sum(entry.size for entry in kept) / 1e6
    return Finding("compiled engines", "ok", f"{len(kept)} files, {size:.1f} MB in {cache.folder}")
