"""Ed25519 keys in PEM files (PKCS #8 and SubjectPublicKeyInfo, RFC 8410), through `cryptography`."""

import hashlib
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgecxr.bundle import archive
from edgecxr.errors import BundleError, EngineError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = [
    "PassphraseWanted",
    "PrivateKey",
    "PublicKey",
    "generate",
    "is_private_to_owner",
    "read_private",
    "read_public",
]

LIMIT_BYTES = 64 * 1024


class PassphraseWanted(BundleError):
    """The private key is encrypted and no passphrase was given."""


class PublicKey(NamedTuple):
    """A public key and its id, the SHA-256 (64 hex) of its 32 raw bytes."""

    key: "Ed25519PublicKey"
    key_id: str

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether the signature is this key's, of this message."""
        from cryptography.exceptions import InvalidSignature

        try:
            self.key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


class PrivateKey(NamedTuple):
    """A private key and the id of its public key."""

    key: "Ed25519PrivateKey"
    key_id: str

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        return self.key.sign(message)


def generate(name: str | Path, passphrase: bytes | None = None) -> PrivateKey:
    """Write ``<name>.key`` (mode 0600, encrypted where a passphrase is given) and ``<name>.pub``.

    Raises BundleError where one of them exists or cannot be written; then neither is left behind.
    """
    _require()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    if passphrase == b"":
        raise BundleError("the passphrase is empty; give one with at least a character, or none at all")
    key = Ed25519PrivateKey.generate()
    lock = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    _write_new({Path(f"{name}.key"): (private, 0o600), Path(f"{name}.pub"): (public, 0o644)})
    return PrivateKey(key, _key_id(key.public_key()))


def read_public(path: str | Path) -> PublicKey:
    """The public key of a PEM file. Raises BundleError, one sentence."""
    data = _read(path)
    _require()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if b"PRIVATE KEY-----" in data:
        raise BundleError(f"{path}: is a private key, wanted the public one (.pub); keep this file from others")
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BundleError(f"{path}: is not a public key in PEM; give the .pub file of edgecxr keygen") from error
    if not isinstance(key, Ed25519PublicKey):
        raise BundleError(f"{path}: is a key of another kind, wanted Ed25519; make one with edgecxr keygen")
    return PublicKey(key, _key_id(key))


def read_private(path: str | Path, passphrase: bytes | None = None) -> PrivateKey:
    """The private key of a PEM file; a passphrase that it does not need is not looked at. Raises BundleError."""
    data = _read(path)
    _require()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    locked = b"BEGIN ENCRYPTED PRIVATE KEY-----" in data
    if locked and not passphrase:
        raise PassphraseWanted(f"{path}: is encrypted; give its passphrase (--passphrase-file or EDGECXR_PASSPHRASE)")
    try:
        key = load_pem_private_key(data, passphrase if locked else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        reason = "the passphrase is wrong, or it is damaged" if locked else "it is not a private key in PEM"
        raise BundleError(f"{path}: {reason}; give the .key file of edgecxr keygen") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BundleError(f"{path}: is a key of another kind, wanted Ed25519; make one with edgecxr keygen")
    return PrivateKey(key, _key_id(key.public_key()))


def is_private_to_owner(path: str | Path) -> bool:
    """Whether nobody but its owner can read or write the file (always, where a system has no such modes)."""
    return os.name != "posix" or not Path(path).stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)


def _require() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise EngineError('signatures need cryptography: pip install "edgecxr[node]"') from error


def _key_id(key: "Ed25519PublicKey") -> str:
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()


def _read(path: str | Path) -> bytes:
    return archive.read_bytes(Path(path), LIMIT_BYTES, "a key", "the path of a key")


def _write_new(contents: dict[Path, tuple[bytes, int]]) -> None:
    written: list[Path] = []
    try:
        for path, (content, mode) in contents.items():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            written.append(path)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        for path in written:
            with suppress(OSError):
                path.unlink()
        place = error.filename or next(iter(contents))
        if isinstance(error, FileExistsError):
            raise BundleError(f"{place}: exists and is not overwritten; choose another name") from error
        raise BundleError(f"{place}: cannot be written: {error.strerror or error}") from error
