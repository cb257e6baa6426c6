"""`edgecxr compile`: real engines without a GPU, and a sentence where that cannot be."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgecxr.bundle import Bundle, default_bundle_path
from edgecxr.runtimes import tensorrt_api
from edgecxr.runtimes.driver import probe
from edgecxr.runtimes.engine_cache import EngineCache

Run = Callable[..., Any]


@pytest.mark.tensorrt
def test_engines_of_a_tiny_model_for_two_capabilities(run: Run, tiny_bundle: Path, tmp_path: Path) -> None:
    wanted = ("--precision", "int8", "--precision", "fp16", "--capability", "8.9", "--capability", "12.0")
    done = run("compile", tiny_bundle, *wanted, "--out", tmp_path / "e", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    pairs = [(row["precision"], row["capability"]) for row in told["engines"]]
    assert pairs == [(p, c) for p in ("fp16", "int8") for c in ("8.9", "12.0")]
    kept = EngineCache(tmp_path / "e").list()
    assert {str(entry.path) for entry in kept} == {row["path"] for row in told["engines"]}
    assert {entry.key.device for entry in kept if entry.key} == {"compute capability 8.9", "compute capability 12.0"}
    for entry in kept:
        assert entry.key is not None
        assert len(EngineCache(tmp_path / "e").read(entry.key) or b"") > 1000


@pytest.mark.tensorrt
def test_the_shipped_bundle_into_the_cache(run: Run, tmp_path: Path) -> None:
    done = run("compile", "--capability", "8.9", EDGECXR_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(Bundle.open(default_bundle_path()).precisions)
    assert "fp16 for 8.9: " in done.stdout
    kept = EngineCache(tmp_path / "cache").list()
    assert len(kept) == len(done.stdout.splitlines())
    for entry in kept:
        assert entry.key is not None
        assert len(EngineCache(tmp_path / "cache").read(entry.key) or b"") > 100_000


@pytest.mark.tensorrt
@pytest.mark.skipif(not probe().reason, reason="there is a GPU here")
def test_without_a_gpu_and_a_capability_there_is_nothing_to_build_for(run: Run, tiny_bundle: Path) -> None:
    done = run("compile", tiny_bundle)
    assert done.returncode == 3
    assert "name what to build for: --capability 7.5 or 8.0" in done.stderr


@pytest.mark.tensorrt
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--capability", "5.0"], "does not build for 5.0; choose of 7.5, 8.0"),
        (["--precision", "int4", "--capability", "8.9"], "int4 is not packed; the bundle holds fp32, fp16, int8"),
    ],
)
def test_a_wrong_choice_is_answered_with_those_there_are(
    arguments: list[str], words: str, run: Run, tiny_bundle: Path
) -> None:
    done = run("compile", tiny_bundle, *arguments)
    assert done.returncode == 2
    assert words in done.stderr


def test_without_tensorrt_it_is_said_what_to_install(
    run: Run, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt_api, "PACKAGES", (("a_package_that_is_not_there",),))
    done = run("compile", tiny_bundle)
    assert done.returncode == 3
    assert "pip install 'edgecxr[tensorrt]'" in done.stderr
