import csv

import imagecodecs
import numpy as np
import pytest

from edgecxr.merging.duplicates import HAMMING, _bits, find_duplicates, thumbnails
from edgecxr.phantom import chest


def seen(paths):
    steps = []
    films, refused = thumbnails(paths, workers=2, step=steps.append)
    assert steps == [path.name for path in paths]
    assert refused == {}
    return films


def test_the_hash_is_the_definition(tmp_path):
    film = np.random.default_rng(0).integers(0, 255, (1, 64, 64)).astype(np.uint8)
    place = np.arange(64)
    waves = np.cos(np.pi * np.outer(np.arange(8), 2 * place + 1) / 128)  # DCT-II
    low = (waves @ film[0].astype(float) @ waves.T).ravel()
    assert (_bits(film)[0] == (low > np.median(low))).all()


def test_pairs_are_found_across_blocks_and_none_beside(monkeypatch):
    generator = np.random.default_rng(1)
    films = generator.integers(0, 255, (40, 64, 64)).astype(np.uint8)
    films[33] = np.clip(films[2].astype(int) + 3, 0, 255)
    films[39] = films[2]
    monkeypatch.setattr("edgecxr.merging.duplicates.ROWS", 7)
    monkeypatch.setattr("edgecxr.merging.duplicates.PAIRS", 1)
    pairs = find_duplicates(films)
    assert [(pair.first, pair.second) for pair in pairs] == [(2, 33), (2, 39), (33, 39)]
    assert all(pair.hamming <= HAMMING and pair.correlation > 0.99 for pair in pairs)


def test_a_phantom_is_known_again_in_another_format_size_and_window(tmp_path):
    paths = []
    for seed in range(12):
        film = chest(seed, ("covid", "normal", "pneumonia")[seed % 3], 256).pixels
        low, high = np.percentile(film, (2, 98))
        gray = np.rint(np.clip((film - low) / (high - low), 0, 1) * 255).astype(np.uint8)
        (tmp_path / f"{seed}.png").write_bytes(imagecodecs.png_encode(film))
        (tmp_path / f"{seed}.jpg").write_bytes(imagecodecs.jpeg8_encode(gray[::2, ::2].copy(), level=70))
        paths += [tmp_path / f"{seed}.png", tmp_path / f"{seed}.jpg"]
    pairs = find_duplicates(seen(paths))
    assert [(pair.first, pair.second) for pair in pairs] == [(number, number + 1) for number in range(0, 24, 2)]


@pytest.mark.shared_data
def test_real_films_of_different_people_are_told_apart(shared_films):
    """Of these films one pair is one film of two published cases, and one film stands twice for one patient."""
    with open(shared_films / "labels.csv", newline="") as file:
        names = [row["file"] for row in csv.DictReader(file)]
    wanted = {
        "images/covid_062.jpg",
        "images/covid_064.jpg",
        "images/nih_00002658_001.jpg",
        "images/nih_00002658_002.jpg",
    }
    names = [name for number, name in enumerate(names) if number % 8 == 0 or name in wanted]
    pairs = find_duplicates(seen([shared_films / name for name in names]))
    assert {frozenset((names[pair.first], names[pair.second])) for pair in pairs} == {
        frozenset(("images/covid_062.jpg", "images/covid_064.jpg")),
        frozenset(("images/nih_00002658_001.jpg", "images/nih_00002658_002.jpg")),
    }
