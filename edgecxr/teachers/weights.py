"""Weight files: reading them without running code, writing them whole, and moving what fits into another network."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from edgecxr.errors import StageError

__all__ = [
    "Transfer",
    "read_weights",
    "require_most",
    "strip_prefixes",
    "transfer_weights",
    "write_atomic",
    "write_weights",
]

CONTAINERS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model")  # in order of preference
DAMAGED = (  # what a damaged or hostile file makes the two readers raise
    *(OSError, EOFError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, ImportError, AssertionError),
    *(SafetensorError, UnpicklingError),
)
PREFIXES = ("module.", "_orig_mod.", "model.")
DENSELAYER = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(\d)\.")
AUXILIARY = (
    "AuxLogits.",
    "aux",
    "body.AuxLogits.",
    "body.aux",
)  # classifiers of the Inceptions that help training only
MOST_TAKEN, MOST_FILLED = 0.9, 0.6  # shares of a file's weights, and of a network's


@dataclass(frozen=True)
class Transfer:
    """What `transfer_weights` did: names copied, and each name skipped with its reason."""

    copied: tuple[str, ...]
    skipped: dict[str, str]


def read_weights(path: str | Path, prefixes: Sequence[str] = PREFIXES) -> dict[str, Tensor]:
    """Tensors by name from a .safetensors file or a `torch.save` state dictionary, without running code from it.

    A dictionary inside one of `CONTAINERS` is unpacked, and `prefixes` that every name shares are taken off.
    Raises StageError when the file is absent, damaged, or holds pickled objects other than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise StageError(f"no weight file at {path}; put it there, or correct the path in the recipe")
    try:
        if path.suffix == ".safetensors":
            loaded: Any = safetensors.torch.load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGED as error:
        raise _unreadable(path, error) from error
    for key in CONTAINERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    state = {_today(name): value for name, value in loaded.items() if isinstance(value, Tensor)} if loaded else {}
    if not state:
        raise StageError(f"{path} holds no tensors by name; wanted a state dictionary (torch.save(model.state_dict()))")
    return strip_prefixes(state, prefixes)


def _today(name: str) -> str:
    """The name that a weight has today: torchvision's DenseNet files are older than the ban on points in names."""
    return DENSELAYER.sub(r"\1\2.", name)


def _unreadable(path: Path, error: Exception) -> StageError:
    return StageError(
        f"{path} is not a plain weight file ({type(error).__name__}); "
        "save model.state_dict() with torch.save or safetensors, without other Python objects"
    )


def strip_prefixes(state: Mapping[str, Tensor], prefixes: Sequence[str] = PREFIXES) -> dict[str, Tensor]:
    """The same tensors without the prefixes that every name shares ("module." of DataParallel …)."""
    names = dict(state)
    again = True
    while again:
        again = False
        for prefix in prefixes:
            if prefix and names and all(name.startswith(prefix) for name in names):
                names = {name[len(prefix) :]: value for name, value in names.items()}
                again = True
    return names


def write_atomic(path: Path, content: bytes) -> None:
    """Write `content` so that `path` is either as before or whole, whatever happens in between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def write_weights(path: str | Path, state: Mapping[str, Tensor]) -> None:
    """Write tensors by name as .safetensors, atomically."""
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    write_atomic(Path(path), safetensors.torch.save(plain))


def require_most(transfer: Transfer, source: Mapping[str, Tensor], target: nn.Module, classifier: str | None) -> None:
    """Raises StageError unless nearly all of `source` went into `target`, and fills most of it.

    Not counted are the classifier, which is another for other classes, auxiliary classifiers, and the normalization in
    front. A network may have layers of its own on top of the source's (Covid-DenseNet), hence only "most".
    """

    def counted(values: Mapping[str, Tensor]) -> dict[str, int]:
        uncounted = (f"{classifier}.", "mean", "std", *AUXILIARY)
        return {name: value.numel() for name, value in values.items() if not name.startswith(uncounted)}

    given, wanted = counted(source), counted(target.state_dict())
    taken = sum(wanted.get(name, 0) for name in transfer.copied)
    if taken >= MOST_TAKEN * sum(given.values()) and taken >= MOST_FILLED * sum(wanted.values()):
        return
    strange = next((name for name in given if name in transfer.skipped), None)
    empty = next((name for name in wanted if name in transfer.skipped), None)
    examples = [
        *([f"{strange!r} of the file: {transfer.skipped[strange]}"] if strange else []),
        *([f"{empty!r} of the network: {transfer.skipped[empty]}"] if empty else []),
    ]
    raise StageError(
        f"only {taken / 1e6:.2f} of {sum(given.values()) / 1e6:.2f} million weights fit the network, which has "
        f"{sum(wanted.values()) / 1e6:.2f} ({'; '.join(examples)}); name the architecture that the file was trained "
        "with"
    )


def transfer_weights(source: Mapping[str, Tensor], target: nn.Module) -> Transfer:
    """Copy every tensor of `source` that fits into `target`, in place, and report the rest with reasons.

    A first convolution of 3 input channels fits one of 1: its weights are summed over the channels, which is the same
    network on a gray image. Raises StageError when nothing fits, because the architectures then differ.
    """
    copied: list[str] = []
    skipped: dict[str, str] = {}
    own = target.state_dict()  # once: it is slow to make for a network of hundreds of tensors
    with torch.no_grad():
        for name, wanted in own.items():
            value = source.get(name)
            if value is None:
                skipped[name] = "absent from the source"
                continue
            if value.ndim == 4 and value.shape[1] == 3 and wanted.shape[1] == 1:
                value = value.sum(dim=1, keepdim=True)
            if value.shape != wanted.shape:
                skipped[name] = f"shape {tuple(value.shape)} in the source, {tuple(wanted.shape)} here"
                continue
            wanted.copy_(value)
            copied.append(name)
    skipped |= {name: "not a weight of this network" for name in source if name not in own}
    if not any(own[name].ndim >= 2 for name in copied):
        raise StageError(
            f"none of the {len(source)} weights fits the network (source begins {next(iter(source), '-')!r}, network "
            f"{next(iter(own), '-')!r}); name the architecture that the file was trained with"
        )
    return Transfer(tuple(copied), skipped)
