"""``edgecxr keygen``, ``sign``, and what ``verify`` and ``inspect`` say of a signature."""

import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgecxr.bundle import Bundle
from edgecxr.bundle.keys import generate, read_private, read_public
from edgecxr.bundle.signature import signers

pytest.importorskip("cryptography", reason="pip install edgecxr[node]: signatures need cryptography")
Run = Callable[..., Any]


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(tiny_bundle, tmp_path / "tiny.cxr"))


@pytest.mark.parametrize("verb", ["keygen", "sign"])
def test_help_has_an_example(run: Run, verb: str) -> None:
    done = run(verb, "--help")
    assert done.returncode == 0
    assert f"Example: edgecxr {verb}" in done.stdout


def test_a_key_signs_a_bundle_and_verify_names_it(run: Run, bundle: Path, tmp_path: Path) -> None:
    digest = Bundle.open(bundle).digest
    assert "unsigned\n" in run("verify", "tiny.cxr").stdout
    assert json.loads(run("keygen", "mine", "--json").stdout) == {
        "key": read_public(tmp_path / "mine.pub").key_id,
        "private": "mine.key",
        "public": "mine.pub",
    }
    assert stat.S_IMODE((tmp_path / "mine.key").stat().st_mode) == 0o600
    done = run("sign", "tiny.cxr", "--key", "mine.key")
    key_id = read_public(tmp_path / "mine.pub").key_id
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"tiny.cxr: signed by key {key_id[:12]}, digest {digest[:12]}\n"
    assert f"says it is signed by key {key_id[:12]}; not checked" in run("verify", "tiny.cxr").stdout
    assert f"signed by mine (key {key_id[:12]})" in run("verify", "tiny.cxr", "--trusted", "mine.pub").stdout
    told = json.loads(run("verify", "tiny.cxr", "--trusted", "mine.pub", "--json").stdout)
    assert (told["digest"], told["keys"], told["signed_by"]) == (digest, [key_id], {"name": "mine", "key_id": key_id})
    assert f"by key {key_id[:12]}" in run("inspect", "tiny.cxr").stdout
    assert json.loads(run("inspect", "tiny.cxr", "--json").stdout)["keys"] == [key_id]


def test_verify_with_a_key_refuses_what_it_did_not_sign(run: Run, bundle: Path, tmp_path: Path) -> None:
    generate(tmp_path / "mine")
    done = run("verify", "tiny.cxr", "--trusted", "mine.pub")
    assert (done.returncode, done.stdout) == (2, "")
    assert "edgecxr: tiny.cxr: is not signed" in done.stderr


def test_a_link_that_leads_to_itself_is_no_bundle(run: Run, tmp_path: Path) -> None:
    generate(tmp_path / "mine")
    (tmp_path / "self.cxr").symlink_to("self.cxr")
    done = run("sign", "self.cxr", "--key", "mine.key")
    assert (done.returncode, done.stdout) == (2, "")
    assert "self.cxr: cannot be read: " in done.stderr


def test_a_key_is_not_overwritten(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.pub").write_text("precious")
    done = run("keygen", "mine")
    assert done.returncode == 2
    assert "mine.pub: exists and is not overwritten; choose another name" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.pub"]


def test_passphrases_come_from_a_file_or_the_environment(run: Run, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "phrase").write_text("open sesame\r\n")
    assert run("keygen", "mine", "--passphrase-file", "phrase").returncode == 0
    assert read_private(tmp_path / "mine.key", b"open sesame")
    assert "mine.key: is encrypted; give its passphrase" in run("sign", "tiny.cxr", "--key", "mine.key").stderr
    wrong = run("sign", "tiny.cxr", "--key", "mine.key", EDGECXR_PASSPHRASE="barley")
    assert (wrong.returncode, "the passphrase is wrong" in wrong.stderr) == (2, True)
    assert signers(Bundle.open(bundle)) == ()
    assert run("sign", "tiny.cxr", "--key", "mine.key", EDGECXR_PASSPHRASE="open sesame").returncode == 0
    assert run("sign", "tiny.cxr", "--key", "mine.key", "--passphrase-file", "phrase").returncode == 0
    assert len(signers(Bundle.open(bundle))) == 1


def test_misuse_is_a_sentence(run: Run, bundle: Path, tmp_path: Path) -> None:
    generate(tmp_path / "mine")
    generate(tmp_path / "locked", b"open sesame")
    (tmp_path / "empty").touch()
    for arguments, sentence in (
        (["sign", "none.cxr", "--key", "mine.key"], "none.cxr: cannot be read"),
        (["sign", "tiny.cxr", "--key", "none.key"], "none.key: cannot be read"),
        (["sign", "tiny.cxr", "--key", "mine.pub"], "mine.pub: it is not a private key in PEM"),
        (["sign", "tiny.cxr"], "Missing option '--key'"),
        (["keygen", "other", "--passphrase-file", "empty"], "empty: holds 0 bytes, wanted a passphrase"),
        (["keygen", "other", "--ask"], "--ask needs a terminal and there is none; give --passphrase-file FILE"),
        (["sign", "locked.cxr", "--key", "locked.key", "--ask"], "--ask needs a terminal and there is none"),
        (["keygen", "other", "--passphrase-file", "none"], "none: cannot be read"),
        (["verify", "tiny.cxr", "--trusted", "mine.key"], "mine.key: is a private key, wanted the public one"),
    ):
        done = run(*arguments)
        assert sentence in " ".join(done.stderr.split())
        assert (done.returncode, "Traceback" in done.stderr) == (2, False)


def test_a_key_that_others_can_read_is_warned_of(run: Run, bundle: Path, tmp_path: Path) -> None:
    generate(tmp_path / "mine")
    (tmp_path / "mine.key").chmod(0o644)
    done = run("sign", "tiny.cxr", "--key", "mine.key")
    assert done.returncode == 0
    assert "warning: other users of this machine can read mine.key: chmod 600 mine.key" in done.stderr
