"""Small films that a small network learns in seconds."""

from importlib.util import find_spec

import numpy as np
import pytest

collect_ignore_glob = [] if find_spec("torch") else ["test_*.py"]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def heads():
    """A softmax head of three classes and a sigmoid head of two."""
    from edgecxr.spec import Head

    return (
        Head(name="diagnosis", kind="softmax", classes=("normal", "covid", "pneumonia"), reference="normal"),
        Head(name="signs", kind="sigmoid", classes=("effusion", "mass")),
    )


@pytest.fixture(scope="session")
def make_samples():
    """make_samples(count, seed): films of 32 px whose bright corner tells the class; some labels are missing."""
    from edgecxr.teachers.samples import Samples

    def make(count, seed=0):
        chance = np.random.default_rng(seed)
        labels = chance.integers(0, 3, count)
        labels[:3] = (0, 1, 2)
        signs = chance.integers(0, 2, (count, 2)).astype(np.float32)
        signs[:2] = ((0, 1), (1, 0))
        images = (0.2 * chance.random((count, 1, 32, 32))).astype(np.float16)
        for row, label in enumerate(labels):
            images[row, 0, 10 * label : 10 * label + 8, 4:28] += 0.6
            images[row, 0, 8:24, 24:30] += 0.2 * signs[row, 0]
        labels[3], signs[4, 1] = -1, np.nan
        return Samples(images, {"diagnosis": labels, "signs": signs})

    return make
