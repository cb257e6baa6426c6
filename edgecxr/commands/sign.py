"""``edgecxr keygen`` and ``edgecxr sign``: a key of one's own, and its signature on a bundle."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecxr.commands.choices import misuse
from edgecxr.commands.terminal import note, print_json

if TYPE_CHECKING:
    from edgecxr.bundle.keys import PrivateKey

__all__ = ["keygen", "sign"]

VARIABLE = "EDGECXR_PASSPHRASE"
PassphraseFile = Annotated[
    Path | None, typer.Option(help=f"A file with the passphrase of the private key.  [default: ${VARIABLE}]")
]


def keygen(
    name: Annotated[str, typer.Argument(help="Writes NAME.key (keep it) and NAME.pub (give it away).")],
    passphrase_file: PassphraseFile = None,
    ask: Annotated[bool, typer.Option("--ask", help="Ask for a passphrase on the terminal.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Make an Ed25519 key pair to sign bundles with. Nothing is overwritten.

    The private key is encrypted where a passphrase is given: in a file, in EDGECXR_PASSPHRASE, or on the terminal.

    Example: `edgecxr keygen hospital --ask`
    """
    from edgecxr.bundle.keys import generate

    passphrase = _given(passphrase_file)
    if passphrase is None and ask:
        passphrase = _asked("Passphrase", confirm=True)
    key = generate(name, passphrase)
    if as_json:
        print_json({"key": key.key_id, "private": f"{name}.key", "public": f"{name}.pub"})
        return
    how = "NOT encrypted (no passphrase was given)" if passphrase is None else "encrypted"
    print(f"{name}.key: the private key, {how}; who has it can sign in your name")
    print(f"{name}.pub: the public key, id {key.key_id[:12]}; name it in trusted_keys of each node")


def sign(
    bundle: Annotated[Path, typer.Argument(help="The bundle; the signature is added to the file.")],
    key: Annotated[Path, typer.Option(help="The private key (NAME.key of edgecxr keygen).")],
    passphrase_file: PassphraseFile = None,
    ask: Annotated[bool, typer.Option("--ask", help="Ask for the passphrase on the terminal.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Check a bundle wholly, then add your signature to it. Its digest stays the same.

    Example: `edgecxr sign covid3.cxr --key hospital.key`
    """
    from edgecxr.bundle import signature
    from edgecxr.bundle.keys import is_private_to_owner

    private = _private(key, passphrase_file, ask)
    if not is_private_to_owner(key):
        note(f"warning: other users of this machine can read {key}: chmod 600 {key}")
    digest = signature.sign(bundle, private)
    if as_json:
        print_json({"bundle": str(bundle), "digest": digest, "key": private.key_id})
    else:
        print(f"{bundle}: signed by key {private.key_id[:12]}, digest {digest[:12]}")


def _private(path: Path, passphrase_file: Path | None, ask: bool) -> "PrivateKey":
    from edgecxr.bundle.keys import PassphraseWanted, read_private

    passphrase = _given(passphrase_file)
    try:
        return read_private(path, passphrase)
    except PassphraseWanted:
        if passphrase is not None or not (ask or sys.stdin.isatty()):
            raise
    return read_private(path, _asked(f"Passphrase of {path}"))


def _asked(prompt: str, *, confirm: bool = False) -> bytes:
    """What is typed on the terminal, unseen; misuse where there is no terminal."""
    if not sys.stdin.isatty():
        misuse(f"--ask needs a terminal and there is none; give --passphrase-file FILE, or ${VARIABLE}")
    return str(typer.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True)).encode()


def _given(file: Path | None) -> bytes | None:
    """The passphrase of the file (without its line end), else of the environment; None where neither is given."""
    if file is None:
        value = os.environ.get(VARIABLE)
        return value.encode() if value else None
    try:
        with file.open("rb") as opened:
            passphrase = opened.read(4097).rstrip(b"\r\n")
    except OSError as error:
        misuse(f"{file}: cannot be read: {error.strerror or error}; give a file with the passphrase")
    if not 1 <= len(passphrase) <= 4096:
        misuse(f"{file}: holds {len(passphrase)} bytes, wanted a passphrase of 1 to 4096")
    return passphrase
