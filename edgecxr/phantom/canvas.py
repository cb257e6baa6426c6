"""The plane that phantoms are drawn on: coordinates in [-1, 1], soft shapes and smooth noise, at any pixel size."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Canvas", "Field", "edge", "enlarge"]

Field = NDArray[np.float32]  # (S, S), one value per pixel


def edge(distance: Field, softness: float) -> Field:
    """(S, S) in 0..1: 1 where `distance` is positive, falling to 0 over about twice `softness`."""
    step = np.clip(distance * np.float32(0.5 / softness) + np.float32(0.5), 0, 1)
    smooth: Field = step * step * (np.float32(3) - np.float32(2) * step)
    return smooth


def enlarge(field: Field, size: int) -> Field:
    """(size, size) from a smaller (S, S) by linear interpolation between pixel centres."""
    position = np.clip((np.arange(size) + 0.5) * (field.shape[0] / size) - 0.5, 0, field.shape[0] - 1)
    first = np.minimum(position.astype(np.intp), field.shape[0] - 2)
    part = (position - first).astype(np.float32)
    rows = field[first] * (1 - part)[:, None] + field[first + 1] * part[:, None]
    columns = np.ascontiguousarray(rows.T)
    wide: Field = (columns[first] * (1 - part)[:, None] + columns[first + 1] * part[:, None]).T
    return np.ascontiguousarray(wide)


@dataclass(frozen=True)
class Canvas:
    """Coordinates of S×S pixel centres after a shift, a turn and a scale of the subject."""

    x: Field  # -1 at the image's left edge, 1 at its right
    y: Field  # -1 at the top, 1 at the bottom

    @classmethod
    def square(
        cls, size: int, *, shift: tuple[float, float] = (0, 0), degrees: float = 0, scale: float = 1
    ) -> "Canvas":
        """A canvas of (size, size) pixels whose subject is moved by `shift`, turned clockwise and enlarged."""
        line = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / size) - np.float32(1)
        x, y = line[None, :] - np.float32(shift[0]), line[:, None] - np.float32(shift[1])
        cosine = np.float32(np.cos(np.radians(degrees)) / scale)
        sine = np.float32(np.sin(np.radians(degrees)) / scale)
        return cls(cosine * x + sine * y, cosine * y - sine * x)

    @property
    def size(self) -> int:
        """Side S in pixels."""
        return int(self.x.shape[0])

    def ellipse(
        self, center: tuple[float, float], radii: tuple[float, float], degrees: float = 0, softness: float = 0.05
    ) -> Field:
        """(S, S) in 0..1: a filled ellipse; `softness` is a fraction of its radius."""
        return edge(np.float32(1) - self._radius(center, radii, degrees), softness)

    def ball(self, center: tuple[float, float], radii: tuple[float, float], degrees: float = 0) -> Field:
        """(S, S) in 0..1: path length through a solid ellipsoid, 1 at its centre."""
        squared: Field = self._radius(center, radii, degrees)
        path: Field = np.sqrt(np.clip(np.float32(1) - squared * squared, 0, None))
        return path

    def bar(self, start: tuple[float, float], end: tuple[float, float], width: float) -> Field:
        """(S, S) in 0..1: path length through a round bar of radius `width` from `start` to `end`."""
        along = np.subtract(end, start).astype(np.float32)
        dx, dy = self.x - np.float32(start[0]), self.y - np.float32(start[1])
        part = np.clip((dx * along[0] + dy * along[1]) / np.float32(max(float(along @ along), 1e-9)), 0, 1)
        squared = ((dx - part * along[0]) ** 2 + (dy - part * along[1]) ** 2) / np.float32(width * width)
        path: Field = np.sqrt(np.clip(np.float32(1) - squared, 0, None))
        return path

    def noise(self, generator: np.random.Generator, cells: int) -> Field:
        """(S, S) smooth Gaussian noise, about unit variance, `cells` bumps along a side; the same at every size."""
        weights = generator.standard_normal((cells + 2, cells + 2), dtype=np.float32)
        centers = (np.arange(cells + 2, dtype=np.float32) - np.float32(0.5)) / np.float32(cells)
        pixels = (np.arange(self.size, dtype=np.float32) + np.float32(0.5)) / np.float32(self.size)
        basis = np.exp(-0.5 * ((pixels[:, None] - centers[None, :]) * np.float32(cells / 0.55)) ** 2)
        basis /= np.sqrt((basis**2).sum(axis=1, keepdims=True))
        rows = np.einsum("ik,kl->il", basis, weights)  # not through a threaded BLAS: same bits everywhere, no stalls
        field: Field = np.einsum("il,jl->ij", rows, basis).astype(np.float32)
        return field

    def _radius(self, center: tuple[float, float], radii: tuple[float, float], degrees: float) -> Field:
        """(S, S) distance from `center` in units of the ellipse's own radius."""
        dx, dy = self.x - np.float32(center[0]), self.y - np.float32(center[1])
        cosine, sine = np.float32(np.cos(np.radians(degrees))), np.float32(np.sin(np.radians(degrees)))
        u = (cosine * dx + sine * dy) / np.float32(radii[0])
        v = (cosine * dy - sine * dx) / np.float32(radii[1])
        radius: Field = np.sqrt(u * u + v * v)
        return radius
