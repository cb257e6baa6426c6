"""A student so small that it exports and trains in seconds, and its FP32 graph, made once for all export tests."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

if TYPE_CHECKING:
    from edgecxr.export.student import Student

SIZE = 32


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Networks this small gain nothing from threads, and lose much to them on a busy machine."""
    if find_spec("torch"):
        import torch

        torch.set_num_threads(1)


def _tiny(seed: int = 0) -> Student:
    import torch
    from torch import Tensor, nn

    from edgecxr.export.student import Student

    class Backbone(nn.Module):
        """Stem, pooling, one residual block: what the real students are made of."""

        num_features = 16

        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
            self.pool = nn.MaxPool2d(3, 2, 1)
            self.body = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
            self.last = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1, groups=2, bias=False), nn.BatchNorm2d(16))
            self.short = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(8, 16, 1))

        def forward_features(self, images: Tensor) -> Tensor:
            start = self.pool(self.stem(images))
            return torch.relu(self.last(self.body(start)) + self.short(start))

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        student = Student(Backbone(), 3)
        student.train()
        for _ in range(4):  # batch norms with statistics of their own
            student(torch.rand(16, 1, SIZE, SIZE))
        torch.nn.init.normal_(student.head.weight, std=0.5)
    return student.eval()


@pytest.fixture(scope="session")
def tiny() -> Callable[[int], Student]:
    """A new student of 3 classes for 32×32 images, by seed."""
    return _tiny


@pytest.fixture(scope="session")
def tiny_fp32() -> bytes:
    """The FP32 graph of the tiny student of seed 0."""
    from edgecxr.export.to_onnx import to_onnx

    return to_onnx(_tiny(0), SIZE, classes=("a", "b", "c"))


@pytest.fixture(scope="session")
def tiny_images() -> NDArray[np.float32]:
    """24 smooth images (24, 1, 32, 32) in [0, 1]: one bright spot each, on a sloping ground."""
    random = np.random.default_rng(7)
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    centers = random.random((24, 2, 1, 1))
    spots = np.exp(-((rows - centers[:, 0]) ** 2 + (columns - centers[:, 1]) ** 2) / 0.02)
    slope = random.random((24, 1, 1)) * rows * 0.4
    return np.clip(0.1 + slope + 0.6 * spots, 0, 1).astype(np.float32)[:, None]
