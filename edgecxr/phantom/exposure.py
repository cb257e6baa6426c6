"""From tissue to stored values: attenuation, quantum noise, the detector's curve, collimation and side markers."""

import numpy as np

from edgecxr.phantom.canvas import Canvas, Field
from edgecxr.radiograph import Radiograph, Window

__all__ = ["BITS", "expose"]

BITS = 12
TOP = 2**BITS - 1
GLYPHS = {"L": ("100", "100", "100", "100", "111"), "R": ("110", "101", "110", "101", "101")}


def expose(tissue: Field, generator: np.random.Generator, source: str) -> Radiograph:
    """A 12-bit film of (S, S) cm of water: bone bright, air dark, with a window and a side marker."""
    uniform = generator.uniform
    level = float(np.mean(tissue[tissue > 1])) + uniform(-2.6, -0.4) * min(
        1, float(tissue.max()) / 20
    )  # automatic exposure follows the patient
    latitude = uniform(2.6, 4.2) * min(1.2, max(0.2, level / 12))  # thin parts are exposed with less contrast range
    dose, gain, offset = uniform(0.6, 1.6), uniform(0.86, 0.98), uniform(0.01, 0.05)
    grain = np.random.default_rng(int(generator.integers(2**62))).standard_normal(tissue.shape, dtype=np.float32)
    noisy = tissue + grain * np.exp(tissue * np.float32(0.075)) * np.float32(0.10 / dose)
    curve = np.float32(1) / (np.float32(1) + np.exp((np.float32(level) - noisy) / np.float32(latitude)))
    shading = np.float32(0.02) * Canvas.square(tissue.shape[0]).noise(generator, 2)
    density = np.float32(offset) + np.float32(gain) * curve + shading * curve
    _mark(density, generator)
    _collimate(density, generator)
    pixels = np.clip(np.rint(density * np.float32(TOP)), 0, TOP).astype(np.uint16)
    window = Window(center=float(round(TOP * uniform(0.47, 0.53))), width=float(round(TOP * uniform(0.84, 1.0))))
    return Radiograph(pixels, BITS, window=window, source=source)


def _mark(density: Field, generator: np.random.Generator) -> None:
    """Set a lead letter in place: L at the image's right, or R at its left, where the shoulder is."""
    letter = "L" if generator.random() < 0.6 else "R"
    across = generator.uniform(0.86, 0.92) if letter == "L" else generator.uniform(0.06, 0.11)
    down = generator.uniform(0.05, 0.12)
    size = density.shape[0]
    step = max(1, size // 128)
    glyph = np.kron(np.array([[mark == "1" for mark in row] for row in GLYPHS[letter]]), np.ones((step, step), bool))
    top, left = int(down * size), int(across * size)
    corner = density[top : top + glyph.shape[0], left : left + glyph.shape[1]]
    corner[glyph[: corner.shape[0], : corner.shape[1]]] = 0.98


def _collimate(density: Field, generator: np.random.Generator) -> None:
    """Black out, in place, what lay outside of the beam; two films in five show it."""
    margins = generator.uniform(0.0, 0.055, size=4)
    if generator.random() > 0.4:
        return
    size = density.shape[0]
    top, bottom, left, right = (int(margin * size) for margin in margins)
    density[:top], density[size - bottom :] = 0, 0
    density[:, :left], density[:, size - right :] = 0, 0
