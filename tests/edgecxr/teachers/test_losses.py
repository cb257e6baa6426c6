import math

import numpy as np
import pytest
import torch

from edgecxr.errors import StageError
from edgecxr.spec import Head
from edgecxr.teachers.losses import LossSettings, MixedLoss, class_weights, positive_weights

pytestmark = pytest.mark.train
NAN = float("nan")
SOFT = Head(name="s", kind="softmax", classes=("a", "b"))
SIG = Head(name="t", kind="sigmoid", classes=("c", "d"))


def test_class_weights_by_hand():
    labels = np.array([0] * 6 + [1] * 2 + [-1] * 5)
    assert class_weights(labels, 2, 1.0) == pytest.approx([8 / 12, 8 / 4])
    assert class_weights(labels, 2, 0.5) == pytest.approx([math.sqrt(8 / 12), math.sqrt(2)])
    assert class_weights(labels, 2, 0.0) == pytest.approx([1, 1])
    assert class_weights(labels, 3, 1.0) == pytest.approx([8 / 18, 8 / 6, 0])


def test_positive_weights_by_hand():
    targets = np.array([[1, 0, 0], [0, 0, 1], [0, NAN, 1], [0, 1, 1], [0, 0, 1]], dtype=np.float32)
    assert positive_weights(targets, 1.0, 20) == pytest.approx([4, 3, 1 / 4])
    assert positive_weights(targets, 1.0, 2) == pytest.approx([2, 2, 1 / 2])
    assert positive_weights(targets, 0.0, 20) == pytest.approx([1, 1, 1])


def mixed(settings=None, labels=(0, 0, 0, 1), signs=((1, 0), (0, 1), (0, 0), (0, 0))):
    targets = {"s": np.array(labels), "t": np.array(signs, dtype=np.float32)}
    return MixedLoss([SOFT, SIG], targets, settings or LossSettings())


def test_the_loss_by_hand():
    loss = mixed()  # class weights 2/3 and 2, positive weights 3 and 3
    logits = torch.tensor([[math.log(3), 0.0, 0.0, math.log(3)], [0.0, 0.0, 0.0, 0.0]])
    targets = {"s": torch.tensor([0, 1]), "t": torch.tensor([[1.0, 0.0], [NAN, 1.0]])}
    soft = (2 / 3 * -math.log(3 / 4) + 2 * math.log(2)) / (2 / 3 + 2)
    sig = (3 * math.log(2) + -math.log(1 / 4) + 3 * math.log(2)) / 3
    assert loss(logits, targets).item() == pytest.approx(soft + sig, rel=1e-6)


def test_head_weights_scale_their_head():
    targets = {"s": torch.tensor([0]), "t": torch.tensor([[1.0, 0.0]])}
    logits = torch.tensor([[1.0, -1.0, 2.0, 0.5]])
    alone = [mixed(LossSettings(head_weights=weights))(logits, targets).item() for weights in ({"t": 0}, {"s": 0})]
    both = mixed(LossSettings(head_weights={"s": 2.0}))(logits, targets).item()
    assert both == pytest.approx(2 * alone[0] + alone[1])


def test_unlabelled_entries_have_no_gradient():
    logits = torch.zeros(3, 4, requires_grad=True)
    targets = {"s": torch.tensor([-1, 0, -1]), "t": torch.tensor([[NAN, NAN], [NAN, 1.0], [NAN, NAN]])}
    mixed()(logits, targets).backward()
    touched = logits.grad != 0
    assert touched.tolist() == [[False] * 4, [True, True, False, True], [False] * 4]


def test_a_batch_without_labels_costs_nothing():
    logits = torch.ones(2, 4, requires_grad=True)
    loss = mixed()(logits, {"s": torch.tensor([-1, -1]), "t": torch.full((2, 2), NAN)})
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


def test_smoothing_keeps_a_certain_answer_from_being_free():
    targets = {"s": torch.tensor([0]), "t": torch.tensor([[1.0, 0.0]])}
    sure = torch.tensor([[30.0, -30.0, 30.0, -30.0]])
    assert mixed()(sure, targets).item() == pytest.approx(0, abs=1e-6)
    assert mixed(LossSettings(smoothing=0.1))(sure, targets).item() > 1


def test_a_weight_for_a_head_that_is_not_there_is_refused():
    with pytest.raises(StageError, match=r"head_weights names \['x'\]; the heads are \['s', 't'\]"):
        mixed(LossSettings(head_weights={"x": 1.0}))
