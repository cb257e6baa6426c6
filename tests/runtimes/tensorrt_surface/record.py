"""Records what a version of TensorRT's Python bindings offers, from the real wheel, without TensorRT itself or a GPU.

    pip download --no-deps -d wheels tensorrt_cu12_bindings==10.3.0
    python tests/runtimes/tensorrt_surface/record.py wheels/tensorrt_cu12_bindings-10.3.0-*.whl > 10.3.0.json
    python tests/runtimes/tensorrt_surface/record.py installed > rtx-1.7.1.json      # the one that is installed here

The bindings import a handful of C functions; a stub library that gives each of them is compiled with cc, beside which
the module loads and can be listed. Nothing of TensorRT can be called over it. The wheel must be of this Python.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from importlib import import_module
from pathlib import Path
from typing import Any

from edgecxr.runtimes.tensorrt_api import OPTIONAL, USED, load

LIST = "import sys; sys.path[:0] = sys.argv[1:]; import record; print(record.listing())"


def stubs(folder: Path) -> None:
    """A library for each libnv* that the bindings need, with every C function that they leave undefined."""
    extension = str(folder / "tensorrt_bindings" / "tensorrt.so")
    needed = subprocess.run(["readelf", "-d", extension], capture_output=True, text=True, check=True).stdout
    undefined = subprocess.run(["nm", "-D", "--undefined-only", extension], capture_output=True, text=True, check=True)
    names = {line.split()[-1].split("@")[0] for line in undefined.stdout.splitlines()}
    wanted = [name for name in sorted(names) if re.match(r"(create|get|init)\w*(Infer|Nv|Plugin)", name)]
    source = folder / "stub.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in wanted))
    for library in sorted(set(re.findall(r"libnv\w+\.so\.\d+", needed))):
        command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{library}", "-o", str(folder / library), str(source)]
        subprocess.run(command, check=True)


def listing(module: Any = None) -> str:
    """Version, and the members of every class that `tensorrt_api` names and that is there, as JSON."""
    found = module if module is not None else import_module("tensorrt_bindings")
    classes = {name: getattr(found, name) for name in sorted({*USED, *OPTIONAL}) if hasattr(found, name)}
    members = {name: [item for item in dir(kind) if not item.startswith("_")] for name, kind in classes.items()}
    return json.dumps({"version": found.__version__, "classes": members}, indent=1)


def main(named: str) -> None:
    if named == "installed":
        print(listing(load().module))
        return
    with tempfile.TemporaryDirectory() as folder:
        zipfile.ZipFile(named).extractall(folder)
        stubs(Path(folder))
        environment = {**os.environ, "LD_LIBRARY_PATH": folder}
        command = [sys.executable, "-c", LIST, folder, str(Path(__file__).parent)]
        subprocess.run(command, check=True, env=environment)


if __name__ == "__main__":
    main(sys.argv[1])
