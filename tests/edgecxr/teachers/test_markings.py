"""The words test where the truth is known: networks taught to look at a burnt-in marker, or at the lungs."""

import numpy as np
import pytest
import torch
from torch import nn

from edgecxr.kernels import preprocess
from edgecxr.phantom import chest
from edgecxr.spec import Box, Head, PreprocessSpec
from edgecxr.teachers.explained import ExplainedNetwork
from edgecxr.teachers.lrp import Canonical
from edgecxr.teachers.markings import find_markings, painted_over, share
from edgecxr.teachers.subject import Subject

SIZE = 64
SPEC = PreprocessSpec(size=SIZE)
BOX = Box(0, 0, SIZE, SIZE)
HEAD = Head(name="covid", kind="sigmoid", classes=("covid",))


def lettered(film: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The film with an E burnt into its lower left corner, and where that is."""
    mask = np.zeros(film.shape, bool)
    mask[50:59, 4:6] = True
    for row in (50, 54, 58):
        mask[row, 4:10] = True
    return np.where(mask, np.float32(1), film).astype(np.float32), mask


@pytest.fixture(scope="module")
def films() -> np.ndarray:
    """(32, 1, S, S): every second one has consolidations."""
    return preprocess([chest(seed, ("normal", "pneumonia")[seed % 2], 128) for seed in range(32)], SPEC)


def test_words_and_borders_are_found_where_they_are(films: np.ndarray) -> None:
    hits = []
    for film in films[:8, 0]:
        drawn, truth = lettered(film)
        drawn[:3] = 0.0
        found = find_markings(drawn, BOX)
        hits.append(found.words[truth].mean())
        assert found.words.mean() < 0.08
        assert found.border[:3].all()
        assert not (found.words & found.border).any()
        assert not found.words[20:44, 20:44].any()
    assert np.mean(hits) > 0.9


def test_the_phantoms_own_marker_is_found() -> None:
    """At a size at which its strokes are as wide as a pixel of the input; narrower ones blur into what is around."""
    hits, side = [], 2 * SIZE
    for seed in range(6):
        radiograph = chest(seed, "normal", 4 * side)
        marker = radiograph.pixels[:side] == round(0.98 * 4095)
        mask = marker.reshape(side // 4, 4, side, 4).mean(axis=(1, 3)) > 0.45
        film = preprocess([radiograph], PreprocessSpec(size=side))[0, 0]
        hits += find_markings(film, Box(0, 0, side, side)).words[: side // 4][mask].tolist()
    assert len(hits) > 30
    assert np.mean(hits) > 0.8


def test_padding_counts_as_border_and_a_flat_film_stays() -> None:
    film = np.zeros((32, 32), np.float32)
    film[:, 8:24] = np.random.default_rng(0).random((32, 16))
    border = find_markings(film, Box(0, 8, 32, 16)).border
    assert border[:, :8].all()
    assert border[:, 24:].all()
    assert not border[:, 8:24].any()
    assert not find_markings(np.full((32, 32), 0.5), Box(0, 0, 32, 32)).border.any()


@pytest.mark.parametrize("turned", [False, True])
def test_a_film_of_nothing_but_flat_rows_stays(turned: bool) -> None:
    film = np.repeat(np.linspace(0, 1, 32, dtype=np.float32)[:, None], 32, axis=1)
    found = find_markings(film.T if turned else film, BOX._replace(height=32, width=32))
    assert not found.either.any()


def test_paint_comes_from_the_nearest_pixel() -> None:
    film = np.arange(16, dtype=np.float32).reshape(4, 4)
    mask = np.zeros((4, 4), bool)
    mask[1, 0] = mask[3, 3] = True
    painted = painted_over(film, mask)
    assert painted[1, 0] in (0, 5, 8)
    assert painted[3, 3] in (11, 14)
    np.testing.assert_array_equal(painted[~mask], film[~mask])
    with pytest.raises(ValueError, match="cover the whole film"):
        painted_over(film, np.ones((4, 4), bool))


def test_share_is_of_absolute_values() -> None:
    values = np.array([[1.0, -3.0], [0.0, 4.0]])
    assert share(values, np.array([[False, True], [False, False]])) == pytest.approx(3 / 8)
    assert share(np.zeros((2, 2)), np.ones((2, 2), bool)) == 0


def taught(images: np.ndarray, labels: np.ndarray) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in ((1, 12), (12, 16), (16, 16)):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * (SIZE // 8) ** 2, 1))
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.1)
    films, wanted = torch.from_numpy(images), torch.from_numpy(labels.astype(np.float32))[:, None]
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(network(films), wanted).backward()
        optimizer.step()
    return network.eval()


def measured(network: nn.Sequential, film: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Share of the relevance on the marker, and the change of the log-odds when it is painted over."""
    one = torch.ones(1, 1, 1, 1)
    opened = ExplainedNetwork("it", network, one, 0 * one, (0,))
    values = Canonical(opened, film[None, None]).relevance(film[None, None], 0, "epsilon-plus").values

    def logits(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return network(torch.from_numpy(np.asarray(images, np.float32))).numpy()

    subject = Subject("it", "0", (HEAD,), SPEC, (1.0,), logits)
    clean = painted_over(film, find_markings(film, BOX).either)
    before, after = subject.log_odds(np.stack([film, clean])[:, None], "covid")
    return share(values, truth), float(after - before)


def test_a_network_that_reads_the_marker_is_told_from_one_that_reads_the_lungs(films: np.ndarray) -> None:
    sick = np.arange(32) % 2
    drawn = [lettered(film) for film in films[:, 0]]
    truth = drawn[0][1]
    chance = np.random.default_rng(0).permutation(32) % 2
    with_letter = np.stack(
        [pair[0] if told else film for pair, film, told in zip(drawn, films[:, 0], chance, strict=True)]
    )
    reader = taught(with_letter[:, None], chance)
    looker = taught(films, sick)
    film = drawn[1][0]  # pneumonia, with the letter
    read_share, read_change = measured(reader, film, truth)
    look_share, look_change = measured(looker, film, truth)
    assert read_share > 3 * look_share
    assert read_share > 3 * truth.mean()
    assert read_change < -1
    assert abs(look_change) < abs(read_change) / 2
