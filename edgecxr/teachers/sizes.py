"""Which film sizes a network takes, asked on PyTorch's meta device: shapes are computed, and nothing else is."""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from edgecxr.errors import StageError

__all__ = ["probe", "require_size"]

LARGEST = 1024  # pixels up to which the smallest size that a network takes is looked for


def probe(module: nn.Module, size: int) -> Tensor:
    """What `module` gives for one gray film of size×size pixels: a meta tensor, which has a shape and no values."""
    tensors = {name: value.to("meta") for name, value in (*module.named_parameters(), *module.named_buffers())}
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            answer: Tensor = functional_call(module, tensors, (torch.zeros(1, 1, size, size, device="meta"),))
    finally:
        module.train(training)
    return answer


def require_size(module: nn.Module, size: int, name: str) -> None:
    """Raise StageError, naming the smallest size, when films of size×size pixels vanish inside the network."""
    fault = _fault(module, size)
    if not fault:
        return
    low, high = size, LARGEST
    if _fault(module, high):
        raise StageError(f"{name} does not take films of {size}×{size} pixels ({fault}); change preprocess.size")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _fault(module, middle) else (low, middle)
    raise StageError(f"{name} needs films of at least {high}×{high} pixels, preprocess.size is {size}; raise it")


def _fault(module: nn.Module, size: int) -> str:
    """What a film of size×size pixels fails with; empty when the network takes it."""
    try:
        probe(module, size)
    except (RuntimeError, ValueError, AssertionError) as error:
        return str(error).splitlines()[0]
    return ""
