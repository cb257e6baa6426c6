"""A schematic thorax as the tissue that X-rays cross: every part is a path length in centimetres of water."""

from dataclasses import dataclass

import numpy as np

from edgecxr.phantom.canvas import Canvas, Field, edge

__all__ = ["Body", "Thorax", "draw_body", "draw_thorax"]

RIGHT, LEFT = -1.0, 1.0  # the patient's right lung lies on the image's left


@dataclass(frozen=True)
class Body:
    """The proportions of one patient, drawn from the seed; lengths in canvas units (the film is 2 wide)."""

    width: float  # half width of the rib cage at its base
    apex: float  # y of the top of the lungs
    base: float  # y of the lowest lung
    dome: float  # height of the diaphragm's dome
    heart: float  # half width of the heart
    spacing: float  # from rib to rib
    bulk: float  # thickness of the body, cm
    vessels: float  # strength of the vascular markings


@dataclass(frozen=True)
class Thorax:
    """What the beam crosses: `tissue` without the lungs, and how much air each lung takes away from it."""

    tissue: Field  # (S, S) cm of water
    air: Field  # (S, S) cm of water replaced by air in healthy lungs, 0 outside of them
    lateral: Field  # (S, S) 0 at the midline, 1 at the chest wall, beyond outside
    depth: Field  # (S, S) 0 at the lungs' apex, 1 at their base


def draw_body(generator: np.random.Generator) -> Body:
    """Proportions of one patient."""
    uniform = generator.uniform
    return Body(
        width=uniform(0.66, 0.78),
        apex=uniform(-0.78, -0.70),
        base=uniform(0.60, 0.78),
        dome=uniform(0.10, 0.20),
        heart=uniform(0.27, 0.37),
        spacing=uniform(0.125, 0.150),
        bulk=uniform(17, 23),
        vessels=uniform(0.5, 1.2),
    )


def draw_thorax(canvas: Canvas, body: Body, generator: np.random.Generator) -> Thorax:
    """A frontal thorax without a finding: lungs, heart, bones and soft tissue."""
    side = np.abs(canvas.x)
    depth = (canvas.y - np.float32(body.apex)) / np.float32(body.base - body.apex)
    rise = np.float32(1) - np.clip(depth, 0, 1)
    wall = np.float32(body.width) * np.sqrt(np.clip(np.float32(1.001) - rise * rise * np.sqrt(rise), 0.001, None))
    lateral = side / wall
    lungs = _lungs(canvas, body, wall, depth)
    heart = _heart(canvas, body)
    air = lungs * (np.float32(1) - heart) * (np.float32(3.0) + np.float32(6.0) * _chord(lateral))
    air *= np.float32(1) - _vessels(canvas, body, generator)
    tissue = _soft_tissue(canvas, body) + np.float32(2.2) * heart + _spine(canvas, body)
    tissue += _ribs(canvas, body, wall) + _clavicles(canvas) + _midline(canvas)
    return Thorax(tissue, air, lateral, depth)


def _chord(position: Field) -> Field:
    """(S, S) path through a unit circle at `position` from its centre: lungs thin out towards the chest wall."""
    chord: Field = np.sqrt(np.clip(np.float32(1) - position * position, 0, None))
    return chord


def _lungs(canvas: Canvas, body: Body, wall: Field, depth: Field) -> Field:
    """(S, S) in 0..1: inside the rib cage, outside the mediastinum, above the diaphragm."""
    side = np.abs(canvas.x)
    mediastinum = np.float32(0.11) + np.float32(0.14) * np.exp(-np.clip(depth, 0, None) / np.float32(0.09))
    higher = np.where(canvas.x < 0, np.float32(0.05), np.float32(0))  # the liver lifts the patient's right dome
    across = (side - np.float32(0.5 * body.width)) / np.float32(0.60 * body.width)
    floor = np.float32(body.base) - higher - np.float32(body.dome) * (np.float32(1) - across * across)
    inside = edge(wall - side, 0.02) * edge(side - mediastinum, 0.03) * edge(floor - canvas.y, 0.02)
    return inside


def _heart(canvas: Canvas, body: Body) -> Field:
    """(S, S) in 0..1: the cardiac shadow with its apex to the image's right, the aortic knob and the hila."""
    ventricle = canvas.ellipse((0.13, body.base - 0.30), (body.heart * 1.15, body.heart * 0.80), 34, 0.10)
    atrium = canvas.ellipse((-0.06, body.base - 0.33), (0.20, 0.30), 0, 0.12)
    knob = canvas.ellipse((0.07, body.apex + 0.46), (0.10, 0.13), 8, 0.2)
    hila = np.float32(0.30) * (
        canvas.ellipse((-0.19, -0.06), (0.10, 0.18), 12, 0.7) + canvas.ellipse((0.20, -0.10), (0.10, 0.17), -12, 0.7)
    )
    shadow: Field = np.maximum(np.maximum(ventricle, atrium), np.maximum(knob, hila))
    return shadow


def _vessels(canvas: Canvas, body: Body, generator: np.random.Generator) -> Field:
    """(S, S) 0 .. about 0.35: branching markings that thin out away from the hila."""
    marks = np.zeros_like(canvas.x)
    for side in (RIGHT, LEFT):
        for _ in range(7):
            angle = generator.uniform(-1.25, 1.25)
            length = generator.uniform(0.22, 0.42)
            start = (side * 0.18, -0.05 + 0.1 * angle)
            end = (start[0] + side * length * np.cos(angle), start[1] + 1.2 * length * np.sin(angle))
            marks += np.float32(0.16) * canvas.bar(start, end, generator.uniform(0.007, 0.016))
    reach = np.exp(-((np.abs(canvas.x) - np.float32(0.15)) ** 2 + canvas.y**2) / np.float32(0.16))
    texture = np.float32(0.05) * np.abs(canvas.noise(generator, 40)) + np.float32(0.05) * canvas.noise(generator, 16)
    field: Field = np.clip(np.float32(body.vessels) * (marks + texture * reach), -0.1, 0.4)
    return field


def _soft_tissue(canvas: Canvas, body: Body) -> Field:
    """(S, S) cm: neck, shoulders and trunk, thickest in the middle; denser below the diaphragm."""
    y = canvas.y
    shoulder = np.float32(0.80) * np.sqrt(np.clip((y + np.float32(0.93)) / np.float32(0.42), 0, 1))
    waist = np.float32(0.10) * edge(y + np.float32(0.15), 0.25)
    half = np.float32(0.19) + shoulder - waist
    trunk = np.float32(body.bulk) * _chord(np.clip(np.abs(canvas.x) / half, 0, 1))
    abdomen = np.float32(3.5) * edge(y - np.float32(body.base - 0.05), 0.25)
    bubble = np.float32(2.5) * canvas.ball((0.40, body.base + 0.06), (0.16, 0.09))
    field: Field = trunk + np.where(trunk > 0, abdomen - bubble, np.float32(0))
    return field


def _spine(canvas: Canvas, body: Body) -> Field:
    """(S, S) cm: vertebral bodies with their discs, and the spinous processes."""
    column = _chord(np.clip(np.abs(canvas.x) / np.float32(0.085), 0, 1))
    phase = np.cos((canvas.y - np.float32(body.apex)) * np.float32(2 * np.pi / (body.spacing * 0.95)))
    vertebrae = column * (np.float32(1.8) + np.float32(0.6) * np.clip(phase * 3, -1, 1))
    processes = np.float32(1.2) * edge(np.float32(0.015) - np.abs(canvas.x), 0.01) * edge(phase, 0.3)
    bone: Field = vertebrae + processes
    return bone


def _ribs(canvas: Canvas, body: Body, wall: Field) -> Field:
    """(S, S) cm: posterior ribs that run out and down, anterior ribs that run in and down."""
    side = np.abs(canvas.x)
    posterior = canvas.y - np.float32(body.apex) + np.float32(0.20) * side - np.float32(0.62) * side * side
    anterior = canvas.y - np.float32(body.apex) + np.float32(0.75) * side
    inside = edge(wall + np.float32(0.03) - side, 0.02)
    below = edge(np.float32(body.base + 0.25) - canvas.y, 0.15)
    back = _stripes(posterior, body.spacing, 0.42) * edge(side - np.float32(0.06), 0.02)
    front = _stripes(anterior, body.spacing * 1.25, 0.36) * edge(side - np.float32(0.30), 0.08)
    shell = np.float32(1.0) * inside * edge(side - wall + np.float32(0.03), 0.02)  # ribs seen end on, at the wall
    bone: Field = inside * below * (np.float32(1.9) * back + np.float32(0.9) * front) + shell
    return bone


def _stripes(position: Field, spacing: float, share: float) -> Field:
    """(S, S) in 0..1: one band per `spacing`, `share` of it wide, brightest along its two cortical edges."""
    phase = position / np.float32(spacing)
    offset = np.abs(phase - np.floor(phase) - np.float32(0.5)) / np.float32(share / 2)
    band = edge(np.float32(1) - offset, 0.22) * edge(phase, 0.2)
    profile: Field = band * (np.float32(0.65) + np.float32(0.35) * np.clip(offset, 0, 1) ** 4)
    return profile


def _clavicles(canvas: Canvas) -> Field:
    """(S, S) cm: two S-shaped bars from the sternum to the shoulders, and the heads of the arms."""
    side = np.abs(canvas.x)
    course = np.float32(-0.52) - np.float32(0.22) * side + np.float32(0.045) * np.sin(side * np.float32(8.5))
    offset = np.clip(np.abs(canvas.y - course) / np.float32(0.034), 0, 1)
    length = edge(side - np.float32(0.08), 0.02) * edge(np.float32(0.78) - side, 0.03)
    heads = canvas.ball((-0.90, -0.56), (0.13, 0.16)) + canvas.ball((0.90, -0.56), (0.13, 0.16))
    bone: Field = np.float32(1.9) * _chord(offset) * length + np.float32(2.5) * heads
    return bone


def _midline(canvas: Canvas) -> Field:
    """(S, S) cm: the sternum's faint shadow, and the trachea with its two main bronchi as a loss of tissue."""
    sternum = np.float32(0.6) * canvas.ellipse((0, 0.0), (0.09, 0.5), 0, 0.15)
    airway = canvas.bar((0.0, -1.1), (0.0, -0.26), 0.05)
    airway = np.maximum(airway, canvas.bar((0.0, -0.26), (-0.15, -0.10), 0.035))
    airway = np.maximum(airway, canvas.bar((0.0, -0.26), (0.17, -0.13), 0.032))
    field: Field = sternum - np.float32(3.0) * airway
    return field
