import numpy as np

from edgecxr.merging.folds import assign_folds, joined


def test_pairs_join_what_they_touch():
    groups = joined(6, [(0, 2), (2, 4), (1, 5)])
    assert groups[0] == groups[2] == groups[4]
    assert groups[1] == groups[5]
    assert len(set(groups.tolist())) == 3
    assert len(set(joined(3, []).tolist())) == 3


def test_folds_hold_groups_together_and_balance_classes():
    generator = np.random.default_rng(3)
    groups = np.repeat(np.arange(300), generator.integers(1, 5, 300))
    classes = np.zeros((len(groups), 2), bool)
    rare = generator.choice(300, 25, replace=False)
    classes[:, 0] = np.isin(groups, rare)
    classes[:, 1] = generator.random(len(groups)) < 0.3
    none = np.full(len(groups), -1, np.intp)
    folds = assign_folds(groups, classes, none, 5, 0)
    assert all(len(set(folds[groups == group].tolist())) == 1 for group in range(300))
    for counts in (np.bincount(folds), np.bincount(folds[classes[:, 0]]), np.bincount(folds[classes[:, 1]])):
        assert counts.max() - counts.min() <= 4
    assert (folds == assign_folds(groups, classes, none, 5, 0)).all()
    assert (folds != assign_folds(groups, classes, none, 5, 1)).any()


def test_films_with_a_fold_keep_it_and_the_others_fill_up():
    groups = np.array([0, 0, 1, 2, 3, 4, 5, 6])
    kept = np.array([1, -1, 1, 1, -1, -1, -1, -1])
    folds = assign_folds(groups, np.ones((8, 1), bool), kept, 2, 0)
    assert folds[:4].tolist() == [1, 1, 1, 1]
    assert folds[4:].tolist() == [0, 0, 0, 0]
