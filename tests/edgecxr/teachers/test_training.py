import json

import numpy as np
import pytest
import torch

from edgecxr.errors import StageError
from edgecxr.teachers.architecture import build
from edgecxr.teachers.augment import AugmentSettings
from edgecxr.teachers.compute import forward
from edgecxr.teachers.losses import LossSettings
from edgecxr.teachers.samples import Samples
from edgecxr.teachers.training import TrainSettings, train
from edgecxr.teachers.weights import read_weights

pytestmark = pytest.mark.train
STILL = AugmentSettings(rotation=2, shift=0, scale=0, shear=0, gamma=0, contrast=0, brightness=0)
QUICK = TrainSettings(epochs=4, batch=16, learning_rate=3e-3, average=0.8, augment=STILL, device="cpu", autocast="off")


class Stopped(Exception):
    pass


def network(seed=0):
    torch.manual_seed(seed)
    return build("test_resnet", 5)


def weights(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def samples(make_samples):
    return make_samples(96, 0), make_samples(48, 1)


def test_a_network_learns_what_can_be_learned(samples, heads, tmp_path):
    module = network()
    seen = []
    settings = QUICK.model_copy(update={"epochs": 8})
    result = train(module, samples, heads, settings, tmp_path, progress=lambda *shown: seen.append(shown))
    assert result.best > 0.8
    assert result.best == max(record["validation_auroc"] for record in result.history)
    assert result.history[result.best_epoch - 1]["score"] == result.best
    assert json.loads((tmp_path / "history.json").read_text()) == list(result.history)
    assert same(weights(module), read_weights(tmp_path / "weights.safetensors", ()))
    assert seen[-1][:2] == (48, 48)
    assert "at best" in seen[-1][2]


@pytest.mark.parametrize("changes", [{}, {"mixup": 0.4, "average": 0.0}], ids=["average", "mixup"])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(samples, heads, tmp_path, changes):
    settings = QUICK.model_copy(update=changes)
    whole, parts = network(), network()
    wanted = train(whole, samples, heads, settings, tmp_path / "whole")

    def stop(done, total, text):
        if done == 14:  # in the third epoch of six steps
            raise Stopped(f"step {done}")

    with pytest.raises(Stopped, match="step 14"):
        train(parts, samples, heads, settings, tmp_path / "parts", progress=stop)
    assert len(json.loads((tmp_path / "parts" / "history.json").read_text())) == 2
    fresh = network()
    torch.rand(7)  # the state of the global generator must not matter
    assert train(fresh, samples, heads, settings, tmp_path / "parts") == wanted
    assert same(weights(fresh), weights(whole))
    last = [torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["module"] for name in ("whole", "parts")]
    assert same(*last)


def test_a_finished_run_is_not_trained_again(samples, heads, tmp_path):
    settings = QUICK.model_copy(update={"epochs": 1})
    first = train(network(), samples, heads, settings, tmp_path)
    written = (tmp_path / "checkpoint.pt").stat().st_mtime_ns
    assert train(network(), samples, heads, settings, tmp_path) == first
    assert (tmp_path / "checkpoint.pt").stat().st_mtime_ns == written


@pytest.mark.parametrize("other", ["settings", "weights", "labels"])
def test_another_run_in_the_folder_is_refused(samples, heads, tmp_path, other):
    settings = QUICK.model_copy(update={"epochs": 1})
    train(network(), samples, heads, settings, tmp_path)
    module = network(1 if other == "weights" else 0)
    if other == "settings":
        settings = settings.model_copy(update={"learning_rate": 1e-4})
    if other == "labels":
        samples[0].targets["diagnosis"][5] = (samples[0].targets["diagnosis"][5] + 1) % 3
    with pytest.raises(StageError, match="of a run with other settings, films or initial weights"):
        train(module, samples, heads, settings, tmp_path)


def test_it_stops_when_nothing_improves(samples, heads, tmp_path):
    settings = QUICK.model_copy(
        update={"epochs": 20, "patience": 2, "learning_rate": 1e-12, "average": 0.0, "metric": "loss"}
    )
    module = network()
    for part in module.modules():
        part.momentum = 0.0 if isinstance(part, torch.nn.BatchNorm2d) else getattr(part, "momentum", None)
    result = train(module, samples, heads, settings, tmp_path)
    assert result.stopped_early
    assert len(result.history) == result.best_epoch + 2


def test_a_loss_that_is_not_a_number_stops_with_epoch_and_rate(samples, heads, tmp_path):
    module = network()
    module.body.fc.weight.data[0, 0] = float("nan")
    with pytest.raises(
        StageError, match=r"the loss became nan in epoch 1 at learning rate 0\.\d+; lower learning_rate"
    ):
        train(module, samples, heads, QUICK, tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_a_body_rate_of_zero_trains_the_head_only(samples, heads, tmp_path):
    module = network()
    before = weights(module)
    train(module, samples, heads, QUICK.model_copy(update={"epochs": 1, "body_learning_rate": 0.0}), tmp_path)
    moved = {name for name, value in module.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {"body.fc.weight", "body.fc.bias"}
    assert {name for name, weight in module.named_parameters() if weight.requires_grad} == moved  # none to clip by


def test_the_global_generator_is_left_alone(samples, heads, tmp_path):
    state = torch.random.get_rng_state()
    train(network_without_seeding(state), samples, heads, QUICK.model_copy(update={"epochs": 1}), tmp_path)
    assert torch.equal(torch.random.get_rng_state(), state)


def network_without_seeding(state):
    module = build("test_resnet", 5)
    torch.random.set_rng_state(state)
    return module


def test_bfloat16_reaches_the_same_place(samples, heads, tmp_path):
    settings = QUICK.model_copy(update={"epochs": 8, "autocast": "auto"})
    assert train(network(), samples, heads, settings, tmp_path).best > 0.75


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda images, targets: (images[:1], {k: v[:1] for k, v in targets.items()}),
            "1 training films; wanted at least 2",
        ),
        (lambda images, targets: (images * 255, targets), r"training films range from \S+ to \d+; wanted \[0, 1\]"),
        (
            lambda images, targets: (images, {**targets, "diagnosis": targets["diagnosis"] * 0}),
            "no training film .* covid",
        ),
        (lambda images, targets: (images, {**targets, "signs": targets["signs"] * 0}), "both kinds of effusion, mass"),
        (
            lambda images, targets: (images, {**targets, "signs": targets["signs"][:, :1]}),
            r"'signs' are \(96, 1\); wanted",
        ),
    ],
    ids=["too few", "range", "class", "sign", "shape"],
)
def test_hopeless_samples_are_refused(samples, heads, tmp_path, change, message):
    broken = Samples(*change(samples[0].images, dict(samples[0].targets)))
    with pytest.raises(StageError, match=message):
        train(network(), (broken, samples[1]), heads, QUICK, tmp_path)


def test_validation_without_labels_is_refused(samples, heads, tmp_path):
    targets = {
        name: np.full_like(value, -1 if value.ndim == 1 else np.nan) for name, value in samples[1].targets.items()
    }
    with pytest.raises(StageError, match="the validation auroc is nan"):
        train(network(), (samples[0], Samples(samples[1].images, targets)), heads, QUICK, tmp_path)


def test_balanced_classes_raise_the_share_of_a_rare_class(samples, heads, tmp_path):
    rare = samples[0].targets["diagnosis"] != 1
    rare[np.flatnonzero(~rare)[:3]] = True
    few = Samples(samples[0].images[rare], {name: value[rare] for name, value in samples[0].targets.items()})
    share = []
    for balance in (0.0, 1.0):
        settings = QUICK.model_copy(update={"epochs": 3, "loss": LossSettings(balance=balance)})
        module = network()
        train(module, (few, samples[1]), heads, settings, tmp_path / str(balance))
        share.append(forward(module, samples[1].images, 16)[:, :3].softmax(dim=1)[:, 1].mean().item())
    assert share[1] > share[0]
