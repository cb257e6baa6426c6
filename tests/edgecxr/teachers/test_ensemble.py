import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from scipy.optimize import approx_fprime

from edgecxr.errors import StageError
from edgecxr.phantom import chest
from edgecxr.spec import Head, PreprocessSpec
from edgecxr.teachers import ensemble as module
from edgecxr.teachers.architecture import build
from edgecxr.teachers.ensemble import Ensemble, fuse, negative_log_likelihood, open_ensemble
from edgecxr.teachers.film_cache import film_batch
from edgecxr.teachers.foreign import load_foreign
from edgecxr.teachers.teacher import MemberRecord, MemberTeacher

pytestmark = pytest.mark.train
NAN = float("nan")
KINDS = ("learned", "equal")


def opinion(targets, heads, skill, seed):
    """(N, 5) logits that lean towards the truth by `skill`, in noise of 1."""
    noise = np.random.default_rng(seed).normal(size=(len(targets["diagnosis"]), 5))
    noise[:, :3] += skill * np.eye(3)[np.maximum(targets["diagnosis"], 0)]
    noise[:, 3:] += skill * np.nan_to_num(2 * targets["signs"] - 1)
    return noise


@pytest.fixture
def targets(make_samples):
    return make_samples(400, 2).targets


def panel(targets, heads, seed=0):
    """Four opinions: a good one, a fair one, and two that only repeat the fair one."""
    good, fair = (opinion(targets, heads, skill, seed + number) for number, skill in enumerate((2.0, 1.0)))
    return [good, fair, fair + 0.1, 3 * fair]


@pytest.fixture
def votes(targets, heads):
    return panel(targets, heads)


def loss(fusion, votes, targets, heads):
    logits = fusion.logits(votes, [heads] * len(votes))
    parts = zip((slice(0, 3), slice(3, 5)), heads, strict=True)
    return [negative_log_likelihood(logits[:, part], targets[head.name], head) for part, head in parts]


@pytest.fixture
def fusions(votes, targets, heads):
    """(learned, equal)"""
    return [fuse(dict.fromkeys("abcd", heads), votes, targets, heads, kind=kind) for kind in KINDS]


def test_learned_weights_do_not_let_echoes_outvote_the_best(fusions, votes, targets, heads):
    learned, equal = fusions
    for part in learned.heads:
        assert sum(part.weights) == pytest.approx(1)
        assert part.weights[0] > max(part.weights[1:]) + 0.1
    assert equal.heads[0].weights == pytest.approx([1 / 4] * 4)
    pairs = zip(loss(learned, votes, targets, heads), loss(equal, votes, targets, heads), strict=True)
    assert all(one < other for one, other in pairs)


def test_nor_on_films_that_the_weights_never_saw(fusions, make_samples, heads):
    fresh = make_samples(400, 9).targets
    learned, equal = (sum(loss(fusion, panel(fresh, heads, 10), fresh, heads)) for fusion in fusions)
    assert learned < equal


def test_independent_members_of_unlike_skill_need_no_more_than_their_temperatures(targets, heads):
    """Evidence adds up: the log-odds of independent members are summed, which is what equal weights do."""
    votes = [opinion(targets, heads, skill, seed) for seed, skill in enumerate((2.0, 1.0, 0.0))]
    members = dict.fromkeys("abc", heads)
    learned, equal = (
        sum(loss(fuse(members, votes, targets, heads, kind=kind), votes, targets, heads)) for kind in KINDS
    )
    assert learned == pytest.approx(equal, rel=0.02)


def test_few_films_give_nearly_equal_weights(votes, targets, heads):
    few = {name: value[:6] for name, value in targets.items()}
    part = fuse(dict.fromkeys("abcd", heads), [vote[:6] for vote in votes], few, heads).heads[0]
    assert max(part.weights) < 0.35


def test_equals_keep_equal_weights_and_scale_does_not_matter(targets, heads):
    one = opinion(targets, heads, 1.5, 0)
    fusion = fuse({"a": heads, "b": heads}, [one, 7 * one], targets, heads)
    for part in fusion.heads:
        assert part.weights == pytest.approx((0.5, 0.5), abs=1e-3)
        assert part.temperatures[1] == pytest.approx(7 * part.temperatures[0], rel=0.02)
    alone = fuse({"a": heads}, [one], targets, heads)
    np.testing.assert_allclose(
        fusion.logits([one, 7 * one], [heads] * 2), alone.logits([one], [heads]), rtol=0.03, atol=0.03
    )


def test_the_gradient_of_the_likelihood_is_right(heads):
    chance = np.random.default_rng(0)
    cases = {
        "diagnosis": (chance.normal(size=(5, 3)), np.array([0, 2, -1, 1, 1])),
        "signs": (chance.normal(size=(4, 2)), np.array([[1, 0], [NAN, 1], [0, NAN], [1, 1]])),
    }
    for head in heads:
        logits, truth = cases[head.name]

        def value(flat, head=head, truth=truth, shape=logits.shape):
            return negative_log_likelihood(flat.reshape(shape), truth, head)

        numeric = approx_fprime(logits.ravel(), value, 1e-6)
        np.testing.assert_allclose(module._likelihood(logits, truth, head)[1].ravel(), numeric, atol=1e-5)


def test_the_likelihood_by_hand():
    soft = Head(name="s", kind="softmax", classes=("a", "b"))
    sig = Head(name="t", kind="sigmoid", classes=("c", "d"))
    logits = np.log(np.array([[3.0, 1.0], [1.0, 1.0], [5.0, 1.0]]))
    assert negative_log_likelihood(logits, np.array([0, 1, -1]), soft) == pytest.approx(np.log(4 / 3) + np.log(2))
    truth = np.array([[1, 0], [NAN, 1], [NAN, NAN]])
    assert negative_log_likelihood(logits, truth, sig) == pytest.approx(np.log(4 / 3) + np.log(2) + np.log(2))


def test_a_member_without_a_head_has_no_vote_in_it(votes, targets, heads):
    members = {"a": heads, "signs only": heads[1:]}
    own = [votes[0], votes[1][:, 3:]]
    fusion = fuse(members, own, targets, heads)
    assert fusion.heads[0].weights == (1.0, 0.0)
    assert fusion.heads[1].weights[1] > 0
    alone = fuse({"a": heads}, [votes[0]], targets, heads).logits([votes[0]], [heads])
    np.testing.assert_allclose(fusion.logits(own, [heads, heads[1:]])[:, :3], alone[:, :3])
    with pytest.raises(StageError, match="no teacher has all classes of head 'diagnosis'"):
        fuse({"b": heads[1:]}, own[1:], targets, heads)


@pytest.fixture
def members(heads, tmp_path):
    """Two trained members of different input sizes, and a foreign one that knows the signs only."""
    torch.manual_seed(0)
    made: list = []
    for name, size in (("a", 32), ("b", 48)):
        record = MemberRecord(name=name, architecture="test_resnet", heads=heads, preprocess=PreprocessSpec(size=size))
        made.append(MemberTeacher(record, build("test_resnet", 5), device="cpu"))
    torch.save(build("test_efficientnet", 2).body.state_dict(), tmp_path / "w.pt")
    told = {"kind": "checkpoint", "name": "c", "checkpoint": "w.pt", "architecture": "test_efficientnet"}
    source = TypeAdapter(module.ForeignSource).validate_python(told | {"size": 32, "classes": ["mass", "effusion"]})
    return [*made, load_foreign(source, heads, base=tmp_path)]


def test_an_ensemble_of_mixed_members_is_saved_and_opened(members, votes, targets, heads, tmp_path):
    named = {member.name: member.heads for member in members}
    fusion = fuse(
        named, [vote[:, 5 - len(m.classes) :] for vote, m in zip(votes[:3], members, strict=True)], targets, heads
    )
    whole = Ensemble(members, fusion)
    assert [spec.size for spec in whole.specs] == [32, 48]
    films = [chest(seed, size=128) for seed in range(3)]
    logits = whole.score(films)
    assert logits.shape == (3, 5)
    caches = {spec: film_batch(films, spec) for spec in whole.specs}
    np.testing.assert_array_equal(whole.logits(caches.__getitem__), logits)
    whole.save(tmp_path / "ensemble", base=tmp_path)
    again = open_ensemble(tmp_path / "ensemble")
    assert again.heads == heads
    np.testing.assert_allclose(again.score(films), logits, atol=1e-5)
    with pytest.raises(StageError, match="the fusion is of a, b, c; the members are a, b"):
        Ensemble(members[:2], fusion)


def test_a_folder_without_an_ensemble_is_refused(tmp_path):
    with pytest.raises(StageError, match="no ensemble in"):
        open_ensemble(tmp_path)
    (tmp_path / "ensemble.json").write_text('{"fusion": {}}')
    with pytest.raises(StageError, match="not the record of an ensemble"):
        open_ensemble(tmp_path)
