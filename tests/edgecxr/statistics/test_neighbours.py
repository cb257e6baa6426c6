import numpy as np
import pytest

from edgecxr.errors import StatisticsError
from edgecxr.statistics.neighbours import tsne


def test_groups_lie_apart_and_the_seed_gives_the_same_map():
    generator = np.random.default_rng(0)
    groups = np.repeat([0, 1], 20)
    values = generator.normal(size=(40, 6)) + 8 * groups[:, None]
    places, perplexity = tsne(np.column_stack([values, np.ones(40)]))
    assert perplexity == 13.0
    centres = np.stack([places[groups == group].mean(axis=0) for group in (0, 1)])
    nearest = ((places[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
    assert (nearest == groups).all()
    assert (places == tsne(np.column_stack([values, np.ones(40)]))[0]).all()


def test_too_few_films_are_no_map():
    with pytest.raises(StatisticsError, match="a map of 9 films: at least 10"):
        tsne(np.zeros((9, 3)))
