import numpy as np
import pytest
import torch

from edgecxr.errors import StageError
from edgecxr.spec import Head
from edgecxr.teachers.architecture import build
from edgecxr.teachers.augment import AugmentSettings
from edgecxr.teachers.losses import LossSettings, MixedLoss
from edgecxr.teachers.samples import Samples
from edgecxr.teachers.sampling import sampled
from edgecxr.teachers.training import TrainSettings, train

pytestmark = pytest.mark.train
DRAWN = AugmentSettings()
STILL = AugmentSettings(rotation=0, shift=0, scale=0, shear=0, gamma=0, contrast=0, brightness=0, noise=0)
THREE = Head(name="diagnosis", kind="softmax", classes=("normal", "covid", "pneumonia"))


@pytest.fixture
def films(make_samples):
    return make_samples(60, 0)


def counts(samples):
    return np.bincount(samples.targets["diagnosis"] + 1, minlength=4).tolist()  # unlabelled first


def test_every_film_of_the_class_is_there_n_times_and_each_copy_differs(films, heads):
    drawn = sampled(films, heads, ({"covid": 17}, None), DRAWN)
    plain, before = counts(drawn), counts(films)
    assert plain == [before[0], before[1], 17 * before[2], before[3]]
    covid = drawn.images[drawn.targets["diagnosis"] == 1].reshape(before[2], 17, -1)
    originals = films.images[films.targets["diagnosis"] == 1].reshape(before[2], -1)
    assert len(np.unique(covid.reshape(-1, covid.shape[-1]), axis=0)) == 17 * before[2]
    distance = np.abs(covid[:, :, None].astype(float) - originals[None, None].astype(float)).mean(-1)
    assert (distance.reshape(before[2], 17, -1).mean(1).argmin(1) == np.arange(before[2])).mean() > 0.5
    assert drawn.settled.tolist() == (drawn.targets["diagnosis"] == 1).tolist()
    assert drawn.images.dtype == films.images.dtype


def test_copies_are_the_same_for_every_network_and_carry_every_label(films, heads):
    one, same = (sampled(films, heads, ({"covid": 3}, None), DRAWN) for _ in range(2))
    np.testing.assert_array_equal(one.images, same.images)
    shown = films.targets["diagnosis"] == 1
    np.testing.assert_array_equal(
        one.targets["signs"][one.settled], np.repeat(films.targets["signs"][shown], 3, axis=0)
    )


def test_without_augmentation_copies_are_the_film(films, heads):
    drawn = sampled(films, heads, ({"effusion": 2, "covid": 4}, None), STILL)
    assert len(drawn) > len(films)
    assert {image.tobytes() for image in drawn.images} == {image.tobytes() for image in films.images}
    effusion = films.targets["signs"][:, 0] == 1
    covid = films.targets["diagnosis"] == 1
    assert len(drawn) == len(films) + 3 * covid.sum() + (effusion & ~covid).sum()


def test_a_copy_is_not_augmented_again_and_no_validation_film_is_copied(heads, make_samples, tmp_path):
    """Copies of training films alone, the same in every epoch: their pixels are seen as they were made."""
    training, validation = make_samples(48, 0), make_samples(24, 1)
    seen: list[set[bytes]] = []

    class Watching(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = build("test_resnet", 5)

        def forward(self, images):
            seen.append({image.numpy().tobytes() for image in images.detach()})
            return self.network(images)

    settings = TrainSettings(
        epochs=2, batch=8, average=0, augment=DRAWN, device="cpu", autocast="off", copies={"covid": 5}
    )
    torch.manual_seed(0)
    train(Watching(), (training, validation), heads, settings, tmp_path)
    covid = training.targets["diagnosis"] == 1
    steps = (len(training) + 4 * int(covid.sum())) // 8
    copies = sampled(training, heads, (settings.copies, None), DRAWN)
    made = {image.astype(np.float32).tobytes() for image in copies.images[copies.settled]}
    unseen = {image.astype(np.float32).tobytes() for image in validation.images}
    calls = len(seen) // 2  # of an epoch: training steps, then validation
    for epoch in (seen[:calls], seen[calls:]):
        learned, validated = set().union(*epoch[:steps]), set().union(*epoch[steps:])
        assert len(made & learned) > 0.9 * len(made)  # the last incomplete batch is left out
        assert validated == unseen
        assert not (learned & unseen)


def test_class_weights_count_copies(films, heads):
    drawn = sampled(films, heads, ({"covid": 17}, None), STILL)
    plain, copied = (MixedLoss(heads, part.targets, LossSettings()).weights_0 for part in (films, drawn))
    assert copied[1] / copied[0] == pytest.approx(plain[1] / plain[0] / 17)


def test_growing_sets_nest(films):
    small, large = (sampled(films, [THREE], ({}, count), DRAWN) for count in (4, 9))
    assert counts(small) == [counts(films)[0], 4, 4, 4]
    assert counts(large)[1:] == [9, 9, 9]
    inside = {image.tobytes() for image in large.images}
    assert all(image.tobytes() in inside for image in small.images)


def test_the_rarest_class_gives_the_measure():
    images = np.random.default_rng(0).random((12, 1, 4, 4)).astype(np.float16)
    labels = np.array([0] * 7 + [1] * 2 + [2] * 3)
    drawn = sampled(Samples(images, {"diagnosis": labels}), [THREE], ({}, "rarest"), DRAWN)
    assert drawn.targets["diagnosis"].tolist() == [0, 0, 1, 1, 2, 2]
    assert drawn.settled is None


def test_limits_come_before_copies(films):
    drawn = sampled(films, [THREE], ({"covid": 17}, 3), DRAWN)
    assert counts(drawn)[1:] == [3, 51, 3]


def test_what_does_not_fit_the_heads_is_refused(films, heads):
    with pytest.raises(
        StageError, match="copies names corona; the classes are normal, covid, pneumonia, effusion, mass"
    ):
        sampled(films, heads, ({"corona": 17}, None), DRAWN)
    with pytest.raises(StageError, match="films_per_class needs one softmax head to count by; there are 0"):
        sampled(films, heads[1:], ({}, 5), DRAWN)
