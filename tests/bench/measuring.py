"""`bench/cuda_frame.py` over a stub device: run by test_cuda_frame.py, ``python measuring.py BUNDLE``; prints JSON."""

import json
import sys

import cuda_frame
from faulty_device import StubEngine

from edgecxr.bundle import Bundle
from edgecxr.phantom import chest
from edgecxr.runtimes import frame_kernel


def main(path: str) -> None:
    frame_kernel.fatbin = lambda: b"an image"  # type: ignore[attr-defined]
    bundle = Bundle.open(path)
    with StubEngine.open(bundle, "fp32", golden=False) as engine:
        print(json.dumps(cuda_frame.measure(bundle, engine, chest(1, size=256), 5)))


if __name__ == "__main__":
    main(*sys.argv[1:])
