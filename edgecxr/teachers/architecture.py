"""Networks by name: any timm or torchvision classifier, on gray films in [0, 1], with as many outputs as asked for."""

import difflib
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn

from edgecxr.errors import StageError
from edgecxr.teachers import covid_densenet  # noqa: F401  (its networks join timm's registry)
from edgecxr.teachers.imagenet import timm_weights, torchvision_weights
from edgecxr.teachers.sizes import require_size
from edgecxr.teachers.weights import read_weights, require_most, transfer_weights

__all__ = ["Network", "build", "classifier_name", "head_parameters", "known_architecture"]

GRAY_MEAN, GRAY_STD = 0.5, 0.25  # of a network that starts from random weights
LIBRARIES = ("timm", "torchvision")


class Network(nn.Module):
    """A classifier `body` behind the normalization that it was trained with.

    forward: (N, 1, S, S) float32 in [0, 1] -> (N, C) logits. `mean` and `std` are on that scale, one per input channel
    of the body, over which the film is repeated.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, body: nn.Module, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.body = body
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.body((images - self.mean) / self.std)
        return logits


def build(
    name: str, classes: int, channels: int = 1, pretrained: str | Path | None = None, *, size: int | None = None
) -> Network:
    """The architecture `name` with `classes` outputs, ready to train on gray films.

    `name` is "timm:resnet18", "torchvision:resnet18", or bare (timm, to which ours belong: "covid_densenet").
    `pretrained` is "imagenet" (the library's own weights, see `teachers.imagenet`) or the path of a weight file of the
    same architecture, of which all but the classifier must fit; one with the library's ImageNet classes is normalized
    as the library's own. `size` is the side of the films, where it is known. Raises StageError for a name or file that
    is not there, a file of another architecture, and for films that are too small for the architecture.
    """
    try:
        known_architecture(name)
    except ValueError as error:
        raise StageError(str(error)) from None
    library, _, model = name.rpartition(":")
    imagenet = pretrained == "imagenet"
    network = (_torchvision if library == "torchvision" else _timm)(model, classes, channels, imagenet)
    if pretrained is not None and not imagenet:
        _start(network, read_weights(pretrained), library, model)
    if size is not None:
        require_size(network, size, name)
    return network


def known_architecture(name: str) -> str:
    """`name`, where `build` has an architecture of that name; else ValueError, with the nearest there is."""
    library, _, model = name.rpartition(":")
    if library not in ("", *LIBRARIES):
        raise ValueError(f"architecture {name!r} names the library {library!r}; wanted timm: or torchvision:")
    known = _torchvision_names() if library == "torchvision" else timm.list_models() + timm.list_pretrained()
    if model not in known:
        raise ValueError(f"no architecture {model!r} in {library or 'timm'}; {_nearest(model, known)}")
    return name


def _start(network: Network, state: dict[str, Tensor], library: str, model: str) -> None:
    """Put the weights of a file into the network."""
    bare = not any(key.startswith("body.") for key in state)
    named = {f"body.{key}": value for key, value in state.items()} if bare else state
    classifier = classifier_name(network)
    require_most(transfer_weights(named, network), named, network, classifier)
    rows = named.get(f"{classifier}.weight")
    published = _published_statistics(library, model, 0 if rows is None else len(rows)) if bare else None
    if published is not None:
        channels = network.mean.shape[1]
        for own, values in zip((network.mean, network.std), published, strict=True):
            own.copy_(torch.tensor(_fit(values, channels)).view(1, -1, 1, 1))


def _published_statistics(library: str, model: str, classes: int) -> tuple[Any, Any] | None:
    """Mean and std that go with the library's own weights, where those have as many classes."""
    if library == "torchvision":
        best = torchvision.models.get_model_weights(model).DEFAULT
        found = best.transforms()
        return (found.mean, found.std) if classes == len(best.meta.get("categories", ())) else None
    config = timm.get_pretrained_cfg(model)
    return (config.mean, config.std) if config is not None and classes == config.num_classes else None


def classifier_name(module: nn.Module) -> str | None:
    """Name of the last linear layer, or convolution if there is none: the classifier. None where there is neither."""
    linear = [name for name, part in module.named_modules() if isinstance(part, nn.Linear)]
    convolution = [name for name, part in module.named_modules() if isinstance(part, nn.Conv2d)]
    return next(reversed(linear or convolution), None)


def head_parameters(module: nn.Module) -> set[str]:
    """Names of the parameters of the classifier."""
    layer = classifier_name(module)
    return {name for name, _ in module.named_parameters() if name.rpartition(".")[0] == layer}


def _timm(model: str, classes: int, channels: int, imagenet: bool) -> Network:
    overlay = {"file": str(timm_weights(model))} if imagenet else None
    options: dict[str, Any] = {"in_chans": channels, "num_classes": classes}
    body = timm.create_model(model, pretrained=imagenet, pretrained_cfg_overlay=overlay, **options)
    if not imagenet:
        return Network(body, [GRAY_MEAN] * channels, [GRAY_STD] * channels)
    config = body.pretrained_cfg
    return Network(body, _fit(config["mean"], channels), _fit(config["std"], channels))


def _torchvision_names() -> list[str]:
    names: list[str] = torchvision.models.list_models(module=torchvision.models)
    return names


def _torchvision(model: str, classes: int, channels: int, imagenet: bool) -> Network:
    options: dict[str, Any] = {"init_weights": True} if model in ("googlenet", "inception_v3") else {}
    if options:
        options["aux_logits"] = False
    body = torchvision.models.get_model(model, weights=None, num_classes=classes, **options)
    mean, std = [GRAY_MEAN], [GRAY_STD]
    if imagenet:
        path, best = torchvision_weights(model)
        state = read_weights(path)
        require_most(transfer_weights(state, body), state, body, classifier_name(body))
        mean, std = list(best.transforms().mean), list(best.transforms().std)
    if channels != 3:
        _adapt_input(body, channels)
    return Network(body, _fit(mean, channels), _fit(std, channels))


def _adapt_input(body: nn.Module, channels: int) -> None:
    """Replace the first convolution by one of `channels` inputs: the mean weight, scaled to the same response."""
    name, first = next((name, part) for name, part in body.named_modules() if isinstance(part, nn.Conv2d))
    if first.groups != 1:
        raise StageError(f"the first convolution {name!r} is grouped and cannot be adapted; use channels: 3")
    adapted = nn.Conv2d(channels, first.out_channels, first.kernel_size, first.stride, first.padding)  # type: ignore[arg-type]
    adapted.dilation, adapted.padding_mode = first.dilation, first.padding_mode
    adapted.weight = nn.Parameter(first.weight.detach().sum(dim=1, keepdim=True).repeat(1, channels, 1, 1) / channels)
    adapted.bias = first.bias
    parent, _, leaf = name.rpartition(".")
    setattr(body.get_submodule(parent), leaf, adapted)


def _fit(values: Any, channels: int) -> list[float]:
    """Per-channel statistics for `channels` inputs: as they are, or their average."""
    known = [float(value) for value in values]
    return known if len(known) == channels else [sum(known) / len(known)] * channels


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=4, cutoff=0.5)
    return f"the nearest names are {', '.join(close)}" if close else "timm.list_models() shows the names"
