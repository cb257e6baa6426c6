import json

import pytest
import torch

from edgecxr.errors import StageError
from edgecxr.spec import PreprocessSpec
from edgecxr.teachers.architecture import build
from edgecxr.teachers.augment import AugmentSettings
from edgecxr.teachers.joint import Joint, join, joint_factors, joint_weights
from edgecxr.teachers.teacher import MemberRecord, open_member, write_member
from edgecxr.teachers.training import TrainSettings, train

pytestmark = pytest.mark.train
STILL = AugmentSettings(rotation=0, shift=0, scale=0, shear=0, gamma=0, contrast=0, brightness=0)
QUICK = TrainSettings(epochs=2, batch=16, learning_rate=3e-3, average=0, augment=STILL, device="cpu", autocast="off")


def pair(rate=50.0):
    torch.manual_seed(0)
    return join({name: build("test_resnet", 5) for name in ("one", "other")}, rate)


def test_logits_are_the_weighted_sum_of_the_networks():
    network = pair().eval()
    network.body.theta.data = torch.tensor([0.0, 1.0])
    images = torch.rand(2, 1, 32, 32)
    one, other = (part(images) for part in network.body.networks)
    share = 1 / (1 + torch.e)
    assert joint_weights(network) == pytest.approx({"weight_one": share, "weight_other": 1 - share})
    torch.testing.assert_close(network(images), share * one + (1 - share) * other)


def test_weights_move_while_the_networks_learn_and_are_told(heads, make_samples, tmp_path):
    network = pair()
    result = train(network, (make_samples(96, 0), make_samples(48, 1)), heads, QUICK, tmp_path)
    told = json.loads((tmp_path / "history.json").read_text())
    shares = [(record["weight_one"], record["weight_other"]) for record in told]
    assert all(sum(pair) == pytest.approx(1) for pair in shares)
    assert abs(shares[0][0] - 0.5) > 1e-3
    assert shares[1] != shares[0]
    best = told[result.best_epoch - 1]
    assert joint_weights(network)["weight_one"] == pytest.approx(best["weight_one"])


def test_a_body_rate_of_zero_trains_classifiers_and_weights(heads, make_samples, tmp_path):
    network = pair()
    before = {name: value.clone() for name, value in network.named_parameters()}
    settings = QUICK.model_copy(update={"epochs": 1, "body_learning_rate": 0.0})
    train(network, (make_samples(48, 0), make_samples(48, 1)), heads, settings, tmp_path)
    moved = {name for name, value in network.named_parameters() if not torch.equal(value, before[name])}
    heads_of_both = {f"body.networks.{index}.body.fc.{part}" for index in (0, 1) for part in ("weight", "bias")}
    assert moved == {"body.theta", *heads_of_both}
    assert joint_factors(network) == {"body.theta": 50.0, **dict.fromkeys(heads_of_both, 1.0)}


def test_a_network_by_itself_has_no_weights():
    assert joint_weights(build("test_resnet", 5)) == {}
    assert joint_factors(build("test_resnet", 5)) == {}
    with pytest.raises(StageError, match="1 network to train together; wanted at least two"):
        Joint({"one": build("test_resnet", 5)})


def test_it_is_written_and_opened_like_any_other_teacher(heads, tmp_path):
    torch.manual_seed(1)
    names = ("test_resnet", "resnet10t")
    network = join({name: build(name, 5) for name in names}).eval()
    network.body.theta.data = torch.tensor([0.3, -0.2])
    record = MemberRecord(
        name="both", architecture=" + ".join(names), joint=names, heads=heads, preprocess=PreprocessSpec(size=32)
    )
    write_member(tmp_path, record, network)
    opened = open_member(tmp_path)
    images = torch.rand(3, 1, 32, 32).numpy()
    with torch.inference_mode():
        wanted = network(torch.from_numpy(images)).numpy()
    torch.testing.assert_close(torch.from_numpy(opened.logits(images)), torch.from_numpy(wanted))
    assert joint_weights(opened.module) == pytest.approx(
        {"weight_test_resnet": 0.62245935, "weight_resnet10t": 0.37754065}
    )
