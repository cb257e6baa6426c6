import json

import numpy as np
import pytest

from edgecxr.export.evaluation import evaluate
from edgecxr.export.plotted import plotted
from edgecxr.export.scored import Scored
from edgecxr.scores import probabilities
from edgecxr.spec import Head
from edgecxr.statistics.chosen import sensitivity_at

CHEST = Head(name="chest", kind="softmax", classes=("normal", "covid", "pneumonia"), reference="normal")
SIGNS = Head(name="signs", kind="sigmoid", classes=("effusion", "mass"))
HEADS = (CHEST, SIGNS)
RANDOM = np.random.default_rng(0)
TRUTH = RANDOM.integers(0, 3, 60)
TRUTH[:6] = -1
MARKS = (RANDOM.random((60, 2)) < 0.4).astype(np.float32)
MARKS[:, 1] = np.nan
LOGITS = np.concatenate([np.eye(3)[TRUTH] * 2, np.nan_to_num(MARKS)], axis=1) + RANDOM.normal(size=(60, 5))
TARGETS = {"chest": TRUTH, "signs": MARKS}


@pytest.fixture(scope="module")
def found():
    scored = Scored("s", LOGITS, probabilities(LOGITS, HEADS, (1.0, 1.0)), embeddings=LOGITS[:, :3])
    figures = evaluate(scored, TARGETS, HEADS, samples=50)
    return figures, plotted(figures, scored, TARGETS, HEADS, specificity=0.9, sensitivity=0.95)


def test_the_figures_stay_and_it_is_json(found):
    figures, more = found
    assert json.loads(json.dumps(more, allow_nan=False)) == more
    assert [{key: row[key] for key in old} for row, old in zip(more["classes"], figures["classes"], strict=True)] == (
        figures["classes"]
    )


def test_histograms_count_each_film_in_its_true_class(found):
    rows = {row["name"]: row["histogram"]["counts"] for row in found[1]["classes"]}
    assert {name: sum(counts) for name, counts in rows["covid"].items()} == {
        name: int((index == TRUTH).sum()) for index, name in enumerate(CHEST.classes)
    }
    assert sum(rows["effusion"]["positive"]) == int((MARKS[:, 0] == 1).sum())
    assert sum(rows["mass"]["positive"]) == sum(rows["mass"]["negative"]) == 0


def test_rates_at_a_chosen_rate(found):
    rows = {row["name"]: row["chosen"] for row in found[1]["classes"]}
    known = TRUTH >= 0
    scores = probabilities(LOGITS, HEADS, (1.0, 1.0))[known, 1]
    rate = sensitivity_at(TRUTH[known] == 1, scores, 0.9)
    assert rows["covid"][0]["interval"] == rate.interval.to_json()
    assert rows["covid"][0]["threshold"] == rate.threshold
    assert [(row["of"], row["at"]) for row in rows["covid"]] == [("sensitivity", 0.9), ("specificity", 0.95)]
    assert rows["mass"] == []


def test_a_map_for_each_head_with_the_labelled_films(found):
    chest, signs = found[1]["maps"]
    assert (chest["films"], chest["classes"]) == (54, list(CHEST.classes))
    assert [point[2] for point in chest["points"]] == TRUTH[TRUTH >= 0].tolist()
    assert signs["classes"] == ["no finding", "some finding"]
    assert sum(point[2] for point in signs["points"]) == int((MARKS[:, 0] == 1).sum())


def test_without_embeddings_there_is_no_map():
    scored = Scored("s", LOGITS, probabilities(LOGITS, HEADS, (1.0, 1.0)))
    figures = evaluate(scored, TARGETS, HEADS, samples=20)
    assert plotted(figures, scored, TARGETS, HEADS, specificity=0.9, sensitivity=0.9)["maps"] == []
