"""Key files: made once, kept from others, and every wrong one refused with a sentence."""

import os
import stat
from pathlib import Path

import pytest

from edgecxr.bundle.keys import PassphraseWanted, generate, is_private_to_owner, read_private, read_public
from edgecxr.errors import BundleError

pytest.importorskip("cryptography", reason="pip install edgecxr[node]: keys need cryptography")


def test_a_key_pair_belongs_together(tmp_path: Path) -> None:
    made = generate(tmp_path / "mine")
    private, public = read_private(tmp_path / "mine.key"), read_public(tmp_path / "mine.pub")
    assert made.key_id == private.key_id == public.key_id
    assert public.verifies(private.sign(b"text"), b"text")
    assert not public.verifies(private.sign(b"text"), b"other")
    assert not public.verifies(b"", b"text")


def test_the_private_key_is_its_owners_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        generate(tmp_path / "mine")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "mine.key").stat().st_mode) == 0o600
    assert is_private_to_owner(tmp_path / "mine.key")
    (tmp_path / "mine.key").chmod(0o640)
    assert not is_private_to_owner(tmp_path / "mine.key")


@pytest.mark.parametrize("there", ["mine.key", "mine.pub"])
def test_nothing_is_overwritten(there: str, tmp_path: Path) -> None:
    (tmp_path / there).write_text("precious")
    with pytest.raises(BundleError, match=rf"{there}: exists and is not overwritten; choose another name"):
        generate(tmp_path / "mine")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(there, "precious")]


def test_no_folder_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"none/mine.key: cannot be written: No such file"):
        generate(tmp_path / "none" / "mine")


def test_an_encrypted_key_needs_its_passphrase(tmp_path: Path) -> None:
    made = generate(tmp_path / "mine", b"open sesame")
    assert b"ENCRYPTED" in (tmp_path / "mine.key").read_bytes()
    assert read_private(tmp_path / "mine.key", b"open sesame").key_id == made.key_id
    with pytest.raises(PassphraseWanted, match="is encrypted; give its passphrase"):
        read_private(tmp_path / "mine.key")
    with pytest.raises(BundleError, match="the passphrase is wrong, or it is damaged"):
        read_private(tmp_path / "mine.key", b"open barley")
    with pytest.raises(BundleError, match="the passphrase is empty"):
        generate(tmp_path / "other", b"")


def test_a_passphrase_that_is_not_needed_does_no_harm(tmp_path: Path) -> None:
    made = generate(tmp_path / "mine")
    assert read_private(tmp_path / "mine.key", b"not needed").key_id == made.key_id


def test_what_is_no_key_of_ours_is_refused(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    generate(tmp_path / "mine")
    curve = ec.generate_private_key(ec.SECP256R1())
    pem = form.Encoding.PEM
    (tmp_path / "ec.key").write_bytes(curve.private_bytes(pem, form.PrivateFormat.PKCS8, form.NoEncryption()))
    (tmp_path / "ec.pub").write_bytes(curve.public_key().public_bytes(pem, form.PublicFormat.SubjectPublicKeyInfo))
    (tmp_path / "text").write_text("no key")
    (tmp_path / "large").write_bytes(bytes(70_000))
    (tmp_path / "cut.pub").write_bytes((tmp_path / "mine.pub").read_bytes()[:60])
    for name, sentence in {
        "mine.key": r"is a private key, wanted the public one \(.pub\); keep this file from others",
        "ec.pub": "is a key of another kind, wanted Ed25519",
        "text": "is not a public key in PEM; give the .pub file",
        "cut.pub": "is not a public key in PEM",
        "large": "larger than 64 KB, so it is not a key",
        "none": "cannot be read: No such file",
    }.items():
        with pytest.raises(BundleError, match=f"{name}: {sentence}"):
            read_public(tmp_path / name)
    for name, sentence in {
        "mine.pub": "it is not a private key in PEM; give the .key file",
        "ec.key": "is a key of another kind, wanted Ed25519",
        "text": "it is not a private key in PEM",
    }.items():
        with pytest.raises(BundleError, match=f"{name}: {sentence}"):
            read_private(tmp_path / name)
