"""Whether a real TensorRT parses a graph and builds an engine from it. TensorRT-RTX needs no GPU; nothing is run.

What is there is asked for by name (`getattr`), never by version, so that the same lines serve TensorRT 10.3 to 11 and
TensorRT-RTX 1.4 to 1.7.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

__all__ = ["BuildReport", "build_with_tensorrt"]

PACKAGES = (("tensorrt",), ("tensorrt_rtx",), ("tensorrt_rtx_libs", "tensorrt_rtx_bindings"))  # libraries first
LISTED = ("ERROR", "INTERNAL_ERROR", "WARNING")


@dataclass(frozen=True)
class BuildReport:
    """`built`: an engine came out. `refused`: the parser or the builder said no. `absent`: no TensorRT here."""

    outcome: Literal["built", "refused", "absent"]
    library: str = ""  # name and version
    engine_bytes: int = 0
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    reason: str = ""  # why absent, or the first error


def build_with_tensorrt(model_bytes: bytes, *, largest_batch: int = 1) -> BuildReport:
    """Parse and build a graph of ours; for a dynamic-batch twin, with a profile of 1 to `largest_batch` films."""
    tensorrt = _import()
    if isinstance(tensorrt, str):
        return BuildReport("absent", reason=tensorrt)
    library = f"{tensorrt.__name__} {tensorrt.__version__}"
    logger = _logger(tensorrt)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(_network_flags(tensorrt))
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse(model_bytes):
        errors = tuple(parser.get_error(index).desc() for index in range(parser.num_errors))
        return _refused(library, errors or ("the parser gave no reason",), logger)
    settings = _settings(builder, network, largest_batch)
    engine = builder.build_serialized_network(network, settings)
    if engine is None:
        return _refused(library, tuple(logger.errors) or ("the builder gave no reason",), logger)
    return BuildReport("built", library, int(engine.nbytes), warnings=tuple(logger.warnings))


def _import() -> Any:
    """The TensorRT module, or a sentence saying why there is none."""
    for names in PACKAGES:
        try:
            return [import_module(name) for name in names][-1]
        except (ImportError, OSError):
            continue
    return "no tensorrt, tensorrt_rtx or tensorrt_rtx_bindings can be imported; pip install 'edgecxr[tensorrt]'"


def _logger(tensorrt: Any) -> Any:
    """A logger that keeps errors and warnings instead of printing them."""

    class Kept(tensorrt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.warnings: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity.name in LISTED:
                (self.warnings if severity.name == "WARNING" else self.errors).append(message.strip())

    return Kept()


def _network_flags(tensorrt: Any) -> int:
    """Strong typing and explicit batch, where they are still flags (TensorRT 10)."""
    flags = 0
    for name in ("EXPLICIT_BATCH", "STRONGLY_TYPED"):
        member = getattr(tensorrt.NetworkDefinitionCreationFlag, name, None)
        if member is not None:
            flags |= 1 << int(member)
    return flags


def _settings(builder: Any, network: Any, largest_batch: int) -> Any:
    settings = builder.create_builder_config()
    image = network.get_input(0)
    shape = tuple(image.shape)
    if shape[0] == -1:
        profile = builder.create_optimization_profile()
        profile.set_shape(image.name, (1, *shape[1:]), (1, *shape[1:]), (largest_batch, *shape[1:]))
        settings.add_optimization_profile(profile)
    return settings


def _refused(library: str, errors: tuple[str, ...], logger: Any) -> BuildReport:
    return BuildReport("refused", library, 0, errors, tuple(logger.warnings), errors[0])
