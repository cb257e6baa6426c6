"""The libraries that the results of a build depend on, and their versions on this machine."""

from importlib.metadata import PackageNotFoundError, version

__all__ = ["LIBRARIES", "versions"]

LIBRARIES = ("numpy", "torch", "torchvision", "timm", "onnx", "onnxconverter-common", "onnxruntime", "openvino")


def versions(*names: str) -> dict[str, str]:
    """By name, "absent" for what is not installed; of all LIBRARIES where none is named."""
    return {name: _version(name) for name in names or LIBRARIES}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"
