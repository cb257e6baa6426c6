"""Where networks are trained and run: the device, and whether bfloat16 pays there."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgecxr.errors import StageError

__all__ = ["Autocast", "autocast", "forward", "pick_device"]

Autocast = Literal["auto", "off"]


def pick_device(name: str) -> torch.device:
    """The device `name` ("auto": the first CUDA device, else the CPU). Raises StageError when it is absent."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise StageError(f"device {name!r} was asked for and this machine has no CUDA device; use device: auto")
    return torch.device(name)


def autocast(device: torch.device, setting: Autocast) -> AbstractContextManager[None]:
    """bfloat16 autocast where the hardware multiplies in it (CUDA, avx512_bf16, AMX), else nothing."""
    fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_has_bf16()
    if setting == "off" or not fast:
        return nullcontext()
    context: AbstractContextManager[None] = torch.autocast(device.type, dtype=torch.bfloat16)
    return context


def _cpu_has_bf16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def forward(module: nn.Module, images: NDArray[np.floating], batch: int, setting: Autocast = "off") -> Tensor:
    """Logits (N, C) float32 on the CPU of `images` (N, 1, S, S), batch by batch, in evaluation mode."""
    device = next((weight.device for weight in module.parameters()), torch.device("cpu"))
    was_training = module.training
    module.eval()
    parts: list[Tensor] = []
    with torch.inference_mode(), autocast(device, setting):
        for start in range(0, len(images), batch):
            films = torch.from_numpy(np.array(images[start : start + batch], dtype=np.float32)).to(device)
            parts.append(module(films).float().cpu())
    module.train(was_training)
    return torch.cat(parts).clone()
