"""No word about a film, a model or this machine leaves it: the usage reporting of third-party libraries is kept off.

`import openvino` (2026.4) sends an event to Google Analytics and writes ``openvino_ga_cid`` and ``stats`` into
``~/intel``, and `import nncf` (3.4) does the same, unless the package ``openvino_telemetry`` cannot be imported: then
both use a stub of their own. Their documented way out, ``opt_in_out --opt_out``, writes to the user's home, and
``CI=true`` is not ours to set. So that import is blocked, in this process alone, before either library is loaded.
"""

import os
import sys

__all__ = ["switch_off"]

REPORTER = "openvino_telemetry"  # shared by OpenVINO and NNCF
VARIABLES = {"HF_HUB_DISABLE_TELEMETRY": "1"}  # huggingface_hub, which timm loads weights with


def switch_off() -> None:
    """Keep OpenVINO, NNCF and huggingface_hub from reporting. Call it before importing any of them; twice is harmless.

    Where the host application has already loaded the reporter, what its import sent is past recall; from here on the
    reporter sends nothing.
    """
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    loaded = sys.modules.get(REPORTER)
    if loaded is None:
        sys.modules[REPORTER] = None  # type: ignore[assignment]  # the documented way to make an import fail
        return
    instance = getattr(loaded.Telemetry, "_SingletonMetaClass__single_instance", None)
    if instance is not None:
        instance.consent = False
