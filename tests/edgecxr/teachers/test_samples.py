import numpy as np
import pytest
import torch

from edgecxr.spec import Head
from edgecxr.teachers.samples import Samples, run_key

pytestmark = pytest.mark.train
HEAD = Head(name="s", kind="softmax", classes=("a", "b"))


def key(images=None, labels=(0, 1, 0), bias=0.0, head=HEAD):
    part = Samples(np.zeros((3, 1, 4, 4)) if images is None else images, {"s": np.array(labels)})
    module = torch.nn.Linear(2, 1)
    torch.nn.init.constant_(module.weight, 1.0)
    torch.nn.init.constant_(module.bias, bias)
    return run_key(module, (part, part), head)


def test_the_key_of_a_run_changes_with_whatever_decides_it():
    keys = [
        key(),
        key(images=np.ones((3, 1, 4, 4))),
        key(labels=(0, 1, 1)),
        key(bias=1.0),
        key(head=HEAD.model_copy(update={"classes": ("a", "c")})),
    ]
    assert len(set(keys)) == len(keys)
    assert key() == keys[0]
