"""Films of two sizes staged on a stub device that gives memory at the same address again: run by test_frame_kernel.py.

``python staging.py BUNDLE`` prints one JSON object: whether the keys of one film, before and after its staging memory
was replaced, are the `same` but for the generation; the generations; which graphs are held, and which were given up.
"""

import contextlib
import json
import sys
from typing import Any

from faulty_device import OnHost

from edgecxr.bundle import Bundle
from edgecxr.phantom import chest
from edgecxr.runtimes import frame_kernel


def main(path: str) -> None:
    frame_kernel.fatbin = lambda: b"an image"  # type: ignore[attr-defined]
    bundle = Bundle.open(path)
    small, large = chest(5, "covid", size=128), chest(5, "covid", size=2048)
    graph = OnHost(bundle.model("fp32"))
    spec, closed = bundle.spec.preprocess, list[str]()
    graph.screen(small, spec)
    kernel: Any = graph._kernel
    first, again = kernel.stage([small], spec, graph._buffers[0]), kernel.stage([small], spec, graph._buffers[0])
    for name in ("batch", "film"):
        stack: Any = contextlib.ExitStack()
        stack.callback(closed.append, name)
        graph._graphs[name] = stack
    graph.screen(chest(6, "covid", size=128), spec)
    held = [sorted(map(str, graph._graphs))]
    graph.screen(large, spec)
    held.append(sorted(map(str, graph._graphs)))
    second = kernel.stage([small], spec, graph._buffers[0])
    told = {
        "repeated": first.key == again.key,
        "same": first.key[1:] == second.key[1:],
        "keys_differ": first.key != second.key,
        "generations": [first.generation, second.generation],
        "held": held,
        "closed": list(closed),
    }
    graph._graphs.pop("batch")
    graph.close()
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
