"""Pictures that are not frontal chest films: what the refusal gate must catch."""

import itertools
import zlib
from collections.abc import Callable

import numpy as np

from edgecxr.phantom.canvas import Canvas, Field, edge, enlarge
from edgecxr.phantom.exposure import BITS, expose
from edgecxr.radiograph import Radiograph

__all__ = ["OTHER_KINDS", "other"]

TOP = 2**BITS - 1
FINEST = 512


def other(seed: int, kind: str, size: int = 512) -> Radiograph:
    """A 12-bit picture (size, size) uint16 of `kind`, deterministic; radiographs have a window, the rest have none.

    Raises ValueError for a kind outside OTHER_KINDS or a size below 32.
    """
    if kind not in OTHER_KINDS:
        raise ValueError(f"kind {kind!r}: choose one of {', '.join(OTHER_KINDS)}")
    if size < 32:
        raise ValueError(f"size {size}: a phantom needs at least 32 pixels a side")
    generator = np.random.default_rng([seed, zlib.crc32(kind.encode())])
    shift = (generator.uniform(-0.06, 0.06), generator.uniform(-0.06, 0.06))
    tilt, scale = generator.uniform(-8, 8), generator.uniform(0.9, 1.08)
    finest = min(size, FINEST)
    source = f"phantom {kind} {seed}"
    if kind in TISSUES:
        canvas = Canvas.square(finest, shift=shift, degrees=tilt, scale=scale)
        tissue = np.clip(TISSUES[kind](canvas, generator), 0, None)
        return expose(tissue if size == finest else enlarge(tissue, size), generator, source)
    density = PICTURES[kind](Canvas.square(finest), generator)
    density = density if size == finest else enlarge(density, size)
    return Radiograph(np.clip(np.rint(density * np.float32(TOP)), 0, TOP).astype(np.uint16), BITS, source=source)


def _hand(canvas: Canvas, generator: np.random.Generator) -> Field:
    """(S, S) cm: a palm with carpal bones, and five fingers of phalanges."""
    tissue = np.float32(2.5) * canvas.ellipse((0, 0.35), (0.38, 0.42), 0, 0.2)
    tissue = np.maximum(tissue, np.float32(2.5) * canvas.bar((0, 0.6), (0, 1.2), 0.28))
    bone = np.float32(2.0) * canvas.bar((-0.1, 0.82), (-0.12, 1.2), 0.09) + canvas.bar((0.12, 0.82), (0.14, 1.2), 0.06)
    for angle, length in zip((-52, -18, -3, 11, 26), (0.42, 0.66, 0.74, 0.68, 0.52), strict=True):
        aim = np.array([np.sin(np.radians(angle)), -np.cos(np.radians(angle))])
        root = np.array([0.34 * np.sin(np.radians(angle * 1.3)), 0.28 if angle > -40 else 0.45])
        tip = root + aim * length * generator.uniform(0.95, 1.05)
        tissue = np.maximum(tissue, np.float32(2.2) * canvas.bar(tuple(root), tuple(tip), 0.095))
        joints = [-0.42, 0.10, 0.50, 0.78, 0.97]
        for near, far in itertools.pairwise(joints):
            start, end = root + aim * length * (near + 0.03), root + aim * length * (far - 0.03)
            bone = np.maximum(bone, np.float32(1.8) * canvas.bar(tuple(start), tuple(end), 0.048))
    for _ in range(8):
        place = (generator.uniform(-0.20, 0.20), generator.uniform(0.58, 0.76))
        bone = np.maximum(bone, np.float32(1.7) * canvas.ball(place, (0.09, 0.08)))
    field: Field = tissue + bone
    return field


def _hip(canvas: Canvas, generator: np.random.Generator) -> Field:
    """(S, S) cm: a pelvis with iliac wings, sacrum, obturator rings and both femora."""
    tissue = np.float32(20) * canvas.ball((0, 0), (1.05, 1.9))
    bone = np.float32(4.5) * canvas.ball((0, -0.35), (0.20, 0.38)) + np.float32(3) * canvas.ball((0, -0.9), (0.17, 0.3))
    for side in (-1.0, 1.0):
        wing = canvas.ellipse((side * 0.46, -0.36), (0.24, 0.42), side * -28, 0.12)
        bone = np.maximum(bone, np.float32(3.2) * wing)
        ring = canvas.ellipse((side * 0.22, 0.40), (0.20, 0.17), side * 30, 0.1)
        hole = canvas.ellipse((side * 0.22, 0.40), (0.11, 0.085), side * 30, 0.15)
        bone = np.maximum(bone, np.float32(3.4) * (ring - hole))
        head = (side * 0.53, generator.uniform(0.10, 0.14))
        bone = np.maximum(bone, np.float32(5.0) * canvas.ball(head, (0.145, 0.145)))
        bone = np.maximum(bone, np.float32(4.0) * canvas.bar(head, (side * 0.76, 0.30), 0.09))
        bone = np.maximum(bone, np.float32(5.0) * canvas.bar((side * 0.76, 0.26), (side * 0.68, 1.2), 0.105))
    field: Field = tissue + bone
    return field


def _lateral(canvas: Canvas, generator: np.random.Generator) -> Field:
    """(S, S) cm: a chest from the side, sternum to the image's left, spine to its right."""
    tissue = np.float32(26) * canvas.ball((0.03, 0.25), (0.74, 1.45)) + np.float32(9) * canvas.ball(
        (0.1, -0.95), (0.3, 0.5)
    )
    lungs = canvas.ellipse((0.05, -0.05), (0.52, 0.72), 6, 0.06)
    lungs = lungs * edge(np.float32(0.42) + np.float32(0.35) * (canvas.x - np.float32(0.1)) - canvas.y, 0.03)
    heart = canvas.ellipse((-0.20, 0.24), (0.27, 0.27), 25, 0.1)
    curve = np.float32(0.46) + np.float32(0.10) * np.cos(canvas.y * np.float32(1.8))
    column = np.sqrt(np.clip(1 - ((canvas.x - curve) / np.float32(0.10)) ** 2, 0, None))
    bodies = column * (np.float32(3) + np.float32(1.5) * np.clip(2 * np.cos(canvas.y * np.float32(38)), -1, 1))
    slant = np.cos((canvas.y - np.float32(0.5) * canvas.x) * np.float32(34))
    ribs = np.float32(1.4) * edge(slant - np.float32(0.35), 0.4) * canvas.ellipse((0.06, 0), (0.6, 0.85), 6, 0.05)
    arm = np.float32(4) * canvas.bar((0.1, -0.75), (-0.5, -1.2), 0.16) * np.float32(generator.uniform(0.5, 1))
    field: Field = tissue - np.float32(14) * lungs * (1 - np.float32(0.6) * heart) + bodies + ribs + arm
    return field


def _skull(canvas: Canvas, generator: np.random.Generator) -> Field:
    """(S, S) cm: a frontal skull with its vault, orbits, nose, sinuses, teeth and jaw."""
    outer = canvas.ellipse((0, -0.22), (0.60, 0.70), 0, 0.02)
    inner = canvas.ellipse((0, -0.22), (0.54, 0.64), 0, 0.04)
    tissue = (
        np.float32(15) * canvas.ball((0, -0.1), (0.66, 0.95)) + np.float32(5) * (outer - inner) + np.float32(2) * outer
    )
    face = np.float32(4) * canvas.ball((0, 0.30), (0.40, 0.52))
    jaw = np.float32(4) * np.clip(
        canvas.ellipse((0, 0.45), (0.42, 0.42), 0, 0.08) - canvas.ellipse((0, 0.36), (0.34, 0.38), 0, 0.1), 0, 1
    )
    for side in (-1.0, 1.0):
        face -= np.float32(3.5) * canvas.ball((side * 0.22, 0.02), (0.15, generator.uniform(0.12, 0.14)))
        face -= np.float32(2.5) * canvas.ball((side * 0.19, 0.28), (0.11, 0.11))
    face -= np.float32(4) * canvas.ball((0, 0.20), (0.07, 0.15)) + np.float32(2) * canvas.ball((0, -0.15), (0.12, 0.06))
    teeth = edge(np.cos(canvas.x * np.float32(62)), 0.5) * canvas.ellipse((0, 0.52), (0.20, 0.10), 0, 0.1)
    spine = np.float32(5) * canvas.bar((0, 0.6), (0, 1.3), 0.12) + np.float32(8) * canvas.bar((0, 0.8), (0, 1.3), 0.36)
    field: Field = tissue + face * edge(tissue - np.float32(2), 1) + jaw + np.float32(3.5) * teeth + spine
    return field


def _noise(canvas: Canvas, generator: np.random.Generator) -> Field:
    """(S, S) in 0..1: a detector read out without a subject."""
    level, width = generator.uniform(0.2, 0.8), generator.uniform(0.02, 0.12)
    grain = generator.standard_normal(canvas.x.shape, dtype=np.float32)
    field: Field = np.clip(np.float32(level) + np.float32(width) * grain, 0, 1)
    return field


def _page(canvas: Canvas, generator: np.random.Generator) -> Field:
    """(S, S) in 0..1: a scanned letter, dark words on white paper."""
    paper = np.full_like(canvas.x, 0.96)
    size = canvas.size
    pitch = max(4, size // int(generator.integers(26, 40)))
    for top in range(2 * pitch, size - 2 * pitch, pitch):
        if generator.random() < 0.12:
            continue
        left, end = size // 10, int(size * generator.uniform(0.6, 0.9))
        while left < end:
            width = int(pitch * generator.uniform(0.5, 3.0))
            word = paper[top : top + pitch // 2, left : min(left + width, end)]
            word -= np.float32(0.8) * (generator.random(word.shape, dtype=np.float32) > 0.35)
            left += width + max(1, pitch // 3)
    return paper


def _checkerboard(canvas: Canvas, generator: np.random.Generator) -> Field:
    """(S, S) in 0..1: a test pattern of squares."""
    squares = int(generator.integers(6, 20))
    row, column = (np.floor((axis + 1) * squares / 2) for axis in (canvas.y, canvas.x))
    field: Field = (((row + column) % 2) * 0.9 + 0.05).astype(np.float32)
    return field


def _bars(canvas: Canvas, generator: np.random.Generator) -> Field:
    """(S, S) in 0..1: vertical bars of falling brightness over a ramp, as test equipment sends."""
    count = int(generator.integers(6, 12))
    steps = np.floor((canvas.x + 1) * (count / 2)) / count
    field: Field = np.where(canvas.y < 0.4, 1 - steps, (canvas.x + 1) / 2).astype(np.float32)
    return field


def _photo(canvas: Canvas, generator: np.random.Generator) -> Field:
    """(S, S) in 0..1: a snapshot's texture, detail at every scale over a horizon."""
    field = np.float32(0.5) + np.float32(0.25) * edge(canvas.y - np.float32(generator.uniform(-0.4, 0.4)), 0.05)
    for cells in (3, 7, 15, 31):
        field = field + np.float32(0.45 / cells**0.6) * canvas.noise(generator, cells)
    place = (generator.uniform(-0.5, 0.5), generator.uniform(-0.5, 0.5))
    field = field - np.float32(0.4) * canvas.ellipse(place, (0.3, 0.2), generator.uniform(-90, 90), 0.03)
    clipped: Field = np.clip(field, 0, 1)
    return clipped


TISSUES: dict[str, Callable[[Canvas, np.random.Generator], Field]] = {
    "hand": _hand,
    "hip": _hip,
    "lateral": _lateral,
    "skull": _skull,
}
PICTURES: dict[str, Callable[[Canvas, np.random.Generator], Field]] = {
    "noise": _noise,
    "page": _page,
    "checkerboard": _checkerboard,
    "bars": _bars,
    "photo": _photo,
}
OTHER_KINDS = (*TISSUES, *PICTURES)
