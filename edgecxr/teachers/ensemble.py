"""Several teachers as one: a log-linear pool of their calibrated opinions, with weights learned on validation films.

For each head, fused logits = sum over members of w_m * z_m / T_m, with w >= 0 and summing to 1, and T_m the member's
temperature (Guo et al. 2017). This is the logarithmic opinion pool (Genest & Zidek 1986); a member that does not have
the head has no vote in it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, softmax

from edgecxr.errors import StageError
from edgecxr.radiograph import Radiograph
from edgecxr.scores import columns
from edgecxr.spec import Head, PreprocessSpec, Strict
from edgecxr.statistics import fit_temperature
from edgecxr.teachers.film_cache import film_batch
from edgecxr.teachers.foreign import ForeignSource, ForeignTeacher, load_foreign
from edgecxr.teachers.teacher import MemberTeacher, Teacher, open_member, write_member
from edgecxr.teachers.weights import write_atomic

__all__ = ["Ensemble", "Fusion", "HeadFusion", "fuse", "negative_log_likelihood", "open_ensemble"]

PRIOR = 4.0  # nats per unit of theta^2 / 2: doubling a member's weight against the rest must win about 1 nat
RECORD = "ensemble.json"
SOURCES: TypeAdapter[ForeignSource] = TypeAdapter(ForeignSource)


class HeadFusion(Strict):
    """How one head is fused: a weight (0: no vote) and a temperature per member, and one temperature for the result."""

    head: Head
    weights: tuple[float, ...]
    temperatures: tuple[float, ...]
    temperature: float = 1.0


class Fusion(Strict):
    """How the votes of the members, named in order, become one."""

    members: tuple[str, ...]
    heads: tuple[HeadFusion, ...]

    def logits(self, votes: Sequence[NDArray[np.floating]], voters: Sequence[Sequence[Head]]) -> NDArray[np.float64]:
        """(N, C) fused logits. votes[m] is (N, C_m), with the columns of the heads voters[m]."""
        parts = []
        for fused in self.heads:
            views = _views(fused.head, votes, voters)
            total = sum(
                weight * view / temperature
                for view, weight, temperature in zip(views, fused.weights, fused.temperatures, strict=True)
                if view is not None and weight > 0
            )
            parts.append(np.asarray(total, dtype=np.float64) / fused.temperature)
        return np.concatenate(parts, axis=1)


class Ensemble:
    """Members with their fusion."""

    def __init__(self, members: Sequence[Teacher], fusion: Fusion) -> None:
        names = tuple(member.name for member in members)
        if names != fusion.members:
            raise StageError(f"the fusion is of {', '.join(fusion.members)}; the members are {', '.join(names)}")
        self.members, self.fusion = tuple(members), fusion

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads it votes on."""
        return tuple(part.head for part in self.fusion.heads)

    @property
    def specs(self) -> tuple[PreprocessSpec, ...]:
        """The preprocessing specifications that its members need, each once."""
        return tuple(dict.fromkeys(member.preprocess for member in self.members))

    def logits(self, images: Callable[[PreprocessSpec], NDArray[np.floating]]) -> NDArray[np.float64]:
        """(N, C) fused logits; `images` gives the same N films under each specification, (N, 1, S, S) in [0, 1].

        From caches: ``ensemble.logits(lambda spec: caches[spec].images[rows])``.
        """
        votes = [member.logits(images(member.preprocess)) for member in self.members]
        return self.fusion.logits(votes, [member.heads for member in self.members])

    def score(self, films: Sequence[Radiograph]) -> NDArray[np.float64]:
        """(N, C) fused logits of films as they are read."""
        return self.logits(lambda spec: film_batch(films, spec))

    def save(self, folder: Path, *, base: Path = Path()) -> None:
        """Write ensemble.json and a folder per trained member. Foreign members keep their files, named absolutely.

        `base` is where the paths of foreign sources began (the recipe's folder).
        """
        entries = [_entry(member, folder, base) for member in self.members]
        content = {"fusion": self.fusion.model_dump(mode="json"), "members": entries}
        write_atomic(folder / RECORD, json.dumps(content, indent=1).encode())


def open_ensemble(folder: Path) -> Ensemble:
    """The ensemble that `save` left in `folder`. Raises StageError."""
    try:
        content = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        fusion = Fusion.model_validate(content["fusion"])
        opened = [_open(entry, folder, [part.head for part in fusion.heads]) for entry in content["members"]]
    except FileNotFoundError as error:
        raise StageError(f"no ensemble in {folder}: {error.filename} is absent") from error
    except (ValueError, KeyError, ValidationError) as error:
        raise StageError(f"{folder / RECORD} is not the record of an ensemble: {error}") from error
    return Ensemble(opened, fusion)


def fuse(
    members: Mapping[str, Sequence[Head]],
    votes: Sequence[NDArray[np.floating]],
    targets: Mapping[str, NDArray[Any]],
    heads: Sequence[Head],
    *,
    kind: Literal["learned", "equal"] = "learned",
) -> Fusion:
    """Temperatures and weights from validation films.

    `members` names each member and its heads, votes[m] is its (N, C_m) logits, `targets` is by head name (-1 and NaN
    are left out). Learned weights are softmax(theta) with theta minimizing the negative log-likelihood summed over the
    films, at the best temperature of the result, plus PRIOR * |theta|^2 / 2, so few films give nearly equal weights.
    Raises StageError for a head without voters.
    """
    voters = list(members.values())
    parts = []
    for head in heads:
        views = _views(head, votes, voters)
        present = [view for view in views if view is not None]
        if not present:
            raise StageError(f"no teacher has all classes of head {head.name!r} ({', '.join(head.classes)}); add one")
        temperatures = [1.0 if view is None else fit_temperature(view, targets[head.name], head.kind) for view in views]
        scaled = np.stack([view / t for view, t in zip(views, temperatures, strict=True) if view is not None])
        learned = (
            _learn(scaled, targets[head.name], head) if kind == "learned" else np.full(len(present), 1 / len(present))
        )
        share = iter(learned.tolist())
        weights = tuple(0.0 if view is None else next(share) for view in views)
        fused = np.tensordot(learned, scaled, axes=1)
        last = fit_temperature(fused, targets[head.name], head.kind)
        parts.append(HeadFusion(head=head, weights=weights, temperatures=tuple(temperatures), temperature=last))
    return Fusion(members=tuple(members), heads=tuple(parts))


def negative_log_likelihood(logits: NDArray[np.floating], targets: NDArray[Any], head: Head) -> float:
    """Nats, summed over the labelled entries; logits (N, K) of the head alone."""
    return float(_likelihood(np.asarray(logits, dtype=np.float64), targets, head)[0])


def _likelihood(logits: NDArray[np.float64], targets: NDArray[Any], head: Head) -> tuple[float, NDArray[np.float64]]:
    """Negative log-likelihood and its gradient with respect to the logits (N, K)."""
    if head.kind == "softmax":
        known = targets >= 0
        truth = np.where(known[:, None], np.eye(len(head.classes))[np.maximum(targets, 0)], 0.0)
        loss = -(truth * log_softmax(logits, axis=1)).sum()
        return float(loss), (softmax(logits, axis=1) - truth) * known[:, None]
    present = ~np.isnan(targets)
    truth = np.nan_to_num(targets.astype(np.float64))
    loss = ((np.logaddexp(0, logits) - truth * logits) * present).sum()
    return float(loss), (expit(logits) - truth) * present


def _learn(views: NDArray[np.float64], targets: NDArray[Any], head: Head) -> NDArray[np.float64]:
    """(M,) weights for calibrated views (M, N, K).

    The temperature of the result is free while they are learned: members whose errors differ are too timid when pooled,
    and without it weight would flow to the boldest instead of the best.
    """

    def objective(point: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights, sharpness = softmax(point[:-1]), np.exp(point[-1])
        pooled = np.tensordot(weights, views, axes=1)
        loss, slope = _likelihood(sharpness * pooled, targets, head)
        pull = sharpness * np.tensordot(views, slope, axes=2)  # (M,) dloss/dweight
        pulls = np.append(weights * (pull - weights @ pull), sharpness * (slope * pooled).sum())
        prior = np.append(np.full(len(views), PRIOR), 1.0)
        return loss + float(prior @ point**2) / 2, pulls + prior * point

    found = minimize(objective, np.zeros(len(views) + 1), jac=True, method="L-BFGS-B")
    return np.asarray(softmax(found.x[:-1]))


def _views(
    head: Head, votes: Sequence[NDArray[np.floating]], voters: Sequence[Sequence[Head]]
) -> list[NDArray[np.float64] | None]:
    """Each member's columns of the head (N, K), centred per film for softmax heads; None where it has none."""
    views: list[NDArray[np.float64] | None] = []
    for vote, own in zip(votes, voters, strict=True):
        place = {item.name: part for item, part in zip(own, columns(own), strict=True)}.get(head.name)
        view = None if place is None else np.asarray(vote[:, place], dtype=np.float64)
        views.append(view - view.mean(axis=1, keepdims=True) if view is not None and head.kind == "softmax" else view)
    return views


def _entry(member: Teacher, folder: Path, base: Path) -> dict[str, Any]:
    if isinstance(member, MemberTeacher):
        write_member(folder / member.name, member.member, member.module)
        return {"folder": member.name}
    if isinstance(member, ForeignTeacher):
        return {"source": member.source.model_dump(mode="json"), "base": str(base.resolve())}
    raise StageError(f"a {type(member).__name__} cannot be saved; save what it is made of")


def _open(entry: Mapping[str, Any], folder: Path, heads: Sequence[Head]) -> Teacher:
    if "folder" in entry:
        return open_member(folder / entry["folder"])
    return load_foreign(SOURCES.validate_python(entry["source"]), heads, base=Path(entry["base"]))
