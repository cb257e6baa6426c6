import numpy as np
import pytest

from edgecxr.teachers.metrics import macro_auroc

pytestmark = pytest.mark.train


def test_it_is_the_mean_over_classes_that_are_defined(heads):
    logits = np.array([[3, 0, 0, 1, 0], [0, 3, 0, 0, 0], [0, 0, 3, 2, 0], [3, 0, 0, -1, 0]], dtype=np.float32)
    targets = {
        "diagnosis": np.array([0, 1, 2, -1]),
        "signs": np.array([[1, np.nan], [0, 1], [0, 1], [0, 1]], dtype=np.float32),
    }
    # diagnosis: 1, 1, 1; effusion: 1 beats 0 and -1 but not 2, so 2/3; mass: positives only, left out
    assert macro_auroc(logits, targets, heads) == pytest.approx((3 + 2 / 3) / 4)


def test_without_any_defined_class_it_is_nan(heads):
    targets = {"diagnosis": np.full(3, -1), "signs": np.full((3, 2), np.nan, dtype=np.float32)}
    assert np.isnan(macro_auroc(np.zeros((3, 5)), targets, heads))
