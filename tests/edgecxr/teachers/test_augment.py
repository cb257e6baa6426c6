import pytest
import torch

from edgecxr.teachers.augment import AugmentSettings, augment

pytestmark = pytest.mark.train
OFF = {"rotation": 0, "shift": 0, "scale": 0, "shear": 0, "gamma": 0, "contrast": 0, "brightness": 0, "noise": 0}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def films(count=6):
    images = torch.zeros(count, 1, 48, 48)
    images[:, :, 8:40, 12:36] = 0.2 + 0.6 * torch.rand(count, 1, 32, 24, generator=seeded(1))
    return images


def test_everything_off_changes_nothing():
    torch.testing.assert_close(augment(films(), AugmentSettings(**OFF), seeded()), films(), atol=1e-5, rtol=0)


def test_the_seed_decides_and_films_differ():
    settings = AugmentSettings()
    images = films(1).expand(6, -1, -1, -1)
    one, again, other = (augment(images, settings, seeded(seed)) for seed in (3, 3, 4))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert not torch.equal(one[0], one[1])


def test_values_stay_in_range_and_black_stays_black():
    settings = AugmentSettings(**{**OFF, "gamma": 0.5, "contrast": 0.9, "brightness": 0.5, "noise": 0.3})
    images = films()
    changed = augment(images, settings, seeded())
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert (changed[images == 0] == 0).all()
    assert not torch.allclose(changed, images)


def test_a_heart_keeps_its_side_unless_mirroring_is_asked_for():
    images = torch.zeros(64, 1, 32, 32)
    images[:, :, 10:22, 20:28] = 1.0
    sides = [
        (changed[:, :, :, 16:].sum((1, 2, 3)) > changed[:, :, :, :16].sum((1, 2, 3))).float().mean()
        for changed in (augment(images, AugmentSettings(flip=flip), seeded()) for flip in (False, True))
    ]
    assert sides[0] == 1
    assert 0.2 < sides[1] < 0.8


def test_a_shift_moves_by_at_most_its_fraction():
    images = torch.zeros(50, 1, 40, 40)
    images[:, :, 19:21, 19:21] = 1.0
    moved = augment(images, AugmentSettings(**{**OFF, "shift": 0.1}), seeded())
    weight = moved.sum((1, 2, 3))
    rows = (moved * torch.arange(40.0).view(1, 1, 40, 1)).sum((1, 2, 3)) / weight - 19.5
    assert rows.abs().max() <= 4.0 + 1e-3  # 0.1 of 40 pixels
    assert rows.abs().max() > 2.0


def test_a_rotation_turns_by_at_most_its_degrees():
    images = torch.zeros(50, 1, 65, 65)
    images[:, :, 31:34, 60:63] = 1.0  # 29 pixels to the right of the centre
    turned = augment(images, AugmentSettings(**{**OFF, "rotation": 10}), seeded())
    place = torch.arange(65.0) - 32
    weight = turned.sum((1, 2, 3))
    down = (turned * place.view(1, 1, 65, 1)).sum((1, 2, 3)) / weight
    right = (turned * place.view(1, 1, 1, 65)).sum((1, 2, 3)) / weight
    degrees = torch.rad2deg(torch.atan2(down, right))
    assert 5 < degrees.abs().max() <= 10.2
    torch.testing.assert_close(torch.hypot(down, right), torch.full((50,), 29.0), atol=0.3, rtol=0)


def test_erasing_takes_one_rectangle_of_the_share():
    images = torch.ones(200, 1, 48, 48)
    erased = augment(images, AugmentSettings(**{**OFF, "erase": 0.5}), seeded())
    black = (erased < 0.5).float().mean((1, 2, 3))
    assert 0.3 < (black > 0).float().mean() < 0.7
    assert black.max() <= (1 / 3 + 2 / 48) ** 2
