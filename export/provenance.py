"""Where a bundle comes from: recipe, data, code and libraries, as the manifest tells it."""

import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgecxr import __version__
from edgecxr.export.bench import Bench
from edgecxr.export.films import PURPOSES
from edgecxr.export.libraries import versions
from edgecxr.export.stages import digest_of

__all__ = ["git_commit", "provenance"]


def provenance(bench: Bench, recipe_text: str) -> dict[str, Any]:
    """Plain JSON; no path and no name of a machine or a person is in it.

    `libraries` are those with which the bundle was packed; `made_with` has, by stage that was taken up from an earlier
    run, the versions that differ from them.
    """
    recipe, dataset, libraries = bench.recipe, bench.films.dataset, versions()
    return {
        "edgecxr": __version__,
        "commit": git_commit(Path(__file__).resolve().parent),
        "recipe": recipe.name,
        "recipe_digest": digest_of(recipe.model_dump(mode="json", exclude={"data": {"folder"}})),
        "recipe_text": recipe_text,
        "data": "phantoms" if recipe.data.folder is None else "films",
        "data_digest": dataset.digest,
        "films": {purpose: len(bench.labelled(purpose)) for purpose in PURPOSES},
        "labels": {
            item.head.name: _label_counts(bench, item.head.name) for item in recipe.heads if item.head.kind == "softmax"
        },
        "columns": bench.columns,
        "libraries": libraries,
        "made_with": _made_with(bench, libraries),
    }


def _label_counts(bench: Bench, head: str) -> dict[str, dict[str, int]]:
    """Films per class, by purpose."""
    classes = next(item.classes for item in bench.heads if item.name == head)
    counted: dict[str, dict[str, int]] = {}
    for purpose in PURPOSES:
        found = Counter(bench.targets(bench.labelled(purpose))[head].tolist())
        counted[purpose] = {name: found[index] for index, name in enumerate(classes)}
    return counted


def _made_with(bench: Bench, libraries: Mapping[str, str]) -> dict[str, Any]:
    """By stage that was found done, and was made with others than `libraries`: what differs, or that nobody knows."""
    found: dict[str, Any] = {}
    for name, outcome in sorted(bench.workshop.outcomes.items()):
        others = {key: made for key, made in outcome.libraries.items() if made != libraries.get(key)}
        if others or not outcome.libraries:
            found[name] = others or "not recorded"
    return found


def git_commit(folder: Path) -> str:
    """The commit of the checkout that `folder` lies in, "-dirty" where files differ; "unknown" outside of one."""
    try:
        command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"
