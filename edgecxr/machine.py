"""The machine in words: without it a measured time says nothing."""

import datetime
import os
import platform
from pathlib import Path
from typing import Any

__all__ = ["cores", "machine", "vector_extensions"]

# Those that matter for INT8 and bfloat16, as Linux names them.
EXTENSIONS = ("sse4_2", "avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
EXTENSIONS_ARM = ("asimd", "asimddp")


def machine() -> dict[str, Any]:
    """CPU, its vector extensions, cores that this process may use, memory, system, load, and the time."""
    return {
        "cpu": _cpu_model(),
        "vector_extensions": vector_extensions(),
        "cores": cores(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_average": os.getloadavg(),
        "when": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def vector_extensions() -> list[str]:
    """Those of `EXTENSIONS` and `EXTENSIONS_ARM` that the CPU has; none on a system that does not tell."""
    flags = {flag for line in _cpuinfo() if line.startswith(("flags", "Features")) for flag in line.split()}
    return [name for name in (*EXTENSIONS, *EXTENSIONS_ARM) if name in flags]


def _cpu_model() -> str:
    named = [line for line in _cpuinfo() if line.startswith(("model name", "Model"))]
    return named[0].split(":", 1)[1].strip() if named else platform.processor() or platform.machine()


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
