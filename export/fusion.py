"""The teachers as one: weights from the validation films, fused logits for every film."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecxr.export.bench import Bench
from edgecxr.export.members import Vote, ask_members
from edgecxr.export.schooling import LOGITS
from edgecxr.export.stages import Stage
from edgecxr.scores import columns
from edgecxr.spec import Head
from edgecxr.teachers.ensemble import Fusion, fuse

__all__ = ["fuse_members", "read_fusion"]

RECORD = "fusion.json"
STAGE = "fuse"


def fuse_members(bench: Bench) -> NDArray[np.float32]:
    """Stage `fuse`: logits (N, C) of the ensemble for every film."""
    votes = ask_members(bench)
    upstream = ("data", *(vote.stage for vote in votes))
    inputs = {"fusion": bench.recipe.fusion.model_dump(mode="json"), **bench.labels}
    folder = bench.workshop.run(Stage(STAGE, lambda place: _fuse(bench, votes, place), inputs, upstream))
    logits: NDArray[np.float32] = np.load(folder / LOGITS)
    return logits


def read_fusion(bench: Bench) -> Fusion:
    """The weights of the finished stage."""
    return Fusion.model_validate_json((bench.workshop.outcomes[STAGE].folder / RECORD).read_text())


def _fuse(bench: Bench, votes: list[Vote], place: Path) -> None:
    rows = bench.labelled("validate")
    voters = [_voted(bench, vote.logits) for vote in votes]
    own = [_own(bench, vote.logits, heads) for vote, heads in zip(votes, voters, strict=True)]
    members = {vote.name: heads for vote, heads in zip(votes, voters, strict=True)}
    fusion = fuse(
        members, [vote[rows] for vote in own], bench.targets(rows), bench.heads, kind=bench.recipe.fusion.kind
    )
    (place / RECORD).write_text(fusion.model_dump_json(indent=1))
    np.save(place / LOGITS, fusion.logits(own, voters).astype(np.float32))


def _voted(bench: Bench, vote: NDArray[np.float32]) -> list[Head]:
    """The heads that a member has logits for."""
    parts = zip(bench.heads, columns(bench.heads), strict=True)
    return [head for head, part in parts if not np.isnan(vote[:, part]).any()]


def _own(bench: Bench, vote: NDArray[np.float32], heads: list[Head]) -> NDArray[np.float32]:
    parts = zip(bench.heads, columns(bench.heads), strict=True)
    return np.concatenate([vote[:, part] for head, part in parts if head in heads], axis=1)
