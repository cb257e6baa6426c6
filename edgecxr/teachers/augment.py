"""Changes that a film of the same patient could show: pose, exposure, noise. On whole batches, on any device."""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Generator, Tensor
from torch.nn import functional

from edgecxr.spec import Strict

__all__ = ["AugmentSettings", "augment"]

Fraction = Annotated[float, Field(ge=0, le=1)]


class AugmentSettings(Strict):
    """Largest change of each kind; 0 turns it off. Each film draws its own values, uniformly."""

    rotation: Annotated[float, Field(ge=0, le=45, description="degrees either way")] = 10.0
    shift: Annotated[float, Field(ge=0, le=0.5, description="fraction of the side, either way")] = 0.05
    scale: Annotated[float, Field(ge=0, le=0.5, description="0.1 means 0.9 to 1.1 times")] = 0.1
    shear: Annotated[float, Field(ge=0, le=30, description="degrees either way")] = 3.0
    gamma: Annotated[float, Field(ge=0, le=1, description="exponent exp(-g) to exp(g)")] = 0.2
    contrast: Fraction = 0.15
    brightness: Fraction = 0.08
    noise: Annotated[float, Field(ge=0, le=0.5, description="largest standard deviation")] = 0.02
    erase: Annotated[float, Field(ge=0, le=1, description="chance that a rectangle is blacked out")] = 0.0
    flip: Annotated[bool, Field(description="mirror half of the films; off, because the heart has a side")] = False


def augment(images: Tensor, settings: AugmentSettings, generator: Generator) -> Tensor:
    """A changed copy of `images` (N, 1, S, S) float32 in [0, 1]; what is moved in from outside is black.

    Black (exactly 0: border, collimation, padding) stays black. `generator` must be on the device of the images.
    """
    moved = _erase(_move(images, settings, generator), settings, generator)
    return _expose(moved, settings, generator)


def _draw(count: int, limit: float, generator: Generator) -> Tensor:
    """(count,) uniform in [-limit, limit]."""
    return (torch.rand(count, generator=generator, device=generator.device) * 2 - 1) * limit


def _move(images: Tensor, settings: AugmentSettings, generator: Generator) -> Tensor:
    count = len(images)
    angle = _draw(count, math.radians(settings.rotation), generator)
    shear = torch.tan(_draw(count, math.radians(settings.shear), generator))
    scale = 1 / (1 + _draw(count, settings.scale, generator))
    offset = _draw(2 * count, 2 * settings.shift, generator).view(count, 2, 1)  # the side is 2 in grid units
    mirror = torch.ones_like(scale)
    if settings.flip:
        mirror = torch.where(_draw(count, 1, generator) < 0, -1.0, 1.0)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    turn = torch.stack([cos * mirror, shear * cos - sin, sin * mirror, shear * sin + cos], dim=1).view(count, 2, 2)
    grid = functional.affine_grid(torch.cat([turn, offset], dim=2), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _erase(images: Tensor, settings: AugmentSettings, generator: Generator) -> Tensor:
    """Black out one rectangle of 1/8 to 1/3 of the side in a share of the films."""
    if settings.erase == 0:
        return images
    count, side = len(images), images.shape[-1]
    draws = torch.rand(count, 5, 1, generator=generator, device=generator.device)
    extent = side * (1 / 8 + draws[:, 0:2] * (1 / 3 - 1 / 8))
    start = draws[:, 2:4] * (side - extent)
    place = torch.arange(side, device=images.device).view(1, 1, side)
    inside = (place >= start) & (place < start + extent)  # (N, 2, S): rows, columns
    hole = inside[:, 0].unsqueeze(2) & inside[:, 1].unsqueeze(1) & (draws[:, 4:5] < settings.erase)
    return images.masked_fill(hole.unsqueeze(1), 0.0)


def _expose(images: Tensor, settings: AugmentSettings, generator: Generator) -> Tensor:
    count = len(images)
    gamma = torch.exp(_draw(count, settings.gamma, generator)).view(-1, 1, 1, 1)
    gain = 1 + _draw(count, settings.contrast, generator).view(-1, 1, 1, 1)
    offset = _draw(count, settings.brightness, generator).view(-1, 1, 1, 1)
    changed = images.clamp(0, 1)
    if settings.gamma:
        changed = changed.pow(gamma)
    middle = changed.mean(dim=(1, 2, 3), keepdim=True)
    changed = changed.mul(gain).add_(middle * (1 - gain) + offset)
    if settings.noise:
        spread = _draw(count, settings.noise, generator).abs().view(-1, 1, 1, 1)
        changed.add_(torch.randn(images.shape, generator=generator, device=images.device).mul_(spread))
    return changed.clamp_(0, 1).mul_(images > 0)
