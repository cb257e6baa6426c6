"""ImageNet weights of timm and torchvision: those that lie on this machine, or else the libraries' own files, fetched.

`pretrained: imagenet` asks for them in so many words, so they are downloaded where there is a network, once, with a
line that says what comes from where. ``HF_HUB_OFFLINE=1`` forbids it, for both libraries. What is fetched is data:
safetensors, or a `torch.save` file that is read with `weights_only`.
"""

import os
import sys
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import timm
import torch
import torchvision
from huggingface_hub import hf_hub_download, try_to_load_from_cache

from edgecxr.errors import StageError

__all__ = ["timm_weights", "torchvision_weights"]

HUB = "https://huggingface.co"
FILE = "model.safetensors"
OFFLINE = "HF_HUB_OFFLINE"
PATIENCE_S = 20  # for a server that does not answer


def timm_weights(model: str) -> Path:
    """The file of timm's default weights of `model`. Raises StageError where it is not and cannot be fetched."""
    config = timm.get_pretrained_cfg(model)
    repository, url = (config.hf_hub_id, config.url) if config is not None else (None, None)
    place = _checkpoints() / (Path(url).name if url else f"{model}.safetensors")
    found = [path for path in (place, _checkpoints() / f"{model}.safetensors") if path.is_file()]
    if repository:
        cached = [try_to_load_from_cache(repository, file) for file in (FILE, "pytorch_model.bin")]
        found += [Path(path) for path in cached if isinstance(path, str)]
    if found:
        return found[0]
    if repository:
        return _from_hub(model, repository, _checkpoints() / f"{model}.safetensors")
    if url:
        return _from_url(model, url, place)
    raise StageError(f"timm has no ImageNet weights of {model}; leave pretrained out, or give it a file")


def torchvision_weights(model: str) -> tuple[Path, Any]:
    """The file of torchvision's best weights of `model`, and their record. Raises StageError as `timm_weights` does."""
    best = torchvision.models.get_model_weights(model).DEFAULT
    path = _checkpoints() / Path(best.url).name
    return (path if path.is_file() else _from_url(model, best.url, path)), best


def _checkpoints() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"


def _from_hub(model: str, repository: str, place: Path) -> Path:
    source = f"{HUB}/{repository}/resolve/main/{FILE}"
    if _offline():
        raise _absent(model, source, place, f"{OFFLINE} is set")
    _tell(model, source, "the Hugging Face cache")
    try:
        return Path(hf_hub_download(repository, FILE, etag_timeout=PATIENCE_S))
    except Exception as error:  # its HTTP library has exceptions of its own, another one in each of its versions
        raise _absent(model, source, place, _first_line(error)) from error


def _from_url(model: str, url: str, place: Path) -> Path:
    """Fetch `url` to `place`; the eight digits of torchvision's file names are the beginning of their SHA-256."""
    if _offline():
        raise _absent(model, url, place, f"{OFFLINE} is set")
    digest = place.stem.rpartition("-")[2]
    try:
        with urlopen(Request(url, method="HEAD"), timeout=PATIENCE_S) as answer:
            size = int(answer.headers.get("Content-Length", 0))
        _tell(model, url, str(place), size)
        place.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(place), digest if len(digest) >= 8 else None, progress=False)
    except (URLError, OSError, RuntimeError) as error:
        raise _absent(model, url, place, _first_line(error)) from error
    return place


def _offline() -> bool:
    return os.environ.get(OFFLINE, "").upper() in ("1", "ON", "YES", "TRUE")


def _tell(model: str, source: str, place: str, size: int = 0) -> None:
    much = f" ({size / 1e6:.0f} MB)" if size else ""
    print(f"pretrained: imagenet: fetching {model} from {source}{much} to {place}", file=sys.stderr, flush=True)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _absent(model: str, source: str, place: Path, reason: str) -> StageError:
    return StageError(
        f"pretrained: imagenet asks for weights of {model}, which are not on this machine and cannot be fetched "
        f"({reason}); place {source} at {place}, or give pretrained the path of a file, or leave it out"
    )
