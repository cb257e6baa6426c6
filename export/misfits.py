"""Pictures for the refusal gate: what must be refused, and altered films that must not be, both from training films.

The misfits are films that nobody should screen as they are (turned, upside down, inverted, cut out, shrunk, half
covered) and pictures of nothing (noise, clouds, phantoms of other body parts). Films mirrored, blurred, noisy, or in
another gradation are still frontal chest films, and `variants` teaches the gate to let them pass.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

from edgecxr.kernels import preprocess
from edgecxr.phantom import OTHER_KINDS, other
from edgecxr.spec import PreprocessSpec

__all__ = ["misfits", "variants"]

Image = NDArray[np.float32]  # (S, S) in [0, 1]
PHANTOMS = 12  # of each other kind


def misfits(films: NDArray[np.floating], spec: PreprocessSpec, seed: int = 0) -> NDArray[np.float32]:
    """(M, S, S) pictures that must be refused, in the range of `spec`.

    `films` (N, S, S) are model inputs of training films in the same range; every ninth becomes one kind of misfit.
    Another ninth of N are noise and clouds, and 12 each are phantoms of other things than a chest.
    """
    random = np.random.default_rng(seed)
    images = _unit(films, spec)
    wrong = [MISFITS[index % len(MISFITS)](image, random) for index, image in enumerate(images)]
    empty = [_nothing(spec.size, index, random) for index in range(max(10, len(images) // len(MISFITS)))]
    phantoms = [other(seed + index, kind, max(64, spec.size)) for kind in OTHER_KINDS for index in range(PHANTOMS)]
    drawn = _unit(preprocess(phantoms, spec)[:, 0], spec)
    return _ranged(np.concatenate([np.stack(wrong), np.stack(empty), drawn]), spec)


def variants(films: NDArray[np.floating], spec: PreprocessSpec, seed: int = 0) -> NDArray[np.float32]:
    """(N, S, S) films (N, S, S) altered as other units would show them; they must not be refused."""
    random = np.random.default_rng(seed)
    images = _unit(films, spec)
    return _ranged(np.stack([VARIANTS[i % len(VARIANTS)](image, random) for i, image in enumerate(images)]), spec)


def _cut(image: Image, share: float, random: np.random.Generator, center: bool = False) -> Image:
    """A square of `share` of the side, from the middle or from a corner, enlarged to the whole."""
    side = max(8, round(len(image) * share))
    spare = len(image) - side
    top, left = (
        (spare // 2, spare // 2) if center else (int(random.integers(2)) * spare, int(random.integers(2)) * spare)
    )
    return _stretch(_enlarge(image[top : top + side, left : left + side], len(image)))


def _enlarge(image: Image, size: int) -> Image:
    grown = zoom(image, size / len(image), order=1, grid_mode=True, mode="nearest")
    return np.asarray(grown[:size, :size], np.float32)


def _shrink(image: Image, random: np.random.Generator) -> Image:
    out = np.zeros_like(image)
    side = round(len(image) * random.uniform(0.3, 0.5))
    small = zoom(
        gaussian_filter(image, 0.5 * len(image) / side), side / len(image), order=1, grid_mode=True, mode="nearest"
    )
    top, left = random.integers(0, len(image) - side, 2)
    out[top : top + len(small), left : left + len(small)] = small
    return out


def _cover(image: Image, random: np.random.Generator) -> Image:
    out: Image = np.array(image, np.float32)
    half = len(image) // 2
    [out[:half], out[half:], out[:, :half], out[:, half:]][int(random.integers(4))][...] = 0
    return out


def _nothing(size: int, index: int, random: np.random.Generator) -> Image:
    """White noise, or clouds of every size."""
    noise = random.normal(size=(size, size))
    return _stretch(noise if index % 3 == 0 else gaussian_filter(noise, size * random.uniform(0.01, 0.15)))


def _stretch(image: NDArray[np.floating]) -> Image:
    """To [0, 1] between the 0.5th and the 99.5th percentile, as the preprocessing chain does."""
    low, high = np.percentile(image, (0.5, 99.5))
    return np.asarray(np.clip((image - low) / max(high - low, 1e-6), 0, 1), np.float32)


def _unit(films: NDArray[np.floating], spec: PreprocessSpec) -> NDArray[np.float32]:
    if films.ndim != 3 or films.shape[1:] != (spec.size, spec.size):
        raise ValueError(f"films of shape {films.shape}: want (N, {spec.size}, {spec.size})")
    scaled = (np.asarray(films, np.float32) - spec.range_low) / (spec.range_high - spec.range_low)
    return np.asarray(np.clip(scaled, 0, 1), np.float32)  # float16 rounds some ends of a range to outside of it


def _ranged(images: NDArray[np.float32], spec: PreprocessSpec) -> NDArray[np.float32]:
    return np.asarray(np.clip(images, 0, 1) * (spec.range_high - spec.range_low) + spec.range_low, np.float32)


Alteration = Callable[[Image, np.random.Generator], Image]
MISFITS: tuple[Alteration, ...] = (
    lambda image, random: 1 - image,
    lambda image, random: np.rot90(image, 1),
    lambda image, random: np.rot90(image, 3),
    lambda image, random: image[::-1],
    lambda image, random: image[::-1, ::-1],
    lambda image, random: _cut(image, random.uniform(0.35, 0.5), random, center=True),
    lambda image, random: _cut(image, random.uniform(0.3, 0.5), random),
    _shrink,
    _cover,
)
VARIANTS: tuple[Alteration, ...] = (
    lambda image, random: image[:, ::-1],
    lambda image, random: np.asarray(image ** np.float32(random.uniform(0.5, 2)), np.float32),
    lambda image, random: np.asarray(gaussian_filter(image, len(image) * random.uniform(0.002, 0.015)), np.float32),
    lambda image, random: np.asarray(
        image + random.normal(scale=random.uniform(0.01, 0.04), size=image.shape), np.float32
    ),
)
