"""What disease does to a phantom: opacities that take air out of the lungs."""

import numpy as np

from edgecxr.phantom.anatomy import Body, Thorax
from edgecxr.phantom.canvas import Canvas, Field, edge

__all__ = ["FINDINGS", "airless"]

FINDINGS = ("normal", "covid", "pneumonia")


def airless(canvas: Canvas, thorax: Thorax, body: Body, finding: str, generator: np.random.Generator) -> Field:
    """(S, S) in 0..1: the share of each lung's air that is gone.

    `pneumonia` is one dense segmental or lobar consolidation, `covid` faint patches on both sides, near the wall and
    low; `normal` lungs may carry a streak of atelectasis, so that not every opacity is a finding.
    """
    if finding == "pneumonia":
        return _consolidation(canvas, body, generator)
    if finding == "covid":
        return _ground_glass(canvas, thorax, body, generator)
    return _streak(canvas, body, generator)


def _ragged(canvas: Canvas, shape: Field, generator: np.random.Generator) -> Field:
    """(S, S) in 0..1: `shape` with the irregular border of a real opacity."""
    rough = np.float32(0.5) * canvas.noise(generator, 9) + np.float32(0.3) * canvas.noise(generator, 22)
    return edge(shape - np.float32(0.5) + np.float32(0.28) * rough, 0.35)


def _height(body: Body, depth: float) -> float:
    """y of a place `depth` of the way (0..1) from the lungs' apex to their base."""
    return body.apex + depth * (body.base - body.apex)


def _consolidation(canvas: Canvas, body: Body, generator: np.random.Generator) -> Field:
    """One dense opacity in one lung; half of them end at a fissure."""
    uniform = generator.uniform
    side = -1.0 if generator.random() < 0.55 else 1.0
    place = (side * uniform(0.24, 0.44), _height(body, uniform(0.28, 0.82)))
    radii = (uniform(0.19, 0.34), uniform(0.18, 0.34))
    shape = canvas.ellipse(place, radii, uniform(-40, 40), 0.5)
    if generator.random() < 0.5:
        fissure = canvas.y - np.float32(place[1]) + np.float32(uniform(-0.2, 0.2)) * canvas.x
        shape = shape * edge(np.float32(np.sign(uniform(-1, 1))) * (fissure + np.float32(0.5 * radii[1])), 0.02)
    lost: Field = np.float32(uniform(0.58, 1.00)) * _ragged(canvas, shape, generator)
    return lost


def _ground_glass(canvas: Canvas, thorax: Thorax, body: Body, generator: np.random.Generator) -> Field:
    """Three to five faint patches in each lung, along the wall and in the lower zones."""
    uniform = generator.uniform
    shape = np.zeros_like(canvas.x)
    for side in (-1.0, 1.0):
        for _ in range(int(generator.integers(2, 5))):
            depth = float(generator.beta(3.2, 1.6)) * 0.92
            wall = body.width * float(np.sqrt(1 - (1 - depth) ** 2))
            place = (side * wall * uniform(0.66, 0.95), _height(body, depth))
            patch = canvas.ellipse(place, (uniform(0.07, 0.15), uniform(0.08, 0.17)), uniform(-30, 30), 0.7)
            shape = np.maximum(shape, np.float32(uniform(0.7, 1)) * patch)
    rim = np.float32(0.55) + np.float32(0.45) * np.clip(thorax.lateral, 0, 1)
    lost: Field = np.float32(uniform(0.32, 0.70)) * _ragged(canvas, shape * rim, generator)
    return lost


def _streak(canvas: Canvas, body: Body, generator: np.random.Generator) -> Field:
    """Most often nothing; now and then a linear atelectasis at a base."""
    if generator.random() > 0.15:
        return np.zeros_like(canvas.x)
    side = -1.0 if generator.random() < 0.5 else 1.0
    low = _height(body, generator.uniform(0.60, 0.80))
    start, end = (side * 0.22, low), (side * generator.uniform(0.40, 0.58), low + generator.uniform(-0.06, 0.06))
    streak = canvas.bar(start, end, generator.uniform(0.015, 0.04))
    lost: Field = np.float32(generator.uniform(0.2, 0.4)) * streak
    return lost
