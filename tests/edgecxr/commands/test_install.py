"""``edgecxr install`` and ``rollback``: what a node's keeper types."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgecxr.bundle import default_bundle_path
from edgecxr.bundle.installed import current
from edgecxr.bundle.keys import generate
from edgecxr.bundle.signature import sign

pytest.importorskip("cryptography", reason="pip install edgecxr[node]: signatures need cryptography")
Run = Callable[..., Any]


@pytest.fixture
def node(tiny_build: Any, tmp_path: Path) -> Path:
    """A folder with node.yaml, the trusted key `hospital`, two bundles that it signed and one that nobody did."""
    key = generate(tmp_path / "hospital")
    for name in ("first", "second"):
        sign(tiny_build.write(tmp_path / f"{name}.cxr", card=f"# {name}\n"), key)
    tiny_build.write(tmp_path / "unsigned.cxr")
    (tmp_path / "node.yaml").write_text("folder: data\nbundle:\n  trusted_keys: [hospital.pub]\n")
    return tmp_path


@pytest.mark.parametrize("verb", ["install", "rollback"])
def test_help_has_an_example(run: Run, verb: str) -> None:
    done = run(verb, "--help")
    assert done.returncode == 0
    assert f"Example: edgecxr {verb}" in done.stdout


def test_install_and_rollback(run: Run, node: Path) -> None:
    done = run("install", "first.cxr", "--config", "node.yaml")
    first = current(node / "data")
    assert first is not None
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{first}: installed, signed by hospital; it reproduces its golden set here" in done.stdout
    assert f"before it: {default_bundle_path().name}, the package's own (edgecxr rollback)" in done.stdout
    told = json.loads(run("install", "second.cxr", "--config", "node.yaml", "--json").stdout)
    second = current(node / "data")
    assert (told["bundle"], told["previous"], told["changed"]) == (str(second), str(first), True)
    assert told["signed_by"]["name"] == "hospital"
    again = run("install", "second.cxr", "--config", "node.yaml")
    assert (again.returncode, "was installed already" in again.stdout) == (0, True)
    done = run("rollback", "--config", "node.yaml")
    assert f"{first}: in use again, signed by hospital" in done.stdout
    assert current(node / "data") == first
    told = json.loads(run("rollback", "--config", "node.yaml", "--json").stdout)
    assert told["bundle"] == str(current(node / "data")) == str(second)


def test_rollback_from_the_first_is_to_the_packages_own(run: Run, node: Path) -> None:
    done = run("rollback", "--config", "node.yaml")
    assert (done.returncode, "no bundle was installed, so there is none to go back to" in done.stderr) == (2, True)
    run("install", "first.cxr", "--config", "node.yaml")
    first = current(node / "data")
    done = run("rollback", "--config", "node.yaml")
    assert done.returncode == 0, done.stderr
    assert f"{default_bundle_path()}: in use again, the package's own; it reproduces its golden set" in done.stdout
    assert current(node / "data") is None
    told = json.loads(run("rollback", "--config", "node.yaml", "--json").stdout)
    assert (told["bundle"], told["previous"]) == (str(first), str(default_bundle_path()))
    assert current(node / "data") == first


def test_what_is_refused_leaves_the_node_as_it_was(run: Run, node: Path) -> None:
    run("install", "first.cxr", "--config", "node.yaml")
    before = current(node / "data")
    (node / "cut.cxr").write_bytes((node / "second.cxr").read_bytes()[:-5])
    shutil.copy(node / "node.yaml", node / "typo.yaml")
    (node / "typo.yaml").write_text("folder: data\nbundel: {}\n")
    for arguments, sentence in (
        (["unsigned.cxr", "--config", "node.yaml"], "unsigned.cxr: is not signed"),
        (["cut.cxr", "--config", "node.yaml"], "cut.cxr: not a whole bundle"),
        (["none.cxr", "--config", "node.yaml"], "none.cxr: cannot be read"),
        (["second.cxr", "--folder", "data"], "no key is trusted here"),
        (["second.cxr"], "which node? give --config node.yaml, or the node's folder with --folder"),
        (["second.cxr", "--config", "typo.yaml"], "typo.yaml:2: unknown key 'bundel' in the configuration"),
        (["second.cxr", "--config", "none.yaml"], "none.yaml: cannot be read"),
    ):
        done = run("install", *arguments)
        assert sentence in " ".join(done.stderr.split())
        assert (done.returncode, done.stdout, "Traceback" in done.stderr) == (2, "", False)
    assert current(node / "data") == before


def test_a_bundle_that_no_engine_reproduces_ends_with_3(run: Run, node: Path, tiny_build: Any) -> None:
    golden = tiny_build.golden
    negated = {name: -values for name, values in golden.logits.items()}
    wrong = type(golden)(golden.frames, negated, golden.cam, golden.embedding)
    tiny_build.write(node / "wrong.cxr", golden=wrong)
    done = run("install", "wrong.cxr", "--config", "node.yaml", "--allow-unsigned")
    assert (done.returncode, "no engine can run this bundle here" in done.stderr) == (3, True)
    assert current(node / "data") is None


def test_a_folder_a_key_and_a_choice_can_be_given(run: Run, node: Path) -> None:
    done = run("install", "first.cxr", "--folder", "other", "--trusted", "hospital.pub")
    assert (done.returncode, "signed by hospital" in done.stdout) == (0, True)
    done = run("install", "unsigned.cxr", "--folder", "other", "--allow-unsigned")
    assert (done.returncode, "without a trusted signature" in done.stdout) == (0, True)
    assert run("rollback", "--folder", "other", "--trusted", "hospital.pub").returncode == 0


def test_a_bundle_named_in_the_configuration_is_warned_of(run: Run, node: Path) -> None:
    with (node / "node.yaml").open("a") as file:
        file.write("  path: second.cxr\n")
    done = run("install", "first.cxr", "--config", "node.yaml")
    assert done.returncode == 0
    assert "second.cxr, which the node uses instead; remove that line" in done.stderr
