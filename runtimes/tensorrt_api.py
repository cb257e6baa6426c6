"""TensorRT 10.3 to 11.4 and TensorRT-RTX through one set of calls. What is there is asked for, never its version.

Everything that this package uses of TensorRT is in `USED` or, where some versions lack it, in `OPTIONAL`; a test holds
both against the real bindings of several versions. Precision is in the file: networks are strongly typed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from edgecxr.errors import EngineError

__all__ = ["OPTIONAL", "USED", "Plan", "Progress", "Refused", "Tensorrt", "capability_names", "load"]

PACKAGES = (("tensorrt",), ("tensorrt_rtx",), ("tensorrt_rtx_libs", "tensorrt_rtx_bindings"))  # libraries first
LISTED = ("ERROR", "INTERNAL_ERROR", "WARNING")
USED = {  # in every version: class -> members
    "Builder": ("build_serialized_network", "create_builder_config", "create_network", "create_optimization_profile"),
    "IBuilderConfig": (
        "add_optimization_profile",
        "create_timing_cache",
        "get_timing_cache",
        "progress_monitor",
        "set_flag",
        "set_timing_cache",
    ),
    "INetworkDefinition": ("get_input",),
    "ITensor": ("name", "shape"),
    "IOptimizationProfile": ("set_shape",),
    "IHostMemory": ("nbytes",),
    "ITimingCache": ("serialize",),
    "IProgressMonitor": ("phase_finish", "phase_start", "step_complete"),
    "ILogger": ("log",),
    "OnnxParser": ("get_error", "num_errors", "parse"),
    "ParserError": ("desc",),
    "Runtime": ("deserialize_cuda_engine",),
    "ICudaEngine": (
        "create_execution_context",
        "get_tensor_dtype",
        "get_tensor_name",
        "get_tensor_shape",
        "num_io_tensors",
    ),
    "IExecutionContext": ("execute_async_v3", "set_tensor_address"),
    "NetworkDefinitionCreationFlag": ("STRONGLY_TYPED",),
    "DataType": ("FLOAT", "HALF"),
}
OPTIONAL = {  # asked for with getattr or hasattr
    "NetworkDefinitionCreationFlag": ("EXPLICIT_BATCH",),  # TensorRT 10
    "IBuilderConfig": ("num_compute_capabilities", "set_compute_capability"),  # TensorRT-RTX, as are all below
    "BuilderFlag": ("REQUIRE_USER_ALLOCATION",),
    "ComputeCapability": ("SM89",),
    "IExecutionContext": ("is_stream_capturable",),
    "ICudaEngine": ("create_runtime_config",),  # TensorRT from 10.13 as well
    "IRuntimeConfig": ("create_runtime_cache", "set_runtime_cache"),
    "IRuntimeCache": ("deserialize", "serialize"),
}

Progress = Callable[[str, int, int], bool]  # (phase, step, of) -> go on?


@dataclass(frozen=True)
class Plan:
    """A serialized engine, and what the builder had to say."""

    engine: bytes
    timing_cache: bytes  # empty where the flavour keeps none
    warnings: tuple[str, ...]


class Refused(EngineError):
    """The parser or the builder said no; `errors` are its own words, at least one."""

    def __init__(self, library: str, errors: Sequence[str], warnings: Sequence[str]) -> None:
        super().__init__(f"{library} refuses the model: {errors[0]}")
        self.errors, self.warnings = tuple(errors), tuple(warnings)


class Tensorrt:
    """One imported TensorRT. Make one with `load`."""

    def __init__(self, module: Any) -> None:
        """`module` is any of `PACKAGES`, imported."""
        self.module = module
        self.flavour = "tensorrt" if not hasattr(module, "ComputeCapability") else "tensorrt-rtx"
        self.version = str(module.__version__)

    @property
    def builds_without_gpu(self) -> bool:
        """TensorRT-RTX builds for a list of compute capabilities; TensorRT measures on the GPU that it builds for."""
        return hasattr(self.module.IBuilderConfig, "set_compute_capability")

    @property
    def name(self) -> str:
        """Module and version, as a report shows it."""
        return f"{self.module.__name__} {self.version}"

    def logger(self) -> Any:
        """A logger that keeps errors and warnings (`errors`, `warnings`) instead of printing them."""
        base: Any = self.module.ILogger

        class Kept(base):  # type: ignore[misc]
            def __init__(self) -> None:
                base.__init__(self)
                self.errors: list[str] = []
                self.warnings: list[str] = []

            def log(self, severity: Any, message: str) -> None:
                if severity.name in LISTED:
                    (self.warnings if severity.name == "WARNING" else self.errors).append(message.strip())

        return Kept()

    def capabilities(self) -> tuple[str, ...]:
        """Compute capabilities that the builder can be given, e.g. ("7.5", "8.9"); none where it measures on a GPU."""
        return capability_names(getattr(self.module, "ComputeCapability", None))

    def build(
        self,
        model: bytes,
        *,
        capabilities: Sequence[str] = (),
        largest_batch: int = 1,
        timing_cache: bytes = b"",
        progress: Progress | None = None,
    ) -> Plan:
        """Parse an ONNX file and build its engine; a dynamic batch gets a profile of 1 to `largest_batch` films.

        `capabilities` is for TensorRT-RTX; none means what the builder takes itself. Raises Refused, and EngineError
        for a capability that this builder does not list. TensorRT itself must find a GPU: ask the driver first.
        """
        logger = self.logger()
        builder = self.module.Builder(logger)
        network = builder.create_network(self._network_flags())
        parser = self.module.OnnxParser(network, logger)
        if not parser.parse(model):
            words = [parser.get_error(index).desc() for index in range(parser.num_errors)]
            raise Refused(self.name, words or ["the parser gave no reason"], logger.warnings)
        settings = self._settings(builder, network, largest_batch)
        self._target(settings, capabilities)
        cache = self._timing_cache(settings, timing_cache)
        monitor = self._monitor(settings, progress)
        engine = builder.build_serialized_network(network, settings)
        if monitor is not None and monitor.cancelled:
            raise EngineError(f"{self.name}: building was cancelled")
        if engine is None:
            raise Refused(self.name, logger.errors or ["the builder gave no reason"], logger.warnings)
        kept = bytes(memoryview(settings.get_timing_cache().serialize())) if cache is not None else b""
        return Plan(bytes(memoryview(engine)), kept, tuple(logger.warnings))

    def _network_flags(self) -> int:
        """Strong typing and explicit batch, where they are still flags (TensorRT 10)."""
        flags = 0
        for name in ("EXPLICIT_BATCH", "STRONGLY_TYPED"):
            member = getattr(self.module.NetworkDefinitionCreationFlag, name, None)
            if member is not None:
                flags |= 1 << int(member)
        return flags

    def _settings(self, builder: Any, network: Any, largest_batch: int) -> Any:
        settings = builder.create_builder_config()
        if flag := getattr(self.module.BuilderFlag, "REQUIRE_USER_ALLOCATION", None):
            settings.set_flag(flag)  # a CUDA graph can only be captured of a context that allocates nothing
        image = network.get_input(0)
        shape = tuple(image.shape)
        if shape[0] == -1:
            profile = builder.create_optimization_profile()
            profile.set_shape(image.name, (1, *shape[1:]), (1, *shape[1:]), (largest_batch, *shape[1:]))
            settings.add_optimization_profile(profile)
        return settings

    def _target(self, settings: Any, capabilities: Sequence[str]) -> None:
        if not capabilities:
            return
        if not self.builds_without_gpu:
            raise EngineError(f"{self.name} builds only for the GPU that it runs on; leave the capabilities out")
        unknown = sorted(set(capabilities) - set(self.capabilities()))
        if unknown:
            raise EngineError(
                f"{self.name} does not build for compute capability {', '.join(unknown)}; "
                f"choose of {', '.join(self.capabilities())}"
            )
        settings.num_compute_capabilities = len(capabilities)
        for index, name in enumerate(capabilities):
            member = getattr(self.module.ComputeCapability, f"SM{name.replace('.', '')}")
            if not settings.set_compute_capability(member, index):
                raise EngineError(f"{self.name} does not take compute capability {name} beside the others")

    def _timing_cache(self, settings: Any, stored: bytes) -> Any:
        """What TensorRT measured before; TensorRT-RTX measures nothing, so it keeps none."""
        if self.builds_without_gpu:
            return None
        cache = settings.create_timing_cache(stored)
        if cache is None:
            cache = settings.create_timing_cache(b"")  # of another version or device: start anew
        settings.set_timing_cache(cache, False)
        return cache

    def _monitor(self, settings: Any, progress: Progress | None) -> Any:
        if progress is None:
            return None
        tell = progress
        base: Any = self.module.IProgressMonitor

        class Told(base):  # type: ignore[misc]
            def __init__(self) -> None:
                base.__init__(self)
                self.steps: dict[str, int] = {}
                self.cancelled = False

            def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
                self.steps[phase_name] = num_steps

            def step_complete(self, phase_name: str, step: int) -> bool:
                going = tell(phase_name, step + 1, self.steps.get(phase_name, 0))
                self.cancelled = self.cancelled or not going
                return not self.cancelled

            def phase_finish(self, phase_name: str) -> None:
                self.steps.pop(phase_name, None)

        monitor = Told()
        settings.progress_monitor = monitor
        return monitor


def load() -> Tensorrt:
    """The TensorRT of this machine. Raises EngineError with what to install."""
    said: list[str] = []
    for names in PACKAGES:
        try:
            return Tensorrt([import_module(name) for name in names][-1])
        except (ImportError, OSError) as error:
            said.append(f"{names[-1]}: {error}")
    raise EngineError(
        "no tensorrt, tensorrt_rtx or tensorrt_rtx_bindings can be imported; pip install 'edgecxr[tensorrt]', "
        f"on a Jetson apt-get install python3-libnvinfer ({'; '.join(said)})"
    )


def capability_names(enumeration: Any) -> tuple[str, ...]:
    """Names of an enumeration like {SM75, SM120, …} as "7.5", "12.0"."""
    members = getattr(enumeration, "__members__", {})
    digits = [name[2:] for name in members if name.startswith("SM") and name[2:].isdigit()]
    return tuple(f"{number[:-1]}.{number[-1]}" for number in sorted(digits, key=int))
