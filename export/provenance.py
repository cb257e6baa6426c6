"""Where a bundle comes from: recipe, data, code and libraries, as the manifest tells it."""

import subprocess
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edgecxr import __version__
from edgecxr.export.bench import Bench
from edgecxr.export.films import PURPOSES
from edgecxr.export.stages import digest_of

__all__ = ["git_commit", "provenance"]

LIBRARIES = ("numpy", "torch", "torchvision", "timm", "onnx", "onnxruntime", "openvino")


def provenance(bench: Bench, recipe_text: str) -> dict[str, Any]:
    """Plain JSON; no path and no name of a machine or a person is in it."""
    recipe, dataset = bench.recipe, bench.films.dataset
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
        "libraries": {name: _version(name) for name in LIBRARIES},
    }


def _label_counts(bench: Bench, head: str) -> dict[str, dict[str, int]]:
    """Films per class, by purpose."""
    classes = next(item.classes for item in bench.heads if item.name == head)
    counted: dict[str, dict[str, int]] = {}
    for purpose in PURPOSES:
        found = Counter(bench.targets(bench.labelled(purpose))[head].tolist())
        counted[purpose] = {name: found[index] for index, name in enumerate(classes)}
    return counted


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def git_commit(folder: Path) -> str:
    """The commit of the checkout that `folder` lies in, "-dirty" where files differ; "unknown" outside of one."""
    try:
        command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"
